//! The text format of `OpenMetrics`, as far as it is needed here: samples with their labels and values.

use std::collections::BTreeMap;

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// All samples, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(BTreeMap<String, Vec<Sample>>);

impl Samples {
    /// Reads what can be read; a line that cannot is left out, as a metric that is not known would be.
    pub(super) fn parse(text: &str) -> Self {
        let mut samples = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = parse_line(line) {
                samples.0.entry(name).or_default().push(sample);
            }
        }
        samples
    }

    /// The samples of a metric; none if the server does not have it.
    pub(super) fn of(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

fn parse_line(line: &str) -> Option<(String, Sample)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            rest = rest.strip_prefix(',').unwrap_or(rest);
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label.to_owned(), value));
            rest = after;
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), Sample { labels, value }))
}

/// A value up to its closing quote, and what comes behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# HELP bursar_connections Connections.\nbursar_connections 3\n\
                    bursar_requests_total{outcome=\"rejected\",code=\"a\\\"b\\\\,}\"} 7 1700000000\n\
                    b{le=\"+Inf\"} 2.5e-1\nbroken{ 1\nnothing\n# EOF\n";
        let samples = Samples::parse(text);
        assert_eq!(samples.of("bursar_connections"), [Sample { labels: Vec::new(), value: 3.0 }]);
        let [request] = samples.of("bursar_requests_total") else { panic!("{samples:?}") };
        assert_eq!((request.label("outcome"), request.label("code")), (Some("rejected"), Some("a\"b\\,}")));
        assert_eq!((request.value.to_string().as_str(), request.label("none")), ("7", None));
        assert_eq!(samples.of("b"), [Sample { labels: vec![("le".to_owned(), "+Inf".to_owned())], value: 0.25 }]);
        assert!(samples.of("broken").is_empty() && samples.of("nothing").is_empty());
    }
}
