//! The settings that money needs: what a ledger's streams are created with, and what is checked each time one is
//! opened.

use crate::error::failed;
use crate::net::{ANSWER_WITHIN, Net, connect_system};
use crate::options::NatsOptions;
use bursar_engine::store::StoreError;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A setting by which acknowledged money can be lost. A store is not opened with one unless told to
/// ([`NatsOptions::allow_weak`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// A stream is kept by fewer than three servers.
    Replicas {
        /// Which stream.
        stream: String,
        /// By how many.
        replicas: u64,
    },
    /// A server does not sync each write.
    NotSynced {
        /// Which server.
        server: String,
    },
    /// Nobody could see whether every server syncs each write.
    SyncUnseen {
        /// Why not.
        why: String,
    },
    /// A stream has a setting that drops, hides or rewrites messages.
    Stream {
        /// Which stream.
        stream: String,
        /// Which setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        needed: String,
    },
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas { stream, replicas } => write!(
                f,
                "stream {stream} has {replicas} replica(s): the loss of one disk loses money; it needs 3 or 5"
            ),
            Self::NotSynced { server } => write!(
                f,
                "server {server} does not sync each write: a power failure loses what was acknowledged; set `sync_interval: always` in its `jetstream` block"
            ),
            Self::SyncUnseen { why } => write!(
                f,
                "nobody can see whether the servers sync each write ({why}); give the system account's user, or make sure that each has `sync_interval: always`"
            ),
            Self::Stream { stream, setting, found, needed } => {
                write!(f, "stream {stream} has `{setting}` = {found}, and needs {needed}")
            }
        }
    }
}

/// The subjects of the stream of a shard.
pub(crate) fn subjects(prefix: &str, shard: u16) -> Vec<String> {
    let mut subjects = vec![format!("{prefix}.chain.{shard}.*"), format!("{prefix}.sync.{shard}")];
    if shard == 0 {
        subjects.extend([format!("{prefix}.ledger"), format!("{prefix}.source.*")]);
    }
    subjects
}

/// What must be as it is here, whatever the other settings.
fn needed() -> Vec<(&'static str, Value)> {
    vec![
        ("storage", json!("file")),
        ("retention", json!("limits")),
        // Where nothing may be dropped, a full stream refuses instead.
        ("discard", json!("new")),
        ("max_age", json!(0)),
        ("max_msgs", json!(-1)),
        ("max_bytes", json!(-1)),
        ("max_msgs_per_subject", json!(-1)),
        ("max_msg_size", json!(-1)),
        ("deny_delete", json!(true)),
        ("deny_purge", json!(true)),
        ("allow_rollup_hdrs", json!(false)),
        ("allow_msg_ttl", json!(false)),
        ("allow_direct", json!(true)),
        ("allow_atomic", json!(true)),
        ("sealed", json!(false)),
    ]
}

/// Settings that must not be there at all.
const UNWANTED: [&str; 5] = ["mirror", "sources", "subject_transform", "persist_mode", "no_ack"];

/// Creates a stream, or finds it as it would be created.
pub(crate) async fn create_stream(
    net: &Net,
    options: &NatsOptions,
    stream: &str,
    subjects: &[String],
) -> Result<(), StoreError> {
    let mut config: serde_json::Map<String, Value> =
        needed().into_iter().map(|(setting, value)| (setting.to_owned(), value)).collect();
    config.insert("name".to_owned(), stream.into());
    config.insert("subjects".to_owned(), subjects.into());
    config.insert("num_replicas".to_owned(), options.replicas.into());
    let config = Value::Object(config);
    let created = net.patient_api(&format!("STREAM.CREATE.{stream}"), &config, options.patience).await?;
    created.map(|_| ()).map_err(|error| failed("create a stream", stream, error.description))
}

/// What is weak about a stream, by what the cluster says of it.
fn weak_stream(stream: &str, wanted: &[String], config: &Value) -> Vec<Weakness> {
    let mut weak = Vec::new();
    let replicas = config["num_replicas"].as_u64().unwrap_or(1);
    if replicas < 3 {
        weak.push(Weakness::Replicas { stream: stream.to_owned(), replicas });
    }
    let mut note = |setting, found: &Value, needed: String| {
        let stream = stream.to_owned();
        weak.push(Weakness::Stream { stream, setting, found: found.to_string(), needed });
    };
    for (setting, needed) in needed() {
        // Servers leave out what is as by default.
        let found = config.get(setting).cloned().unwrap_or(json!(false));
        if found != needed {
            note(setting, &found, needed.to_string());
        }
    }
    for setting in UNWANTED {
        let found = config.get(setting).unwrap_or(&Value::Null);
        if !found.is_null() && found != &json!(false) && found != &json!("default") {
            note(setting, found, "nothing".to_owned());
        }
    }
    let same = config["subjects"].as_array().is_some_and(|found| {
        found.len() == wanted.len() && wanted.iter().all(|subject| found.iter().any(|found| found == subject))
    });
    if !same {
        note("subjects", &config["subjects"], json!(wanted).to_string());
    }
    weak
}

