//! What stands in `bursar.toml` about rails: `[rails.NAME]` and `[routes]`. Strict: a key that is not known is an error.

use bursar_core::RailId;
use bursar_core::commit::{Routes, Schedule};
pub use bursar_outbound::is_readable_by_others;
use bursar_outbound::{Hidden, Secret, SecretSource};
use reqwest::Url;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// The keys of `[rails.NAME]`.
pub const RAIL_KEYS: [&str; 10] =
    ["number", "url", "status_url", "secret", "secret_env", "secret_file", "ca_file", "timeout", "retry", "deadline"];
/// The keys of `retry`.
pub const RETRY_KEYS: [&str; 3] = ["first", "factor", "max"];
/// The keys of `[routes]`.
pub const ROUTE_KEYS: [&str; 2] = ["deposit", "withdrawal"];
/// Stands for the event's id in a status address.
pub const EVENT: &str = "{event}";

/// `[rails.NAME]`: a rail as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RailSettings {
    /// What stands for it in events, for ever.
    number: Spanned<Number>,
    /// Where it is called.
    url: Spanned<String>,
    /// Where it can be asked, with `{event}` for the event's id.
    status_url: Option<Spanned<String>>,
    /// The secret that calls are signed with.
    secret: Option<Spanned<Hidden>>,
    /// The environment variable that holds it.
    secret_env: Option<Spanned<String>>,
    /// The file that holds it; a relative path begins at the settings' own directory.
    secret_file: Option<Spanned<PathBuf>>,
    /// Certificates (PEM) of authorities to trust for this rail, beside the system's.
    ca_file: Option<Spanned<PathBuf>>,
    /// How long one exchange may take.
    #[serde(default = "default_timeout")]
    timeout: Spanned<Span>,
    /// When it is asked again.
    #[serde(default)]
    retry: RetrySettings,
    /// How long after its event it is called of itself.
    deadline: Option<Spanned<Span>>,
}

/// The number of a rail, 1 to 255.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
struct Number(RailId);

impl TryFrom<i64> for Number {
    type Error = &'static str;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        u8::try_from(number).ok().and_then(RailId::new).map(Self).ok_or("the number of a rail is from 1 to 255")
    }
}

fn default_timeout() -> Spanned<Span> {
    Spanned::new(0..0, Span(Duration::from_secs(30)))
}

/// `retry = { first = "1s", factor = 2, max = "5m" }`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySettings {
    first: Spanned<Span>,
    factor: Spanned<u32>,
    max: Spanned<Span>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            first: Spanned::new(0..0, Span(Duration::from_secs(1))),
            factor: Spanned::new(0..0, 2),
            max: Spanned::new(0..0, Span(Duration::from_mins(5))),
        }
    }
}

/// `[routes]`: which kinds of request go through which rail, by its name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    deposit: Option<Spanned<String>>,
    withdrawal: Option<Spanned<String>>,
}

/// A length of time, as `250ms`, `10s`, `5m`, `24h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("`{text}` is no length of time such as 250ms, 10s, 5m, 24h or 7d");
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count: u64 = text[..digits].parse().map_err(|_| bad())?;
        let unit_ms: u64 = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        count.checked_mul(unit_ms).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(bad)
    }
}

impl Span {
    fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Something wrong with the settings, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// Where in the text, in bytes; empty at 0 where it is of the whole.
    pub span: Range<usize>,
    /// What is wrong. It never shows a secret.
    pub what: String,
}

fn wrong<T>(span: Range<usize>, what: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError { span, what: what.into() })
}

/// A rail that can be called, by settings that make sense.
#[derive(Clone, Debug)]
pub struct RailConfig {
    /// What stands for it in events.
    pub id: RailId,
    /// What people call it.
    pub name: String,
    /// Where it is called.
    pub url: Url,
    /// Where it can be asked, with `{event}` for the event's id.
    pub status_url: Option<String>,
    /// What calls are signed with; `None` where no secret was asked for ([`check`]).
    pub secret: Option<Secret>,
    /// Certificates (PEM) of authorities to trust beside the system's.
    pub ca: Option<Vec<u8>>,
    /// How long one exchange may take.
    pub timeout: Duration,
    /// When it is asked again.
    pub schedule: Schedule,
}

