//! A private PostgreSQL server for a test: its own directory and socket, everything that makes it durable left on,
//! gone when the test ends.

#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

use bursar_postgres::PostgresConfig;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The oldest version whose programs are looked for.
const OLDEST: u32 = 14;

/// Where `initdb` and `postgres` are: on the path, or where Debian puts them.
fn programs() -> PathBuf {
    let debian = (OLDEST..40).rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_all = |dir: &PathBuf| {
        ["postgres", "initdb", "psql", "pg_basebackup"].iter().all(|program| dir.join(program).is_file())
    };
    let found = std::env::split_paths(&path).chain(debian).find(has_all);
    found.unwrap_or_else(|| {
        panic!("these tests run a PostgreSQL server of their own: install it, as with `apt-get install postgresql`")
    })
}

/// The user that the server runs as: it refuses to be root.
fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse::<u32>().unwrap());
        Some((ids.next()?, ids.next()?))
    };
    let found = of("postgres").or_else(|| of("nobody"));
    assert!(found.is_some(), "the server needs a user to run as: `postgres` or `nobody`");
    found
}

fn command(program: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid).current_dir("/");
    }
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// A running server.
pub struct PostgresServer {
    directory: TempDir,
    programs: PathBuf,
    settings: Vec<String>,
    child: Option<Child>,
    schemas: AtomicU32,
}

