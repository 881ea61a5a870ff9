//! Settings of ledgers in other stores.

#![allow(dead_code, reason = "each test file takes what it needs")]

use crate::common::Sandbox;
use crate::nats::Cluster;
use crate::postgres::PostgresServer;

/// `[store]` for a schema of its own.
pub(crate) fn in_postgres(server: &PostgresServer) -> String {
    format!("[store]\nchains = 'postgres'\ntransactions = 'postgres'\n{}", section(server))
}

pub(crate) fn section(server: &PostgresServer) -> String {
    let config = server.fresh_schema();
    format!("[store.postgres]\nurl = '{}'\nschema = '{}'\n", config.url, config.schema)
}

/// `[store]` for streams and a schema of its own. The passwords lie beside it.
pub(crate) fn in_both(sandbox: &Sandbox, cluster: &Cluster, server: &PostgresServer) -> String {
    sandbox.write("books", "books\n");
    sandbox.write("sys", "sys\n");
    let options = cluster.options();
    let directory = sandbox.path("").display().to_string();
    format!(
        "[store]\nchains = 'nats'\ntransactions = 'postgres'\n{}[store.nats]\nservers = {:?}\nprefix = '{}'\n\
         user = 'books'\npassword_file = '{directory}/books'\nsystem_user = 'sys'\n\
         system_password_file = '{directory}/sys'\nstreams = 2\nreplicas = {}\nallow_weak_settings = {}\n",
        section(server),
        options.servers,
        options.prefix,
        options.replicas,
        options.allow_weak
    )
}

/// Settings in the directory of `--data`, where every command finds them.
pub(crate) fn sandbox_with(settings: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("bursar-data")).unwrap();
    sandbox.write("bursar-data/bursar.toml", settings);
    sandbox
}
