//! `bursar serve` in a process of its own, on a port of its own.

#![allow(dead_code, reason = "each test file takes what it needs")]

use crate::client::Client;
use crate::common::Sandbox;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

/// The service in a process of its own.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    log: Option<JoinHandle<String>>,
}

impl Service {
    pub(crate) fn start(sandbox: &Sandbox, flags: &[&str]) -> Self {
        let arguments = [&["serve", "--listen", "127.0.0.1:0"][..], flags].concat();
        let mut command = sandbox.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).unwrap();
            text
        });
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let Some((_, address)) = url.trim().split_once("://") else {
            panic!("{url}: {}", log.join().unwrap());
        };
        Self { child, address: address.parse().unwrap(), log: Some(log) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end: its exit code and its log.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.log.take().unwrap().join().unwrap())
    }

    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let (exit, log) = self.end();
        assert_eq!(exit, Some(0), "{log}");
        log
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.log.is_some() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}
