//! A wire that can be cut, for the tests of the client and of the command line.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A wire to the service. Each connection carries so many bytes of answers and is then cut; the next ones are whole.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Wire {
    /// `cuts`: after how many bytes of answers the first connections are cut, in turn.
    pub(crate) fn to(service: SocketAddr, cuts: &'static [usize]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let index = count.fetch_add(1, Ordering::SeqCst);
                let (client, server) = (client.unwrap(), TcpStream::connect(service).unwrap());
                carry(client.try_clone().unwrap(), server.try_clone().unwrap(), usize::MAX);
                carry(server, client, cuts.get(index).copied().unwrap_or(usize::MAX));
            }
        });
        Self { address, connections }
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut bytes: usize) {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        loop {
            let count = from.read(&mut piece).unwrap_or(0).min(bytes);
            bytes -= count;
            if count == 0 || to.write_all(&piece[..count]).is_err() || bytes == 0 {
                // Either end may have gone already.
                drop((to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both)));
                return;
            }
        }
    });
}
