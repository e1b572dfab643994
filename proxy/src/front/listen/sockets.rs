//! The listening sockets of a proxy: a fixed set, whatever the number of workers, and none is closed while it runs.
//!
//! Closing one would reset what waits in its queue; so workers come and go on the same sockets, and another process can take
//! them over. [`crate::life`] owns the set.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::Address;

/// Sockets of one TCP listener. Many for each worker, so that the kernel's spread over them is an even one over workers.
pub(crate) const SOCKETS_PER_LISTENER: usize = 64;
/// Connections that wait to be accepted, per socket.
pub(super) const BACKLOG: i32 = 4096;
/// Of a Unix socket's file: its user and group may connect.
const UNIX_MODE: u32 = 0o660;

/// The listening sockets of one listener, as they go from one process to another.
#[derive(Debug)]
pub struct Listening {
    /// The listener's name: `http`, `https`, `admin`.
    pub name: String,
    /// Where they listen.
    pub address: Address,
    /// All of them.
    pub sockets: Vec<OwnedFd>,
    /// Whose they are.
    pub keeper: Keeper,
}

/// Who made a listener's sockets, and so removes the file of a Unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeper {
    /// A proxy: the last one.
    #[default]
    Proxy,
    /// A service manager, which holds them whether or not a proxy runs.
    Manager,
}

/// A listener's sockets, bound and listening.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) address: Address,
    pub(crate) all: Vec<Arc<Socket>>,
    keeper: Keeper,
    file: Mutex<Option<File>>,
}

impl Sockets {
    /// Takes those of `inherited` that are where they are asked for, or binds new ones; `count` is that of a TCP listener.
    pub(crate) fn open(
        name: &str,
        address: &Address,
        count: usize,
        inherited: &mut Vec<Listening>,
    ) -> io::Result<Self> {
        let fits = |other: &Listening| other.name == name && address.is_met_by(&other.address);
        match inherited.iter().position(fits) {
            Some(at) => Self::adopt(inherited.swap_remove(at)),
            None => match address {
                Address::Ip(address) => Self::bind_ip(*address, count),
                Address::Unix(path) => Self::bind_unix(path),
            },
        }
    }

    fn adopt(listening: Listening) -> io::Result<Self> {
        let Listening { address, sockets, keeper, .. } = listening;
        let all: Vec<_> = sockets.into_iter().map(|socket| Arc::new(Socket::from(socket))).collect();
        for socket in &all {
            socket.set_nonblocking(true)?;
        }
        // The file is the other process's, until that has left it.
        Ok(Self { address, all, keeper, file: Mutex::new(None) })
    }

    /// Takes over a Unix socket's file, unless that is kept by somebody else.
    pub(crate) fn own_file(&self) {
        if self.keeper == Keeper::Manager {
            return;
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = self.address.path().and_then(|path| File::at(path).ok());
        }
    }

    fn bind_ip(address: SocketAddr, count: usize) -> io::Result<Self> {
        if address.port() != 0 {
            // Shared ports of one user do not exclude each other: another proxy there would get half of the visitors.
            tcp(address)?.bind(&address.into())?;
        }
        let (mut all, mut bound) = (Vec::with_capacity(count), address);
        for _ in 0..count.max(1) {
            let socket = tcp(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&bound.into())?;
            socket.listen(BACKLOG)?;
            if all.is_empty() {
                bound = socket.local_addr()?.as_socket().unwrap_or(bound);
            }
            all.push(Arc::new(socket));
        }
        Ok(Self { address: Address::Ip(bound), all, keeper: Keeper::Proxy, file: Mutex::new(None) })
    }