/// What is weak about the streams and servers of a ledger; and how many servers keep each stream, at the least.
pub(crate) async fn weaknesses(
    net: &Net,
    options: &NatsOptions,
    streams: &[(String, Vec<String>)],
) -> Result<(Vec<Weakness>, u64), StoreError> {
    let mut weak = Vec::new();
    let mut replicas_min = u64::MAX;
    let mut servers = BTreeMap::new();
    for (stream, subjects) in streams {
        let info = net.patient_api(&format!("STREAM.INFO.{stream}"), &json!({}), options.patience).await?;
        let info = info.map_err(|error| failed("look at a stream", stream, error.description))?;
        weak.extend(weak_stream(stream, subjects, &info["config"]));
        let cluster = &info["cluster"];
        replicas_min = replicas_min.min(info["config"]["num_replicas"].as_u64().unwrap_or(1));
        let replicas = cluster["replicas"].as_array().into_iter().flatten().map(|replica| &replica["name"]);
        for name in replicas.chain([&cluster["leader"]]).filter_map(Value::as_str) {
            servers.insert(name.to_owned(), false);
        }
    }
    weak.extend(unsynced(options, servers).await?);
    Ok((weak, replicas_min))
}

/// Asks every server that keeps one of the streams whether it syncs each write.
async fn unsynced(options: &NatsOptions, mut seen: BTreeMap<String, bool>) -> Result<Vec<Weakness>, StoreError> {
    let Some(system) = connect_system(options).await? else {
        return Ok(vec![Weakness::SyncUnseen { why: "no user of the system account was given".to_owned() }]);
    };
    let ask =
        |error: &dyn fmt::Display| failed("ask the servers for their settings", "$SYS.REQ.SERVER.PING.JSZ", error);
    let inbox = system.new_inbox();
    let mut answers = system.subscribe(inbox.clone()).await.map_err(|error| ask(&error))?;
    system.publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, "{}".into()).await.map_err(|error| ask(&error))?;
    let mut weak = Vec::new();
    let mut wait = ANSWER_WITHIN;
    while let Ok(Some(answer)) = tokio::time::timeout(wait, answers.next()).await {
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| ask(&error))?;
        let Some(server) = answer["server"]["name"].as_str() else { continue };
        let always = answer["data"]["config"]["sync_always"] == json!(true);
        let holds_some = seen.insert(server.to_owned(), true).is_some();
        if !always && (holds_some || seen.len() == 1) {
            weak.push(Weakness::NotSynced { server: server.to_owned() });
        }
        if seen.values().all(|seen| *seen) {
            wait = Duration::from_millis(100);
        }
    }
    for (server, _) in seen.iter().filter(|(_, seen)| !**seen) {
        weak.push(Weakness::SyncUnseen { why: format!("server {server} did not answer") });
    }
    if seen.is_empty() {
        weak.push(Weakness::SyncUnseen { why: "no server answered".to_owned() });
    }
    Ok(weak)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        let mut config: serde_json::Map<String, Value> =
            needed().into_iter().map(|(setting, value)| (setting.to_owned(), value)).collect();
        config.insert("num_replicas".to_owned(), json!(3));
        config.insert("subjects".to_owned(), subjects("b", 0).into());
        Value::Object(config)
    }

    #[test]
    fn every_setting_that_is_otherwise_is_named() {
        assert_eq!(weak_stream("s", &subjects("b", 0), &config()), Vec::new());
        let wrong = [
            ("num_replicas", json!(1)),
            ("storage", json!("memory")),
            ("max_age", json!(60_000_000_000_u64)),
            ("max_msgs_per_subject", json!(1)),
            ("deny_delete", json!(false)),
            ("deny_purge", Value::Null),
            ("allow_msg_ttl", json!(true)),
            ("discard", json!("old")),
            ("persist_mode", json!("async")),
            ("mirror", json!({ "name": "other" })),
            ("subjects", json!(["b.chain.0.*"])),
        ];
        for (setting, value) in wrong {
            let mut config = config();
            config[setting] = value;
            let weak = weak_stream("s", &subjects("b", 0), &config);
            assert_eq!(weak.len(), 1, "{setting}: {weak:?}");
            assert!(weak[0].to_string().contains(setting) || setting == "num_replicas", "{}", weak[0]);
        }
    }
}
