//! Connections that can be broken: each goes through a small relay that can be cut, and that can hold back everything
//! in one direction or in both, as a network does that loses packets. What was held back arrives when the link is
//! mended, if both ends still wait for it: as TCP does it. And a link can change a byte of what it is told to.
//!
//! Not here: loss, delay or disorder of single packets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One direction of a link.
#[derive(Debug, Default)]
struct Way {
    is_held: AtomicBool,
    /// Wherever these bytes come by, one is changed.
    flipped: Mutex<Vec<Vec<u8>>>,
}

impl Way {
    fn flip(&self, bytes: &mut [u8]) {
        for wanted in &*self.flipped.lock().unwrap() {
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                bytes[at + 3] ^= 1;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    forward: Way,
    back: Way,
    is_cut: AtomicBool,
    is_over: AtomicBool,
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl Shared {
    fn break_connections(&self) {
        for (one, other) in self.connections.lock().unwrap().drain(..) {
            // Broken already, if it fails.
            drop((one.shutdown(Shutdown::Both), other.shutdown(Shutdown::Both)));
        }
    }
}

/// A relay to one port.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

impl Link {
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        std::thread::spawn(move || accept(&listener, target, &of_thread));
        Self { port, shared }
    }

    /// Breaks all connections, and takes no new ones.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::SeqCst);
        if is_cut {
            self.shared.break_connections();
        }
    }

    /// Holds back what goes to the target.
    pub(crate) fn hold_forward(&self, is_held: bool) {
        self.shared.forward.is_held.store(is_held, Ordering::SeqCst);
    }

    /// Holds back what comes from the target.
    pub(crate) fn hold_back(&self, is_held: bool) {
        self.shared.back.is_held.store(is_held, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.hold_forward(false);
        self.hold_back(false);
        self.cut(false);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.shared.break_connections();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn accept(listener: &TcpListener, target: u16, shared: &Arc<Shared>) {
    while let Ok((near, _)) = listener.accept() {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        if shared.is_cut.load(Ordering::SeqCst) {
            continue;
        }
        // A target that does not run refuses the connection, and so does the link.
        let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
        let ends = || Some((near.try_clone().ok()?, far.try_clone().ok()?));
        let (Some(forward), Some(back), Some(kept)) = (ends(), ends(), ends()) else { continue };
        drop((near.set_nodelay(true), far.set_nodelay(true)));
        let mut connections = shared.connections.lock().unwrap();
        connections.retain(|(one, _)| one.peer_addr().is_ok());
        connections.push(kept);
        drop(connections);
        if shared.is_cut.load(Ordering::SeqCst) {
            shared.break_connections();
        }
        let shared_forward = shared.clone();
        std::thread::spawn(move || relay(forward.0, forward.1, &shared_forward, |shared| &shared.forward));
        let shared_back = shared.clone();
        std::thread::spawn(move || relay(back.1, back.0, &shared_back, |shared| &shared.back));
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, shared: &Shared, way: fn(&Shared) -> &Way) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        while way(shared).is_held.load(Ordering::SeqCst) && !shared.is_over.load(Ordering::SeqCst) {
            if shared.is_cut.load(Ordering::SeqCst) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        way(shared).flip(&mut buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}

/// The links between servers: one for each of two directions in which a connection may be made.
#[derive(Debug)]
pub(crate) struct Links(Vec<Vec<Link>>);

impl Links {
    /// `ports` are those on which the servers wait for each other.
    pub(crate) fn between(ports: &[u16]) -> Self {
        Self(ports.iter().map(|_| ports.iter().map(|port| Link::to(*port)).collect()).collect())
    }

    /// Where one server finds another.
    pub(crate) fn port(&self, from: usize, to: usize) -> u16 {
        self.0[from][to].port
    }

    /// Holds back what one server sends to another, over whichever connection.
    pub(crate) fn hold(&self, from: usize, to: usize) {
        self.0[from][to].hold_forward(true);
        self.0[to][from].hold_back(true);
    }

    /// Changes a byte in each of these wherever one server sends it to another.
    pub(crate) fn flip(&self, from: usize, to: usize, bytes: &[u8]) {
        self.0[from][to].shared.forward.flipped.lock().unwrap().push(bytes.to_vec());
        self.0[to][from].shared.back.flipped.lock().unwrap().push(bytes.to_vec());
    }

    /// Breaks all connections between two servers.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.0[one][other].cut(true);
        self.0[other][one].cut(true);
    }

    pub(crate) fn mend(&self) {
        self.0.iter().flatten().for_each(Link::mend);
    }
}
