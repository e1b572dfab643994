//! Listening sockets as a set that one process hands to the next.
//!
//! A socket lives as long as any process holds it, and so does its queue of connections that wait: whoever takes over adopts
//! the very sockets, and nothing is reset. What is said of a socket that came from elsewhere is asked of the kernel instead.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::SockRef;

/// Listening sockets of a proxy that runs, or ran.
#[derive(Debug, Default)]
pub struct Sockets(Vec<ListeningSocket>);

/// One of them.
#[derive(Debug)]
pub struct ListeningSocket {
    listener: String,
    address: SocketAddr,
    socket: TcpListener,
}

/// Why a descriptor is none of a listening socket.
#[derive(Debug, thiserror::Error)]
pub enum NotListening {
    /// The kernel says so.
    #[error("it is not a TCP socket that listens")]
    Other,
    /// The kernel does not say.
    #[error("ask the kernel about a socket")]
    Unknown(#[source] io::Error),
}

impl ListeningSocket {
    /// Takes a descriptor for a listening socket of the listener `listener`, if it is one.
    pub fn new(listener: String, socket: OwnedFd) -> Result<Self, NotListening> {
        let asked = SockRef::from(&socket);
        let tcp = asked.protocol().map_err(NotListening::Unknown)? == Some(socket2::Protocol::TCP);
        if !tcp || !asked.is_listener().map_err(NotListening::Unknown)? {
            return Err(NotListening::Other);
        }
        asked.set_nonblocking(true).map_err(NotListening::Unknown)?;
        let socket = TcpListener::from(socket);
        let address = socket.local_addr().map_err(NotListening::Unknown)?;
        Ok(Self { listener, address, socket })
    }

    /// What its listener is called: `http`, `https`, `admin`.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket itself.
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into()
    }
}

impl Sockets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds one.
    pub fn push(&mut self, socket: ListeningSocket) {
        self.0.push(socket);
    }

    /// Adds what a listener of this process listens with; both go on holding it.
    pub(crate) fn share(&mut self, listener: &str, sockets: &[impl AsRef<TcpListener>]) -> io::Result<()> {
        for socket in sockets {
            let socket = socket.as_ref().try_clone()?;
            let address = socket.local_addr()?;
            self.0.push(ListeningSocket { listener: listener.to_owned(), address, socket });
        }
        Ok(())
    }

    /// Takes out all that listen at `address`. Port 0, which asks for any, takes the port that this listener had there.
    pub(crate) fn take(&mut self, listener: &str, address: SocketAddr) -> Vec<TcpListener> {
        let had = |socket: &&ListeningSocket| socket.listener == listener && socket.address.ip() == address.ip();
        let address = match (address.port(), self.0.iter().find(had)) {
            (0, Some(socket)) => socket.address,
            _ => address,
        };
        self.0.extract_if(.., |socket| socket.address == address).map(|socket| socket.socket).collect()
    }
}

impl IntoIterator for Sockets {
    type Item = ListeningSocket;
    type IntoIter = std::vec::IntoIter<ListeningSocket>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> TcpListener {
        TcpListener::bind(address).unwrap()
    }

    #[test]
    fn only_a_tcp_socket_that_listens_is_taken() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (pipe, _other) = io::pipe().unwrap();
        let listener = listening("127.0.0.1:0");
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for wrong in [OwnedFd::from(udp), OwnedFd::from(pipe), OwnedFd::from(connected)] {
            assert!(ListeningSocket::new("http".into(), wrong).is_err());
        }
        let address = listener.local_addr().unwrap();
        assert_eq!(ListeningSocket::new("http".into(), listener.into()).unwrap().address(), address);
    }

    #[test]
    fn a_listener_takes_what_listens_at_its_address_and_leaves_the_rest() {
        let (one, other) = (listening("127.0.0.1:0"), listening("127.0.0.1:0"));
        let address = one.local_addr().unwrap();
        let mut sockets = Sockets::default();
        sockets.push(ListeningSocket::new("http".into(), one.try_clone().unwrap().into()).unwrap());
        sockets.push(ListeningSocket::new("http".into(), one.into()).unwrap());
        sockets.push(ListeningSocket::new("https".into(), other.into()).unwrap());
        assert!(sockets.take("http", "127.0.0.1:1".parse().unwrap()).is_empty());
        assert!(sockets.take("admin", "127.0.0.1:0".parse().unwrap()).is_empty());
        assert_eq!(sockets.take("other", address).len(), 2, "a socket is known by its address");
        assert_eq!(sockets.take("https", "127.0.0.1:0".parse().unwrap()).len(), 1, "any port is the one it had");
        assert!(sockets.is_empty());
    }
}
