//! Lines as messages of syslog (RFC 5424): over the local socket, or UDP (RFC 5426). Each line is one message; one that is
//! too long is cut. A message that the daemon does not take in time is lost.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::OutputError;

/// Where the local daemon listens, everywhere.
const LOCAL: &str = "/dev/log";
/// Of one message, its header included: what every transport takes, and a record fits in.
const MESSAGE_MAX_BYTES: usize = 8 << 10;
/// How long a message may wait for the local daemon; the lines behind it wait in their queue.
const SEND: Duration = Duration::from_secs(1);
/// The facility `local0`; operators sort by it.
const FACILITY: u8 = 16;
/// The severity `informational`.
const SEVERITY: u8 = 6;
/// The longest host name of a header (RFC 5424 section 6).
const HOST_MAX_BYTES: usize = 255;

/// Where a syslog daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A datagram socket of this machine.
    Local(PathBuf),
    /// Anywhere, by UDP.
    Udp(SocketAddr),
}

impl Default for SyslogAddress {
    fn default() -> Self {
        Self::Local(LOCAL.into())
    }
}

impl FromStr for SyslogAddress {
    type Err = OutputError;

    fn from_str(text: &str) -> Result<Self, OutputError> {
        match text.parse() {
            Ok(address) => Ok(Self::Udp(address)),
            Err(_) if text.starts_with('/') && !text.chars().any(char::is_control) => Ok(Self::Local(text.into())),
            Err(_) => Err(OutputError),
        }
    }
}

/// What messages are about: their MSGID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Access,
    Log,
}

/// See the module.
pub(super) struct Syslog {
    address: SyslogAddress,
    socket: Socket,
    /// What every header has after its time.
    from: String,
}

enum Socket {
    /// Nothing: it is opened anew with the next message, since a daemon that was restarted has another one.
    Closed,
    Local(UnixDatagram),
    Udp(UdpSocket),
}

impl Syslog {
    pub(super) fn open(address: &SyslogAddress, topic: Topic) -> io::Result<Self> {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String = name.chars().filter(char::is_ascii_graphic).take(HOST_MAX_BYTES).collect();
        let host = if host.is_empty() { "-" } else { &host };
        let topic = match topic {
            Topic::Access => "access",
            Topic::Log => "log",
        };
        let from = format!("{host} dormouse {} {topic} - ", std::process::id());
        Ok(Self { address: address.clone(), socket: Socket::open(address)?, from })
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        if matches!(self.socket, Socket::Closed) {
            self.socket = Socket::open(&self.address)?;
        }
        let now = OffsetDateTime::from(SystemTime::now());
        // At most six digits of a second (RFC 5424 section 6.2.3).
        let now = now.replace_microsecond(now.microsecond()).unwrap_or(now).format(&Rfc3339).unwrap_or("-".to_owned());
        let mut message = format!("<{}>1 {now} {}", FACILITY * 8 + SEVERITY, self.from).into_bytes();
        message.extend(line);
        message.truncate(MESSAGE_MAX_BYTES);
        let sent = match &self.socket {
            Socket::Closed => Err(io::ErrorKind::NotConnected.into()),
            Socket::Local(socket) => socket.send(&message),
            Socket::Udp(socket) => socket.send(&message),
        };
        if sent.is_err() {
            self.socket = Socket::Closed;
        }
        sent.map(drop)
    }
}

impl Socket {
    fn open(address: &SyslogAddress) -> io::Result<Self> {
        Ok(match address {
            SyslogAddress::Local(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(SEND))?;
                Self::Local(socket)
            }
            SyslogAddress::Udp(address) => {
                let any: SocketAddr = if address.is_ipv4() {
                    (Ipv4Addr::UNSPECIFIED, 0).into()
                } else {
                    (Ipv6Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_write_timeout(Some(SEND))?;
                Self::Udp(socket)
            }
        })
    }
}

/// Takes whole lines. If one of them fails, none of those after it is tried: what was written says how many went.
impl Write for Syslog {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let text = line.trim_ascii_end();
            if !text.is_empty()
                && let Err(error) = self.send(text)
            {
                return if written == 0 { Err(error) } else { Ok(written) };
            }
            written += line.len();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_message_of_rfc_5424_and_a_long_one_is_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).expect("a socket");
        daemon.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut syslog = Syslog::open(&SyslogAddress::Local(path), Topic::Access).expect("it opens");
        syslog.write_all(b"{\"a\":1}\n{\"b\":2}\n").expect("taken");
        syslog.write_all(&[&[b'x'; 2 * MESSAGE_MAX_BYTES][..], b"\n"].concat()).expect("taken");
        let next = || {
            let mut bytes = vec![0; 3 * MESSAGE_MAX_BYTES];
            let count = daemon.recv(&mut bytes).expect("a message");
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        let first = next();
        let words: Vec<_> = first.split(' ').collect();
        assert_eq!(
            (words[0], words[3], words[5], words[6], words[7]),
            ("<134>1", "dormouse", "access", "-", "{\"a\":1}")
        );
        assert!(OffsetDateTime::parse(words[1], &Rfc3339).is_ok() && words[1].len() <= 27, "{first}");
        assert_eq!(words[4], std::process::id().to_string());
        assert!(next().ends_with(" {\"b\":2}"));
        assert_eq!(next().len(), MESSAGE_MAX_BYTES);
    }

    #[test]
    fn a_daemon_that_comes_back_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).expect("a socket");
        let mut syslog = Syslog::open(&SyslogAddress::Local(path.clone()), Topic::Log).expect("it opens");
        drop(daemon);
        std::fs::remove_file(&path).expect("its file");
        assert!(syslog.write(b"lost\n").is_err());
        assert!(syslog.write(b"lost, too\n").is_err());
        let daemon = UnixDatagram::bind(&path).expect("a socket");
        syslog.write_all(b"found\n").expect("taken");
        let mut bytes = [0; 1024];
        let count = daemon.recv(&mut bytes).expect("a message");
        assert!(bytes[..count].ends_with(b" found"));
    }
}