impl PostgresServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further settings, as `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let mut server = Self::without_data(settings);
        let made = command(&server.programs.join("initdb"))
            .args(["--auth=trust", "--username=bursar", "--encoding=UTF8", "--no-sync", "--pgdata"])
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.run();
        server
    }

    /// A server that is not there yet: it has a directory and settings.
    pub fn without_data(settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("bursar-pg").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((uid, gid)) = user() {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { directory, programs: programs(), settings, child: None, schemas: AtomicU32::new(0) }
    }

    /// Makes it a standby of another server, from a copy of that one's data, under this name, and starts it.
    pub fn follow_anew(&mut self, primary: &Self, name: &str) {
        if self.data().exists() {
            fs::remove_dir_all(self.data()).unwrap();
        }
        let copied = command(&self.programs.join("pg_basebackup"))
            .args(["--username=bursar", "--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--pgdata"])
            .arg(self.data())
            .arg("--host")
            .arg(primary.directory.path())
            .output()
            .unwrap();
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        self.follow(primary, name);
    }

    /// Starts it as a standby of another server whose history it has the beginning of.
    pub fn follow(&mut self, primary: &Self, name: &str) {
        let host = primary.directory.path().display();
        self.settings.retain(|setting| !setting.starts_with("primary_conninfo="));
        self.settings.push(format!("primary_conninfo=host={host} user=bursar application_name={name}"));
        self.run();
    }

    /// From its next start on, this setting is as by default.
    pub fn without(&mut self, name: &str) {
        self.settings.retain(|setting| setting.split('=').next() != Some(name));
    }

    /// Ends it in order; a standby keeps all it has received.
    pub fn stop(&mut self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::INT).unwrap();
        self.child.take().unwrap().wait().unwrap();
    }

    /// Waits until a statement prints this.
    pub fn wait_for(&self, statement: &str, printed: &str) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.psql(statement) != printed {
            assert!(Instant::now() < deadline, "{statement} does not become {printed}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts the server again, after its end.
    pub fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        let deadline = Instant::now() + Duration::from_mins(3);
        // The old server's children may still hold its memory.
        loop {
            let mut postgres = command(&self.programs.join("postgres"));
            postgres.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
            let own = ["listen_addresses=", "max_connections=50", "shared_buffers=64MB", "logging_collector=off"];
            for setting in own.iter().copied().chain(self.settings.iter().map(String::as_str)) {
                postgres.arg("-c").arg(setting);
            }
            let mut child = postgres.stdout(Stdio::null()).stderr(log.try_clone().unwrap()).spawn().unwrap();
            loop {
                if self.is_ready() {
                    self.child = Some(child);
                    return;
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                assert!(Instant::now() < deadline, "the server does not start:\n{}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "the server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_ready(&self) -> bool {
        let asked = self.asking("SELECT 1").output();
        asked.unwrap().status.success()
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().unwrap())
    }

    /// Kills the server and all its children in no order, as a loss of the machine's processes does.
    pub fn kill(&mut self) {
        use rustix::process::{Signal, kill_process};
        for pid in self.children() {
            kill_process(pid, Signal::KILL).ok();
        }
        kill_process(self.pid(), Signal::KILL).unwrap();
        self.child.take().unwrap().wait().unwrap();
    }

    /// Stops all of the server's processes where they are, or lets them go on.
    pub fn pause(&self, paused: bool) {
        use rustix::process::{Signal, kill_process};
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        for pid in self.children().into_iter().chain([self.pid()]) {
            kill_process(pid, signal).ok();
        }
    }

    fn children(&self) -> Vec<rustix::process::Pid> {
        let pid = self.pid().as_raw_nonzero();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)).collect()
    }

    /// How much of the processors the server has used so far, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let of_children: u64 =
            self.children().into_iter().map(|pid| cpu_ticks(&pid.as_raw_nonzero().to_string(), false)).sum();
        of_children + cpu_ticks(&self.pid().as_raw_nonzero().to_string(), true)
    }

    /// How to reach a schema of its own.
    pub fn fresh_schema(&self) -> PostgresConfig {
        let number = self.schemas.fetch_add(1, Ordering::Relaxed);
        PostgresConfig { schema: format!("ledger_{number}"), ..self.config() }
    }

    pub fn config(&self) -> PostgresConfig {
        Self::config_of(&[self])
    }

    /// How to reach whichever of these servers takes writes.
    pub fn config_of(servers: &[&Self]) -> PostgresConfig {
        let host = |server: &&Self| server.directory.path().display().to_string().replace('/', "%2F");
        let hosts: Vec<String> = servers.iter().map(host).collect();
        let url = format!("postgresql://bursar@{}/postgres", hosts.join(","));
        // On a machine that is brought to a stand by others, a server may take its time.
        PostgresConfig { connect_timeout_ms: 60_000, ..PostgresConfig::new(&url) }
    }

    fn asking(&self, statement: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-U", "bursar", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statement, "-h"]);
        psql.arg(self.directory.path());
        psql
    }

    /// Somebody else's session, in which statements are made one after the other.
    pub fn session(&self) -> Session {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-U", "bursar", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-h"]);
        psql.arg(self.directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        Session(psql.spawn().unwrap())
    }

    /// A schema as `pg_dump` writes it.
    pub fn dump(&self, schema: &str) -> String {
        let out = Command::new(self.programs.join("pg_dump"))
            .args(["-U", "bursar", "-d", "postgres", "-n", schema, "-h"])
            .arg(self.directory.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "pg_dump: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// What `psql` prints for a statement: rows of unaligned columns.
    pub fn psql(&self, statement: &str) -> String {
        let out = self.asking(statement).output().unwrap();
        assert!(out.status.success(), "{statement}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }
}

/// A session that goes on until it is dropped.
pub struct Session(Child);

impl Session {
    /// Makes a statement, and waits until it is made.
    pub fn run(&mut self, statement: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{statement};\n\\echo made").unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"made\n") {
            let mut byte = [0];
            self.0.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What a process has used of the processors; with its children that have ended, if asked.
pub fn cpu_ticks(pid: &str, with_ended: bool) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: the state, then numbers; the 12th to the 15th are times.
    let numbers = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default().split_whitespace();
    numbers.skip(11).take(if with_ended { 4 } else { 2 }).map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum()
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // At once, without a checkpoint; it takes its children with it.
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::QUIT).ok();
            child.wait().ok();
        }
    }
}
