//! How a cluster is reached, and what is asked of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How the servers are to be spoken to, and how a ledger lies in them.
#[derive(Clone)]
pub struct NatsOptions {
    /// Addresses of servers, as `host:port`, `nats://host:port` or `tls://host:port`. One is enough: a cluster names
    /// its others. More are better when one does not run.
    pub servers: Vec<String>,
    /// User and password of the account that holds the ledger, if it needs them.
    pub user: Option<(String, String)>,
    /// A credentials file of that account, instead of user and password.
    pub credentials: Option<PathBuf>,
    /// User and password of the cluster's *system* account. Only by it can be seen whether every server syncs each
    /// write (`sync_interval: always`).
    pub system_user: Option<(String, String)>,
    /// Certificates that servers are trusted by, beside the machine's own.
    pub root_certificates: Option<PathBuf>,
    /// What the names of streams and subjects begin with: letters, digits, `-` and `_`. Two ledgers in one account need
    /// two of them.
    pub prefix: String,
    /// How many streams the customers are spread over. Chosen when a ledger is created, and kept in it.
    pub shard_count: u16,
    /// How many servers keep each stream: 3 or 5. Chosen when a ledger is created.
    pub replicas: u8,
    /// Goes on with settings that can lose money; see [`crate::Weakness`].
    pub allow_weak: bool,
    /// How long a call tries before it gives up: longer than it takes to choose a new leader, or to restart a server.
    pub patience: Duration,
    /// How many heads are kept in memory. Where more are needed, all but those of the batch are dropped.
    pub cache_customers_max: usize,
    /// How many messages travel in one atomic batch, 1,000 at the most; 1 sends each by itself.
    pub batch_messages_max: usize,
    /// How many bytes of records travel in one message; a customer's records beyond that go into a further one.
    pub message_bytes_max: usize,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            servers: vec!["127.0.0.1:4222".to_owned()],
            user: None,
            credentials: None,
            system_user: None,
            root_certificates: None,
            prefix: "bursar".to_owned(),
            shard_count: 4,
            replicas: 3,
            allow_weak: false,
            patience: Duration::from_secs(30),
            cache_customers_max: 100_000,
            batch_messages_max: 1000,
            message_bytes_max: 256 * 1024,
        }
    }
}

/// Without passwords.
impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |user: &Option<(String, String)>| user.as_ref().map(|(name, _)| name.clone());
        f.debug_struct("NatsOptions")
            .field("servers", &self.servers)
            .field("user", &name(&self.user))
            .field("credentials", &self.credentials)
            .field("system_user", &name(&self.system_user))
            .field("root_certificates", &self.root_certificates)
            .field("prefix", &self.prefix)
            .field("shard_count", &self.shard_count)
            .field("replicas", &self.replicas)
            .field("allow_weak", &self.allow_weak)
            .field("patience", &self.patience)
            .field("cache_customers_max", &self.cache_customers_max)
            .field("batch_messages_max", &self.batch_messages_max)
            .field("message_bytes_max", &self.message_bytes_max)
            .finish()
    }
}