    fn bind_unix(path: &Path) -> io::Result<Self> {
        make_way(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = File::at(path)?;
        // Nobody can connect before it listens, so nobody does with other rights than these.
        fs::set_permissions(path, fs::Permissions::from_mode(UNIX_MODE))?;
        socket.listen(BACKLOG)?;
        let (address, all) = (Address::Unix(path.to_owned()), vec![Arc::new(socket)]);
        Ok(Self { address, all, keeper: Keeper::Proxy, file: Mutex::new(Some(file)) })
    }

    /// The sockets of one worker. Each socket has one worker, or several where there are more workers than sockets.
    pub(crate) fn of_worker(&self, worker: usize, workers: usize) -> impl Iterator<Item = &Arc<Socket>> {
        self.all.iter().skip(worker % self.all.len().max(1)).step_by(workers.max(1))
    }

    /// The same sockets for another process.
    pub(crate) fn duplicate(&self, name: &str) -> io::Result<Listening> {
        let sockets = self.all.iter().map(|socket| socket.try_clone().map(OwnedFd::from)).collect::<io::Result<_>>()?;
        Ok(Listening { name: name.to_owned(), address: self.address.clone(), sockets, keeper: self.keeper })
    }

    /// Leaves a Unix socket's file where it is: somebody else listens there now.
    pub(crate) fn leave_file(&self) {
        if let Some(mut file) = self.file.lock().unwrap_or_else(PoisonError::into_inner).take() {
            file.path = PathBuf::new();
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Removes a socket's file that nobody listens on any more; anything else is in the way.
fn make_way(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(data) => data.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // Connected, or its queue is full.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// A Unix socket's file: removed with its drop, if it still is the one that was made.
#[derive(Debug)]
struct File {
    path: PathBuf,
    id: (u64, u64),
}

impl File {
    fn at(path: &Path) -> io::Result<Self> {
        let data = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), id: (data.dev(), data.ino()) })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|data| (data.dev(), data.ino()) == self.id) {
            // Whoever binds there next makes way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn open(address: &Address) -> io::Result<Sockets> {
        Sockets::open("http", address, 4, &mut Vec::new())
    }

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        for sockets in [1usize, 4] {
            let at = if sockets == 1 { None } else { Some(address("127.0.0.1:0")) };
            let folder = tempfile::tempdir().expect("a folder");
            let at = at.unwrap_or_else(|| Address::Unix(folder.path().join("s")));
            let set = open(&at).expect("free");
            for workers in 1..9 {
                let mut served = BTreeSet::new();
                for worker in 0..workers {
                    let own: Vec<_> = set.of_worker(worker, workers).map(Arc::as_ptr).collect();
                    assert!(!own.is_empty(), "worker {worker} of {workers}");
                    assert!(own.len() <= sockets.div_ceil(workers), "worker {worker} of {workers}: {own:?}");
                    served.extend(own);
                }
                assert_eq!(served.len(), sockets, "{workers} workers");
            }
        }
    }

    #[test]
    fn ipv6_for_all_takes_no_ipv4() {
        let Ok(six) = open(&address("[::]:0")) else { return println!("there is no IPv6 here") };
        let port = six.address.ip().expect("an address").port();
        assert!(TcpStream::connect(("::1", port)).is_ok());
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        let four = open(&Address::Ip(([0, 0, 0, 0], port).into())).expect("the port of the other family is free");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        drop(four);
    }

    #[test]
    fn a_unix_sockets_file_is_for_user_and_group_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let set = open(&Address::Unix(path.clone())).expect("free");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, UNIX_MODE);
        UnixStream::connect(&path).expect("it listens");
        let again = open(&Address::Unix(path.clone())).expect_err("in use");
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("it still listens");
        drop(set);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_makes_way_and_any_other_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("free"));
        assert!(path.exists(), "left behind");
        drop(open(&Address::Unix(path.clone())).expect("nobody listens"));
        fs::write(&path, "kept").expect("written");
        let error = open(&Address::Unix(path.clone())).expect_err("a file");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("still there"), "kept");
    }

    #[test]
    fn a_set_that_was_handed_on_keeps_what_waits_in_its_queues() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        for at in [address("127.0.0.1:0"), Address::Unix(path.clone())] {
            let old = open(&at).expect("free");
            let bound = old.address.clone();
            let mut handed = vec![old.duplicate("http").expect("descriptors")];
            let waits = || match &bound {
                Address::Ip(address) => drop(TcpStream::connect(address).expect("it listens")),
                Address::Unix(path) => drop(UnixStream::connect(path).expect("it listens")),
            };
            waits();
            old.leave_file();
            drop(old);
            let new = Sockets::open("http", &at, 4, &mut handed).expect("adopted");
            new.own_file();
            assert!(handed.is_empty() && new.address == bound);
            assert!(new.all.iter().any(|socket| socket.accept().is_ok()), "it waits still");
            waits();
        }
        assert!(!path.exists(), "the last owner removes it");
    }

    #[test]
    fn a_file_that_the_service_manager_keeps_stays_when_the_last_proxy_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let manager = std::os::unix::net::UnixListener::bind(&path).expect("free");
        let sockets = vec![OwnedFd::from(manager.try_clone().expect("a descriptor"))];
        let at = Address::Unix(path.clone());
        let passed = Listening { name: "http".to_owned(), address: at.clone(), sockets, keeper: Keeper::Manager };
        let old = Sockets::open("http", &at, 4, &mut vec![passed]).expect("adopted");
        old.own_file();
        let mut handed = vec![old.duplicate("http").expect("descriptors")];
        drop(old);
        let new = Sockets::open("http", &at, 4, &mut handed).expect("adopted");
        new.own_file();
        drop(new);
        UnixStream::connect(&path).expect("the manager still listens there");
    }

    #[test]
    fn sockets_from_elsewhere_are_not_taken() {
        let old = open(&address("127.0.0.1:0")).expect("free");
        let mut handed = vec![old.duplicate("https").expect("descriptors")];
        let new = Sockets::open("http", &address("127.0.0.1:0"), 4, &mut handed).expect("bound");
        assert_eq!(handed.len(), 1);
        assert_ne!(new.address, old.address);
    }
}
