//! Listening sockets that come from another process. What is said of a socket is asked of the kernel instead.

use std::io;
use std::os::fd::OwnedFd;

use socket2::{SockAddr, SockRef};

use super::listen::sockets::{Keeper, Listening};
use crate::config::Address;

/// Why a descriptor is none of a listening socket.
#[derive(Debug, thiserror::Error)]
pub enum NotListening {
    /// The kernel says so.
    #[error("it is no TCP or Unix socket that listens")]
    Other,
    /// The kernel does not say.
    #[error("ask the kernel about a socket")]
    Unknown(#[source] io::Error),
}

/// Adds a descriptor to the sockets of the listener `name`, if it is a listening socket.
pub fn gather(all: &mut Vec<Listening>, name: &str, keeper: Keeper, socket: OwnedFd) -> Result<(), NotListening> {
    let asked = SockRef::from(&socket);
    if !asked.is_listener().map_err(NotListening::Unknown)? {
        return Err(NotListening::Other);
    }
    let address = address(&asked.local_addr().map_err(NotListening::Unknown)?).ok_or(NotListening::Other)?;
    match all.iter_mut().find(|other| other.name == name && other.address == address) {
        Some(listening) => listening.sockets.push(socket),
        None => all.push(Listening { name: name.to_owned(), address, sockets: vec![socket], keeper }),
    }
    Ok(())
}

fn address(address: &SockAddr) -> Option<Address> {
    match address.as_socket() {
        Some(address) => Some(Address::Ip(address)),
        None => Some(Address::Unix(address.as_pathname()?.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn only_a_socket_that_listens_is_taken() {
        let mut all = Vec::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let connected = TcpStream::connect(at).unwrap();
        let (pipe, _other) = io::pipe().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for wrong in [OwnedFd::from(udp), OwnedFd::from(pipe), OwnedFd::from(connected)] {
            assert!(gather(&mut all, "http", Keeper::Proxy, wrong).is_err());
        }
        assert!(all.is_empty());
        gather(&mut all, "http", Keeper::Proxy, listener.try_clone().unwrap().into()).unwrap();
        gather(&mut all, "http", Keeper::Proxy, listener.into()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        gather(&mut all, "http", Keeper::Manager, unix.into()).unwrap();
        assert_eq!((all.len(), all[0].sockets.len(), &all[0].address), (2, 2, &Address::Ip(at)));
        assert_eq!(all[1].address, Address::Unix(path));
    }
}