/// What all settings about rails say together.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The rails.
    pub rails: Vec<RailConfig>,
    /// Which kinds go through which.
    pub routes: Routes,
    /// What is allowed and should not be so, in sentences.
    pub warnings: Vec<String>,
}

/// Checks the settings of all rails. `directory` is that of the settings, where relative paths begin. `with_secrets`:
/// reads the secrets and certificates, for a process that will call; others need none and may not be allowed to.
pub fn check(
    rails: &BTreeMap<String, RailSettings>,
    routes: &RouteSettings,
    directory: &Path,
    with_secrets: bool,
) -> Result<Checked, SettingsError> {
    let mut checked = Checked::default();
    let mut numbers: BTreeMap<u8, &str> = BTreeMap::new();
    for (name, settings) in rails {
        let rail = settings.check(name, directory, with_secrets, &mut checked.warnings)?;
        if let Some(other) = numbers.insert(rail.id.number(), name) {
            let number = rail.id.number();
            return wrong(settings.number.span(), format!("rails {other} and {name} have the same number, {number}"));
        }
        checked.rails.push(rail);
    }
    let route = |kind: &str, route: &Option<Spanned<String>>| {
        let Some(route) = route else { return Ok(None) };
        if let Some(rail) = rails.get(route.get_ref()) {
            return Ok(Some(rail.number.get_ref().0));
        }
        let names: Vec<_> = rails.keys().map(String::as_str).collect();
        let there = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
        let name = route.get_ref();
        let what = format!("{kind} is to go through the rail `{name}`, and there is no such rail ({there})");
        wrong(route.span(), what)
    };
    checked.routes.deposit = route("deposit", &routes.deposit)?;
    checked.routes.withdrawal = route("withdrawal", &routes.withdrawal)?;
    Ok(checked)
}

impl RailSettings {
    /// Whether its secret stands in the settings themselves.
    pub const fn has_secret_inside(&self) -> bool {
        self.secret.is_some()
    }

    fn check(
        &self,
        name: &str,
        directory: &Path,
        with_secrets: bool,
        warnings: &mut Vec<String>,
    ) -> Result<RailConfig, SettingsError> {
        let url = check_url(&self.url)?;
        if url.scheme() == "http" && !is_of_this_machine(&url) {
            warnings.push(format!("rail {name}: calls to {url} go unencrypted over the network; use https"));
        }
        let status_url = match &self.status_url {
            Some(template) => Some(check_template(template)?),
            None => None,
        };
        let secret = self.secret(name, directory, with_secrets, warnings)?;
        let ca = match self.ca_file.as_ref().filter(|_| with_secrets) {
            Some(path) => Some(read(path, directory)?),
            None => None,
        };
        let in_range = |span: &Spanned<Span>, what: &str, min: Span, max: Span| {
            if (min.0..=max.0).contains(&span.get_ref().0) {
                return Ok(());
            }
            wrong(span.span(), format!("{what} must be from {:?} to {:?}", min.0, max.0))
        };
        let day = |days: u64| Span(Duration::from_hours(24 * days));
        in_range(&self.timeout, "the time-out", Span(Duration::from_millis(10)), Span(Duration::from_mins(10)))?;
        let RetrySettings { first, factor, max } = &self.retry;
        in_range(first, "the first pause", Span(Duration::from_millis(1)), day(1))?;
        in_range(max, "the longest pause", *first.get_ref(), day(7))?;
        if !(1..=100).contains(factor.get_ref()) {
            return wrong(factor.span(), "the factor must be from 1 to 100");
        }
        if let Some(deadline) = &self.deadline {
            in_range(deadline, "the deadline", Span(Duration::from_secs(1)), day(365))?;
        }
        let schedule = Schedule {
            first_ms: first.get_ref().ms(),
            factor: *factor.get_ref(),
            max_ms: max.get_ref().ms(),
            deadline_ms: self.deadline.as_ref().map(|deadline| deadline.get_ref().ms()),
        };
        let (id, timeout) = (self.number.get_ref().0, self.timeout.get_ref().0);
        Ok(RailConfig { id, name: name.to_owned(), url, status_url, secret, ca, timeout, schedule })
    }

