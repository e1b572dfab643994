//! What was said, by flags and variables, becomes a configuration that makes sense; or a failure before anything runs.
//!
//! The only place that reads the process's variables, besides clap.

mod edge;
mod file;

pub use edge::{Begin, EdgeConfig, ListenerConfig, RunConfig, edge};

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use dormouse_control::crash::Crash;
use dormouse_control::git;
use dormouse_link::Host;
use dormouse_proxy::{Address, Output, Share};

use crate::cli::{LogOutput, UpArgs};
use crate::failure::{Exit, Failure};
use crate::otlp::{Collector, Export, Sample};
use crate::plain;

/// The longest name of a machine that is taken whole.
const MACHINE_MAX_BYTES: usize = 255;

/// The longest path of a socket, its slash included (unix(7)).
const SOCKET_MAX_BYTES: usize = 107;

/// What `dormouse up` runs with.
#[derive(Clone, Debug)]
pub struct UpConfig {
    /// Folder of everything that is kept.
    pub data: PathBuf,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where HTTPS is served.
    pub https: SocketAddr,
    /// Where the API and git are served.
    pub api: SocketAddr,
    /// Where operators get health and metrics.
    pub admin: SocketAddr,
    /// Domain of the platform's own names.
    pub zone: Host,
    /// Whether there is to be a demo application.
    pub demo: Demo,
    /// The Docker Engine's address; `None`: where it is by default.
    pub engine: Option<String>,
    /// Worker threads of the edge; at least one.
    pub workers: usize,
    /// How long the edge says before its end that it will end.
    pub drain_delay: Duration,
    /// What is logged where.
    pub log: LogConfig,
    /// Where access records go.
    pub access_log: Option<Output>,
    /// Where spans go.
    pub otlp: Option<Export>,
    /// What the edge is called.
    pub name: String,
    /// How much a push may bring.
    pub pushes: git::Limits,
    /// A build is stopped after this time.
    pub build_deadline: Duration,
    /// Where a test ends the control plane; nowhere by default.
    pub crash: Crash,
}

/// What is logged where.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How much, as a filter; `None`: the usual.
    pub filter: Option<String>,
    /// Where.
    pub output: LogOutput,
}

/// Whether `up` makes and pushes the demo application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demo {
    /// Only what people push.
    Without,
    /// The application `hello` is made, if it is not there, and pushed.
    Hello,
}

/// Refuses two listeners on one address, each given with what it is called.
fn distinct(listeners: &[(String, Address)]) -> Result<(), Failure> {
    for (at, (name, address)) in listeners.iter().enumerate() {
        if let Some((other, _)) = listeners[..at].iter().find(|(_, other)| address.is_fixed() && address == other) {
            let what = format!("{other} and {name} are both {address}");
            return Err(Failure::new(Exit::Configuration, what).hint("give each an address of its own"));
        }
    }
    Ok(())
}

/// Checks what was said to `up`.
pub fn up(args: UpArgs) -> Result<UpConfig, Failure> {
    let listeners = [("--http", args.http), ("--https", args.https), ("--api", args.api), ("--admin", args.admin)];
    distinct(&listeners.map(|(flag, address)| (flag.to_owned(), address.into())))?;
    if let Some(engine) = &args.engine {
        check_engine(engine)?;
    }
    let data = data_folder(args.data)?;
    if data.to_str().is_none() {
        let what = format!("the path of the data folder is no UTF-8: {}", data.display());
        return Err(Failure::new(Exit::Configuration, what).hint("name another folder with --data DIR"));
    }
    Ok(UpConfig {
        http: args.http,
        https: args.https,
        api: args.api,
        admin: args.admin,
        zone: args.zone,
        demo: if args.demo { Demo::Hello } else { Demo::Without },
        engine: args.engine,
        workers: args.workers.map_or_else(cores, NonZeroUsize::get),
        drain_delay: args.drain_delay.unwrap_or_default(),
        access_log: match args.access_log {
            Some(access_log) => access_log.output(),
            None => Some(data.join("access.log").into()),
        },
        otlp: export(args.otlp, args.otlp_sample)?,
        name: machine(),
        data,
        log: log(args.log),
        pushes: git::Limits::default(),
        build_deadline: dormouse_control::BUILD_DEADLINE,
        crash: crash()?,
    })
}

/// Where spans go, and of which requests.
fn export(to: Option<Collector>, sample: Option<Sample>) -> Result<Option<Export>, Failure> {
    if to.is_none() && sample.is_some() {
        let what = "a share of traces is to be recorded (otlp_sample), and nobody records any";
        return Err(Failure::new(Exit::Usage, what).hint("say who does: --otlp http://HOST:PORT"));
    }
    Ok(to.map(|to| Export { to, share: sample.map_or(Share::ALL, |sample| sample.0) }))
}

#[cfg(not(feature = "crash-points"))]
fn crash() -> Result<Crash, Failure> {
    Ok(Crash::default())
}

