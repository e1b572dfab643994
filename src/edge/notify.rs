//! Tells the service manager how the edge is, as sd_notify(3) has it: lines in a datagram to `$NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// The service manager, if there is one.
#[derive(Clone, Debug)]
pub(super) struct Notify(Option<SocketAddr>);

impl Notify {
    /// The one at that address: a path, or a name behind `@`.
    pub(super) fn new(address: Option<&OsStr>) -> Self {
        let parsed = |address: &OsStr| match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(address),
        };
        let told = |error: &io::Error| tracing::warn!(%error, "NOTIFY_SOCKET is no address; nobody is notified");
        Self(address.and_then(|address| parsed(address).inspect_err(told).ok()))
    }

    /// It serves, after its start or a reload.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// It takes its files again, or hands over.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// It ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Which process is the service from now on. Only the one that was it is believed.
    pub(super) fn main_process(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}\nREADY=1"));
    }

    fn tell(&self, lines: &str) {
        let Some(address) = &self.0 else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            // A manager that does not read must not stop us.
            socket.set_nonblocking(true)?;
            socket.send_to_addr(lines.as_bytes(), address)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "the service manager could not be notified");
        }
    }
}
