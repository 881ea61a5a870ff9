//! The keys of a running service: read at the start, and again when their file has changed.

use super::{Key, KeyFile, KeyFileError, KeyId, KeySet, Role};
use std::sync::{Arc, PoisonError, RwLock};

/// Where keys come from.
#[derive(Debug)]
enum Source {
    /// A file, which may change or come into being while the service runs.
    File(KeyFile),
    /// They are given, and stay.
    Given,
}

/// Who is let in.
#[derive(Clone, Debug)]
enum State {
    /// Everybody: there are no keys, and nobody but this machine reaches the service.
    Everybody,
    /// Whoever has one of these.
    Keys(Arc<KeySet>),
    /// Nobody: the list cannot be read.
    Nobody(Arc<str>),
}

/// Whether somebody is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Keys are not required.
    Open,
    /// As this.
    As(Role, KeyId),
    /// A key is required.
    Needed,
    /// The key is not known.
    Unknown,
    /// Nobody is let in, and this is why.
    Nobody(Arc<str>),
}

/// The keys of a running service.
#[derive(Debug)]
pub(crate) struct Ring {
    source: Source,
    state: RwLock<State>,
}

impl Ring {
    /// Keys of a file. `required`: also where there is no file.
    pub(crate) fn of_file(file: KeyFile, required: bool) -> Result<Self, KeyFileError> {
        let state = match file.read()? {
            Some(keys) => State::Keys(Arc::new(keys)),
            None if required => State::Keys(Arc::default()),
            None => State::Everybody,
        };
        Ok(Self { source: Source::File(file), state: RwLock::new(state) })
    }

    /// These keys and no others.
    pub(crate) fn given(keys: KeySet) -> Self {
        Self { source: Source::Given, state: RwLock::new(State::Keys(Arc::new(keys))) }
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a key is required.
    pub(crate) fn is_required(&self) -> bool {
        match self.state() {
            State::Everybody => false,
            State::Keys(_) | State::Nobody(_) => true,
        }
    }

    /// Whether somebody with this header `Authorization` is let in.
    pub(crate) fn admit(&self, authorization: Option<&str>) -> Admission {
        let keys = match self.state() {
            State::Everybody => return Admission::Open,
            State::Nobody(why) => return Admission::Nobody(why),
            State::Keys(keys) => keys,
        };
        let Some(text) = authorization else { return Admission::Needed };
        let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else { return Admission::Needed };
        let found = Key::parse(token.trim_start_matches(' '))
            .and_then(|key| keys.find(&key).map(|entry| Admission::As(entry.role, key.key_id())));
        found.unwrap_or(Admission::Unknown)
    }

    /// Looks every second whether the file has changed. Runs as long as the service.
    pub(crate) async fn follow(self: Arc<Self>) {
        let Source::File(file) = &self.source else { return };
        let mut seen = None;
        loop {
            let (looked, before) = (file.clone(), seen);
            let read = tokio::task::spawn_blocking(move || {
                let stamp = looked.stamp();
                (stamp, (Some(stamp) != before).then(|| looked.read()))
            });
            if let Ok((stamp, read)) = read.await {
                seen = Some(stamp);
                if let Some(read) = read {
                    self.take(read);
                }
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    /// Takes what was read. Once keys were required they stay so, whatever becomes of the file.
    fn take(&self, read: Result<Option<KeySet>, KeyFileError>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = match (read, &*state) {
            (Ok(None), State::Everybody) => State::Everybody,
            (Ok(None), State::Keys(_) | State::Nobody(_)) => State::Keys(Arc::default()),
            (Ok(Some(keys)), _) => State::Keys(Arc::new(keys)),
            (Err(error), _) => {
                tracing::error!(code = error.code(), "{error}; nobody is let in until it can be read");
                State::Nobody(error.to_string().into())
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_does_not_open_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let ring = |required| Ring::of_file(KeyFile::of(directory.path()), required).unwrap();
        assert_eq!(ring(true).admit(None), Admission::Needed);
        let ring = ring(false);
        assert_eq!(ring.admit(None), Admission::Open);

        let key = Key::generate().unwrap();
        let set = KeySet::new(vec![key.entry("x", Role::Submit, String::new())]);
        ring.take(Ok(set));
        let bearer = format!("Bearer {}", key.reveal());
        let other = format!("Bearer {}", Key::generate().unwrap().reveal());
        let table: [(Option<&str>, Admission); 7] = [
            (None, Admission::Needed),
            (Some(""), Admission::Needed),
            (Some("Basic eDp5"), Admission::Needed),
            (Some("Bearer "), Admission::Unknown),
            (Some("Bearer x"), Admission::Unknown),
            (Some(&other), Admission::Unknown),
            (Some(&bearer), Admission::As(Role::Submit, key.key_id())),
        ];
        for (header, expected) in &table {
            assert_eq!(ring.admit(*header), *expected, "{header:?}");
        }

        let damaged = || KeyFileError::Damaged { path: "keys".into(), what: String::new() };
        ring.take(Err(damaged()));
        assert!(matches!(ring.admit(Some(&bearer)), Admission::Nobody(_)));
        ring.take(Ok(None));
        assert_eq!(ring.admit(Some(&bearer)), Admission::Unknown);
        assert_eq!(ring.admit(None), Admission::Needed);
        ring.take(Ok(Some(KeySet::default())));
        assert_eq!(ring.admit(None), Admission::Needed);
    }
}