#[cfg(feature = "crash-points")]
fn crash() -> Result<Crash, Failure> {
    let Some(point) = variable("DORMOUSE_CRASH_AT") else { return Ok(Crash::default()) };
    Crash::process(&point.to_string_lossy()).ok_or_else(|| {
        let known = dormouse_control::crash::points().join(", ");
        Failure::new(Exit::Configuration, format!("no crash point is called {point:?} (DORMOUSE_CRASH_AT)"))
            .hint(format!("there are: {known}"))
    })
}

fn log(output: LogOutput) -> LogConfig {
    LogConfig { filter: variable("DORMOUSE_LOG").map(|filter| filter.to_string_lossy().into_owned()), output }
}

/// What the system calls this machine.
fn machine() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let sound = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    name.chars().filter(sound).take(MACHINE_MAX_BYTES).collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn check_engine(engine: &str) -> Result<(), Failure> {
    let host = ["tcp://", "http://"].iter().find_map(|scheme| engine.strip_prefix(scheme));
    let known = match (engine.strip_prefix("unix:///"), host) {
        (Some(path), _) => !path.is_empty() && path.len() < SOCKET_MAX_BYTES,
        (None, Some(host)) => host.strip_suffix('/').unwrap_or(host).parse::<Host>().is_ok(),
        (None, None) => false,
    };
    if known {
        return Ok(());
    }
    let what = format!("no way to a Docker Engine at \"{}\" (--engine, DOCKER_HOST)", plain::value(engine));
    Err(Failure::new(Exit::Configuration, what).hint("give unix:///PATH, tcp://HOST:PORT or http://HOST:PORT"))
}

/// The data folder: the one that was named, or the place where a program of this user keeps its data.
pub fn data_folder(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    named.or_else(|| default_data_folder(variable("XDG_DATA_HOME"), variable("HOME"))).ok_or_else(|| {
        Failure::new(
            Exit::Configuration,
            "there is no place for the data folder: neither XDG_DATA_HOME nor HOME is set",
        )
        .hint("name one with --data DIR")
    })
}

/// A path that is not absolute counts for nothing, as the XDG base directory specification wants it.
fn default_data_folder(data_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let base = data_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".local/share")))?;
    Some(base.join("dormouse"))
}

#[expect(clippy::disallowed_methods, reason = "this is where configuration is read")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(words: &[&str]) -> Result<UpConfig, Failure> {
        let cli = Cli::try_parse_from(["dormouse", "up", "--data", "/d"].iter().chain(words)).unwrap();
        let Command::Up(args) = cli.command else { panic!("{words:?} is no `up`") };
        up(args)
    }

    #[test]
    fn defaults_are_loopback_only() {
        let config = parsed(&["--engine", "unix:///run/x.sock"]).unwrap();
        for address in [config.http, config.https, config.api, config.admin] {
            assert!(address.ip().is_loopback());
        }
        assert_eq!(config.zone.as_str(), "localhost");
        assert_eq!(config.demo, Demo::Without);
        assert!(config.workers >= 1);
    }

    #[test]
    fn two_listeners_on_one_address_are_refused_and_port_0_is_none() {
        let same = ["--http", "127.0.0.1:9000", "--engine", "unix:///x"];
        assert_eq!(parsed(&same).unwrap_err().exit(), Exit::Configuration);
        let free = ["--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--engine", "unix:///x"];
        assert!(parsed(&free).is_ok());
    }

    #[test]
    fn an_engine_that_cannot_be_reached_that_way_is_refused() {
        for bad in [
            "ssh://host",
            "/var/run/docker.sock",
            "unix:///",
            "tcp://",
            "",
            "tcp://:1",
            "tcp://h:99999",
            "tcp://h:x",
            "http://u@h:1",
            "http://a b:1",
            "tcp://h:1/v1",
            "tcp://h\u{1b}:1",
            &format!("unix:///{}", "x".repeat(200)),
        ] {
            assert_eq!(parsed(&["--engine", bad]).unwrap_err().exit(), Exit::Configuration, "{bad:?}");
        }
        for good in ["tcp://h:1", "http://127.0.0.1:2375/", "tcp://[::1]:2375", "unix:///run/docker.sock"] {
            assert!(parsed(&["--engine", good]).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_data_folder_follows_xdg() {
        let folder = |data: Option<&str>, home: Option<&str>| {
            default_data_folder(data.map(OsString::from), home.map(OsString::from))
        };
        assert_eq!(folder(Some("/x"), Some("/h")), Some("/x/dormouse".into()));
        assert_eq!(folder(Some("x"), Some("/h")), Some("/h/.local/share/dormouse".into()));
        assert_eq!(folder(None, Some("/h")), Some("/h/.local/share/dormouse".into()));
        assert_eq!(folder(None, Some("")), None);
        assert_eq!(folder(None, None), None);
    }
}
