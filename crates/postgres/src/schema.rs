//! The schema: migrations that ship with the program, one after the other, and which of them a database has.
//!
//! Each migration runs in a transaction of its own together with the note that it was applied. A database with a
//! newer schema than this program knows is refused.

use crate::error::OpenError;
use crate::feed;
use tokio_postgres::Client;

/// All migrations, oldest first; the first makes version 1.
const MIGRATIONS: [&str; 2] =
    [include_str!("../migrations/0001_tables.sql"), include_str!("../migrations/0002_places.sql")];

/// Puts the records that are there in order, and has all later ones be in order.
const FEED: &str = include_str!("../migrations/feed.sql");

/// The version of the schema that this program reads and writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// An id as it is shown everywhere: a number below 2^64, or a UUID.
const ID_TEXT: &str = "(CASE WHEN {} < uuid '00000000-0000-0001-0000-000000000000' THEN \
    (('x' || substr({}::text, 20, 4) || right({}::text, 12))::bit(64)::bigint::numeric \
    + CASE WHEN substr({}::text, 20, 1) >= '8' THEN 18446744073709551616 ELSE 0 END)::text \
    ELSE {}::text END)";

/// A migration's text, with `{text:column}` written out.
fn written_out(migration: &str) -> String {
    let mut out = String::with_capacity(2 * migration.len());
    let mut rest = migration;
    while let Some((before, after)) = rest.split_once("{text:") {
        let (column, after) = after.split_once('}').unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(&ID_TEXT.replace("{}", column));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The version that the database has; 0 where there is nothing yet.
pub(crate) async fn version(client: &Client, schema: &str) -> Result<u32, tokio_postgres::Error> {
    let there = "SELECT count(*) FROM information_schema.tables WHERE table_schema = $1 AND table_name = 'migrations'";
    let count: i64 = client.query_one(there, &[&schema]).await?.get(0);
    if count == 0 {
        return Ok(0);
    }
    let newest: Option<i32> = client.query_one("SELECT max(version) FROM migrations", &[]).await?.get(0);
    Ok(newest.and_then(|version| u32::try_from(version).ok()).unwrap_or(0))
}

/// Brings a database to this program's version, with a feed if it is wanted; gives the version that it had. The schema's
/// name was checked.
pub(crate) async fn migrate(client: &mut Client, schema: &str, feed: bool) -> Result<u32, OpenError> {
    // A migration of many rows takes as long as it takes.
    client.batch_execute("SET statement_timeout = 0").await?;
    client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
    let before = version(client, schema).await?;
    check(before)?;
    if before == 0 {
        let migrations = "CREATE TABLE IF NOT EXISTS migrations (version integer PRIMARY KEY, applied_at timestamptz)";
        client.batch_execute(migrations).await?;
    }
    for (migration, number) in MIGRATIONS.iter().zip(1_i32..).skip(before as usize) {
        let applying = client.transaction().await?;
        // Whoever migrates at the same time waits here, and then hears that it was done.
        let note = "INSERT INTO migrations VALUES ($1, now()) ON CONFLICT DO NOTHING";
        if applying.execute(note, &[&number]).await? == 1 {
            applying.batch_execute(&written_out(migration)).await?;
            applying.commit().await?;
        }
    }
    if feed && !feed::is_there(client).await? {
        let applying = client.transaction().await?;
        // As above.
        if applying.execute("INSERT INTO feed VALUES (1, 0) ON CONFLICT DO NOTHING", &[]).await? == 1 {
            applying.batch_execute(FEED).await?;
            applying.commit().await?;
        }
    }
    Ok(before)
}

/// An error if the version is newer than what this program knows.
pub(crate) fn check(found: u32) -> Result<(), OpenError> {
    if found > SCHEMA_VERSION { Err(OpenError::NewerSchema { found, known: SCHEMA_VERSION }) } else { Ok(()) }
}