    fn secret(
        &self,
        name: &str,
        directory: &Path,
        with_secrets: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Secret>, SettingsError> {
        let (inside, variable, path) = (self.secret.as_ref(), self.secret_env.as_ref(), self.secret_file.as_ref());
        let source = SecretSource::of(
            inside.map(Spanned::get_ref),
            variable.map(|variable| variable.get_ref().as_str()),
            path.map(|path| path.get_ref().as_path()),
        );
        let source = source.or_else(|error| wrong(self.number.span(), format!("rail {name} {error}")))?;
        // The one that there is.
        let spans = [inside.map(Spanned::span), variable.map(Spanned::span), path.map(Spanned::span)];
        let span = spans.into_iter().flatten().next().unwrap_or_default();
        match &source {
            SecretSource::Variable(_) | SecretSource::File(_) if !with_secrets => return Ok(None),
            SecretSource::File(path) if is_readable_by_others(&directory.join(path)) => {
                let path = directory.join(path);
                warnings.push(format!("rail {name}: its secret in {} can be read by others", path.display()));
            }
            SecretSource::Inside(_) | SecretSource::Variable(_) | SecretSource::File(_) => {}
        }
        let text = source.read(directory).or_else(|error| wrong(span.clone(), error.to_string()))?;
        Secret::parse(&text).map(Some).or_else(|bad| wrong(span, bad.to_string()))
    }
}

fn read(path: &Spanned<PathBuf>, directory: &Path) -> Result<Vec<u8>, SettingsError> {
    let full = directory.join(path.get_ref());
    std::fs::read(&full).or_else(|error| wrong(path.span(), format!("{} cannot be read: {error}", full.display())))
}

fn check_url(text: &Spanned<String>) -> Result<Url, SettingsError> {
    let url = match Url::parse(text.get_ref()) {
        Ok(url) => url,
        Err(error) => return wrong(text.span(), format!("this is no address: {error}")),
    };
    if !["http", "https"].contains(&url.scheme()) {
        return wrong(text.span(), "an address begins with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong(
            text.span(),
            "an address with a name or password would show it; calls are signed with the secret",
        );
    }
    if url.fragment().is_some() {
        return wrong(text.span(), "a part behind # is never sent");
    }
    Ok(url)
}

fn check_template(template: &Spanned<String>) -> Result<String, SettingsError> {
    if template.get_ref().matches(EVENT).count() != 1 {
        return wrong(template.span(), format!("the status address must have {EVENT} once, where the event's id goes"));
    }
    let filled = template.get_ref().replace(EVENT, "00000000-0000-8000-8000-000000000000");
    check_url(&Spanned::new(template.span(), filled))?;
    Ok(template.get_ref().clone())
}

fn is_of_this_machine(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        rails: BTreeMap<String, RailSettings>,
        #[serde(default)]
        routes: RouteSettings,
    }

    const SECRET: &str = "secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'";

    /// What is wrong with a text, and the part of it that is meant.
    fn fault(text: &str) -> (String, &str) {
        let file: File = toml::from_str(text).unwrap();
        let error = check(&file.rails, &file.routes, Path::new("/nowhere"), true).unwrap_err();
        (error.what, &text[error.span])
    }

    #[test]
    fn settings_that_make_sense() {
        let text = format!(
            "[rails.payouts]\nnumber = 3\nurl = 'https://bank.example/pay'\nstatus_url = 'https://bank.example/pay/{{event}}'\n{SECRET}\n\
             timeout = '2s'\nretry = {{ first = '250ms', factor = 3, max = '1m' }}\ndeadline = '7d'\n\
             [rails.plain]\nnumber = 255\nurl = 'http://127.0.0.1:7/x'\n{SECRET}\n\
             [rails.open]\nnumber = 1\nurl = 'http://bank.example/'\n{SECRET}\n\
             [routes]\nwithdrawal = 'payouts'\n"
        );
        let file: File = toml::from_str(&text).unwrap();
        let checked = check(&file.rails, &file.routes, Path::new("/"), true).unwrap();
        assert_eq!(checked.routes, Routes { deposit: None, withdrawal: RailId::new(3) });
        let payouts = checked.rails.iter().find(|rail| rail.name == "payouts").unwrap();
        let schedule = Schedule { first_ms: 250, factor: 3, max_ms: 60_000, deadline_ms: Some(7 * 86_400_000) };
        assert_eq!((payouts.schedule, payouts.timeout), (schedule, Duration::from_secs(2)));
        assert_eq!(checked.warnings.len(), 1, "{:?}", checked.warnings);
        assert!(!format!("{file_rails:?} {checked:?}", file_rails = file.rails).contains("MfKQ"));
    }

    #[test]
    fn settings_that_make_none_say_where() {
        let rail = |rest: &str| format!("[rails.a]\nnumber = 1\n{rest}");
        let url = "url = 'https://a.example/'";
        let table: &[(String, &str, &str)] = &[
            (rail("url = 'a.example'"), "no address", "'a.example'"),
            (rail("url = 'ftp://a.example'"), "begins with http", "'ftp://a.example'"),
            (rail("url = 'https://me:pw@a.example'"), "name or password", "'https://me:pw@a.example'"),
            (rail(url), "needs one of secret", "1"),
            (rail(&format!("{url}\n{SECRET}\nsecret_env = 'X'")), "more than one of", "1"),
            (rail(&format!("{url}\nsecret = 'whsec_hello'")), "random bytes in base64", "'whsec_hello'"),
            (rail(&format!("{url}\nsecret_env = 'BURSAR_NOT_SET'")), "is not set", "'BURSAR_NOT_SET'"),
            (rail(&format!("{url}\nsecret_file = 'gone'")), "/nowhere/gone cannot be read", "'gone'"),
            (rail(&format!("{url}\n{SECRET}\nstatus_url = 'https://a/x'")), "must have {event} once", "'https://a/x'"),
            (rail(&format!("{url}\n{SECRET}\ntimeout = '1ms'")), "time-out must be", "'1ms'"),
            (rail(&format!("{url}\n{SECRET}\nretry = {{ first = '9s', max = '1s' }}")), "longest pause", "'1s'"),
            (rail(&format!("{url}\n{SECRET}\nretry.factor = 0")), "factor must be", "0"),
            (rail(&format!("{url}\n{SECRET}\n[routes]\ndeposit = 'b'")), "no such rail (a)", "'b'"),
            (
                rail(&format!("{url}\n{SECRET}\n[rails.b]\nnumber = 0x1\n{url}\n{SECRET}")),
                "rails a and b have the same number, 1",
                "0x1",
            ),
        ];
        for (text, what, at) in table {
            let (said, found) = fault(text);
            assert!(said.contains(what), "{text}: {said}");
            assert_eq!(found, *at, "{text}");
        }
    }

    #[test]
    fn lengths_of_time() {
        for (text, ms) in [("0ms", 0), ("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000)] {
            assert_eq!(Span::try_from(text.to_owned()).unwrap().ms(), ms, "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "1 s", "1w", "99999999999999999999s", "18446744073709551615d"] {
            assert!(Span::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
