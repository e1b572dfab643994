//! The command line: what can be said, and what a word means. What it leads to is in `app` and `client`.
//!
//! Names, durations and variables are parsed here, so that a mistake is told before anything is asked of anyone.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use dormouse_link::{Host, LABEL_MAX_BYTES, Label};
use dormouse_proxy::{Address, Network, Output};

use crate::otlp::Collector;

/// The most worker threads of an edge.
const WORKERS_MAX: usize = 1024;

/// The longest zone: `APP-ENVIRONMENT.ZONE` must be a name that DNS can hold (253 characters).
const ZONE_MAX_BYTES: usize = 253 - 2 * (LABEL_MAX_BYTES + 1);

/// The longest label of a domain (RFC 1035).
const DOMAIN_LABEL_MAX_BYTES: usize = 63;

/// The longest name of an edge or a region, in bytes.
const NAME_MAX_BYTES: usize = 63;

/// The longest name of a variable, in bytes.
const VARIABLE_NAME_MAX_BYTES: usize = 200;

/// The longest time a setting may have: a year.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Ingress/edge proxy with an embedded control plane, for Docker applications
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane and an edge in one process
    Up(UpArgs),
    /// Run an edge that serves a table file, without a control plane
    Edge(Box<EdgeArgs>),
    /// Ask something of a control plane that runs.
    #[command(flatten)]
    Client(ClientCommand),
}

/// Where and how `up` serves.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Folder of everything that is kept [default: $XDG_DATA_HOME/dormouse or ~/.local/share/dormouse]
    #[arg(long, value_name = "DIR", env = "DORMOUSE_DATA")]
    pub data: Option<PathBuf>,
    /// Where to serve HTTP; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// Where to serve HTTPS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub https: SocketAddr,
    /// Where to serve the API and git
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub api: SocketAddr,
    /// Where to serve health and metrics to operators
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
    pub admin: SocketAddr,
    /// Domain under which applications get their names
    #[arg(long, value_name = "DOMAIN", default_value = "localhost", value_parser = zone)]
    pub zone: Host,
    /// Make and push the application `hello`, to have something to look at
    #[arg(long)]
    pub demo: bool,
    /// The Docker Engine: unix:///PATH, tcp://HOST:PORT or http://HOST:PORT [default: /var/run/docker.sock]
    #[arg(long, value_name = "ADDR", env = "DOCKER_HOST")]
    pub engine: Option<String>,
    /// Worker threads of the edge [default: one for each core]
    #[arg(long, value_name = "N", value_parser = workers)]
    pub workers: Option<NonZeroUsize>,
    /// How long /readyz fails before the edge stops accepting, when it is told to stop; for load balancers [default: 0]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub drain_delay: Option<Duration>,
    /// Where to keep a record of each request: file:PATH, stdout, syslog, syslog:/PATH, syslog:IP:PORT or off [default: the
    /// file access.log of the data folder]
    #[arg(long, value_name = "OUTPUT")]
    pub access_log: Option<AccessLog>,
    /// Where to log: stderr, file:PATH, syslog, syslog:/PATH or syslog:IP:PORT
    #[arg(long, value_name = "OUTPUT", default_value = "stderr")]
    pub log: LogOutput,
    /// Send a span of each request to this OpenTelemetry collector, by OTLP over HTTP [default: to none]
    #[arg(long, value_name = "URL")]
    pub otlp: Option<Collector>,
}

/// What `edge` serves, and where.
#[derive(Debug, Args)]
pub struct EdgeArgs {
    /// The table, as JSON; taken again whenever it changes
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    pub table: Option<PathBuf>,
    /// A file, as TOML, that says what arguments say, and listeners with limits of their own; arguments take the place of its
    /// keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to serve HTTP: IP:PORT (port 0 takes any free one) or unix:/PATH [default: 127.0.0.1:8080, unless --https is
    /// given]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<Address>,
    /// Where to serve HTTPS [default: 127.0.0.1:8443, if --cert is given]
    #[arg(long, value_name = "ADDR")]
    pub https: Option<Address>,
    /// Networks of proxies whose connections begin with a PROXY protocol header: 10.0.0.0/8, 192.0.2.1, or unix; may be given
    /// several times
    #[arg(long, value_name = "NETWORK")]
    pub proxy_protocol_from: Vec<Network>,
    /// Networks of proxies whose X-Forwarded-For, -Proto and -Port are believed; may be given several times
    #[arg(long, value_name = "NETWORK")]
    pub trust_forwarded_from: Vec<Network>,
    /// Speak HTTP/2 on the HTTP listener, too, with clients that begin with it
    #[arg(long)]
    pub http2_prior_knowledge: bool,
    /// Connections at a time [default: as many as there are descriptors for]
    #[arg(long, value_name = "N")]
    pub connections: Option<NonZeroUsize>,
    /// Connections at a time of one client's address, or one /64 of IPv6 [default: no limit]
    #[arg(long, value_name = "N")]
    pub connections_per_client: Option<NonZeroU32>,
    /// Memory of the process, from 80 % of which on some work is refused: 512m, 2g [default: what its control group may have,
    /// or three quarters of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory_limit: Option<u64>,
    /// Certificate for names that the table has none for: the chain as PEM, leaf first
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The private key of that certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Keys of session tickets that several edges share, mode 0600; taken again whenever it changes [default: made here]
    #[arg(long, value_name = "FILE")]
    pub ticket_keys: Option<PathBuf>,
    /// What cookies of sticky environments are signed with: 64 hex digits that edges share, mode 0600 [default: made here]
    #[arg(long, value_name = "FILE")]
    pub cookie_key: Option<PathBuf>,
    /// Serve HTTPS only to clients with a certificate of this authority, given as PEM [default: to everybody]
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Where to serve health and metrics to operators [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// Where to keep a record of each request: file:PATH, stdout, syslog, syslog:/PATH, syslog:IP:PORT or off [default: off]
    #[arg(long, value_name = "OUTPUT")]
    pub access_log: Option<AccessLog>,
    /// Where to log: stderr, file:PATH, syslog, syslog:/PATH or syslog:IP:PORT [default: stderr]
    #[arg(long, value_name = "OUTPUT")]
    pub log: Option<LogOutput>,
    /// Send a span of each request to this OpenTelemetry collector, by OTLP over HTTP [default: to none]
    #[arg(long, value_name = "URL")]
    pub otlp: Option<Collector>,
    /// What this edge is called in access records [default: the name of the machine]
    #[arg(long, value_name = "NAME", value_parser = called)]
    pub name: Option<String>,
    /// The region that it is of, in access records [default: default]
    #[arg(long, value_name = "NAME", value_parser = called)]
    pub region: Option<String>,
    /// How long requests that run may go on when the edge is told to stop [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub drain: Option<Duration>,
    /// How long /readyz fails before the edge stops accepting, when it is told to stop; for load balancers [default: 0]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub drain_delay: Option<Duration>,
    /// Folder of this user alone, through which another process can take over the listening sockets
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Take over from the edge that runs with that folder
    #[arg(long)]
    pub upgrade: bool,
    /// How long a process that takes over may take until it is ready [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub upgrade_within: Option<Duration>,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = workers)]
    pub workers: Option<NonZeroUsize>,
}

/// What can be asked of a control plane.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Create, list and delete applications
    App {
        /// Whom to ask.
        #[command(flatten)]
        api: ApiArgs,
        /// What to do with them.
        #[command(subcommand)]
        command: AppCommand,
    },
    /// Build and deploy the head of an environment's branch; to live: the image that Test runs
    Deploy(TargetArgs),
    /// Show environments: state, deployment, addresses
    Status {
        /// Only this application, with all its details
        name: Option<Label>,
        /// Whom to ask.
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show what the containers of an environment wrote
    Logs {
        /// Whose logs.
        #[command(flatten)]
        target: TargetArgs,
        /// Go on showing new lines
        #[arg(short, long)]
        follow: bool,
        /// How many of the last lines to begin with
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=100_000))]
        tail: u32,
    },
    /// Put an environment to sleep now
    Sleep(TargetArgs),
    /// Wake an environment now
    Wake(TargetArgs),
    /// Change an environment
    Environment {
        /// What to do with it.
        #[command(subcommand)]
        command: EnvironmentCommand,
    },
}

/// What can be done with applications.
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Create an application with the environments test and live
    Create {
        /// Its name: a-z, 0-9 and -, at most 40
        name: Label,
    },
    /// List all applications
    List,
    /// Delete an application with its environments, containers, images and code
    Delete {
        /// Its name
        name: Label,
    },
}

/// What can be done with an environment.
#[derive(Debug, Subcommand)]
pub enum EnvironmentCommand {
    /// Change settings and variables
    Set(SetArgs),
}

/// One environment of one application.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// The application
    pub name: Label,
    /// The environment
    #[arg(short, long, value_name = "NAME", default_value = "test")]
    pub environment: Label,
    /// Whom to ask.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// What to change of an environment. What is not named stays.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct SetArgs {
    /// Which environment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Sleep after that long without a request: 2s, 15m, 1h … or never
    #[arg(long, value_name = "TIME", group = "change")]
    pub sleep_after: Option<SleepAfter>,
    /// How long a new container may take until it answers
    #[arg(long, value_name = "TIME", group = "change", value_parser = duration)]
    pub ready_within: Option<Duration>,
    /// Memory that a container may use, without swap: 256m, 1g; from the next deployment on
    #[arg(long, value_name = "SIZE", group = "change", value_parser = size)]
    pub memory: Option<u64>,
    /// Processors that a container may use: 0.5, 2; from the next deployment on
    #[arg(long, value_name = "N", group = "change", value_parser = thousandths)]
    pub cpus: Option<u64>,
    /// Processes and threads that a container may have; from the next deployment on
    #[arg(long, value_name = "N", group = "change")]
    pub processes: Option<u64>,
    /// Set a variable, from the next deployment on; may be given several times
    #[arg(long = "variable", value_name = "KEY=VALUE", group = "change")]
    pub variables: Vec<Variable>,
    /// Remove a variable, from the next deployment on; may be given several times
    #[arg(long = "remove-variable", value_name = "KEY", group = "change", value_parser = variable_name)]
    pub removed: Vec<String>,
}

/// Where the control plane is, and how its answers are shown.
#[derive(Clone, Debug, Args)]
pub struct ApiArgs {
    /// The control plane's API [default: what DIR/api.addr says, else http://127.0.0.1:9000]
    #[arg(long, value_name = "URL", env = "DORMOUSE_API", global = true, help_heading = "Control plane")]
    pub api: Option<String>,
    /// Token that proves who asks [default: what DIR/admin.token holds]
    #[arg(
        long,
        value_name = "TOKEN",
        env = "DORMOUSE_TOKEN",
        hide_env_values = true,
        global = true,
        help_heading = "Control plane"
    )]
    pub token: Option<String>,
    /// Data folder of a control plane on this machine [default: as for `dormouse up`]
    #[arg(long, value_name = "DIR", env = "DORMOUSE_DATA", global = true, help_heading = "Control plane")]
    pub data: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    pub json: bool,
}

/// When an idle environment falls asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepAfter {
    /// It stays awake.
    Never,
    /// After that long without a request.
    Idle(Duration),
}

impl FromStr for SleepAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" { Ok(Self::Never) } else { duration(text).map(Self::Idle) }
    }
}

/// A variable and the value it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, exactly as it was given.
    pub value: String,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a variable is given as KEY=VALUE")?;
        Ok(Self { name: variable_name(name)?, value: value.to_owned() })
    }
}

fn variable_name(name: &str) -> Result<String, String> {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.bytes().next().is_none_or(|first| first.is_ascii_digit()) || !name.bytes().all(rest) {
        return Err("a variable's name has letters, digits and _, and begins with no digit".to_owned());
    }
    if name.len() > VARIABLE_NAME_MAX_BYTES {
        return Err(format!("a variable's name has at most {VARIABLE_NAME_MAX_BYTES} characters"));
    }
    Ok(name.to_owned())
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// There.
    To(Output),
}

impl AccessLog {
    /// Where that is, if they are kept.
    pub fn output(self) -> Option<Output> {
        match self {
            Self::Off => None,
            Self::To(output) => Some(output),
        }
    }
}

impl FromStr for AccessLog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => {
                text.parse().map(Self::To).map_err(|_| "give file:PATH, stdout, syslog, syslog:ADDR or off".to_owned())
            }
        }
    }
}

/// Where the log goes; stdout is for results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// To stderr.
    Stderr,
    /// There.
    To(Output),
}

impl FromStr for LogOutput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "stderr" => Ok(Self::Stderr),
            Ok(output) if output != Output::Stdout => Ok(Self::To(output)),
            _ => Err("give stderr, file:PATH, syslog or syslog:ADDR".to_owned()),
        }
    }
}

/// What an edge or a region is called.
pub(crate) fn called(text: &str) -> Result<String, String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && text.len() <= NAME_MAX_BYTES && text.bytes().all(sound) {
        return Ok(text.to_owned());
    }
    Err(format!("give letters, digits, -, _ and ., at most {NAME_MAX_BYTES} of them, a letter or digit first"))
}

/// A number of threads.
pub(crate) fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let wrong = || format!("workers are a number from 1 to {WORKERS_MAX}");
    text.parse().ok().filter(|workers: &NonZeroUsize| workers.get() <= WORKERS_MAX).ok_or_else(wrong)
}

/// A domain below which names can stand: no address, no port.
fn zone(text: &str) -> Result<Host, String> {
    let zone: Host = text.parse().map_err(|error: dormouse_link::HostError| error.to_string())?;
    let label = |label: &str| {
        let edges = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && label.len() <= DOMAIN_LABEL_MAX_BYTES && !edges
    };
    let number = zone.as_str().rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if zone.as_str().len() > ZONE_MAX_BYTES || text.contains(':') || number || !zone.as_str().split('.').all(label) {
        return Err(format!(
            "a zone is a domain like apps.example.com: no port, no address, at most {ZONE_MAX_BYTES} characters"
        ));
    }
    Ok(zone)
}

/// A whole number and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is a number and its unit: 500ms, 2s, 15m, 1h, 7d".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let duration = Duration::from_millis(number.saturating_mul(unit_ms));
    if duration.is_zero() || duration > DURATION_MAX {
        return Err("a time is more than nothing and at most 365d".to_owned());
    }
    Ok(duration)
}

/// A whole number and its unit, in bytes.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "a size is a number and its unit: 256m, 1g".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse().ok().and_then(|number: u64| number.checked_mul(unit)).ok_or_else(wrong)
}

/// The same, but for nothing at all.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    size(text)?.checked_sub(1).map(|less| less + 1).ok_or_else(|| "a size is more than nothing".to_owned())
}

/// A number with up to three decimals, in thousandths.
fn thousandths(text: &str) -> Result<u64, String> {
    let wrong = || "processors are a number with up to three decimals: 0.5, 2".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    whole.checked_mul(1000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        for (text, milliseconds) in [("500ms", 500), ("2s", 2_000), ("15m", 900_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!("7d".parse(), Ok(SleepAfter::Idle(Duration::from_secs(7 * 86_400))));
        assert_eq!("never".parse(), Ok(SleepAfter::Never));
        for bad in ["", "5", "s", "-1s", "1.5h", "1 h", "1w", "0s", "366d", "99999999999999999999s", "Never", "é"] {
            assert!(bad.parse::<SleepAfter>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_limit_is_a_plain_number_with_its_unit() {
        for (text, bytes) in [("16m", 16 << 20), ("1g", 1 << 30), ("1024k", 1 << 20)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "5", "m", "-1m", "1.5g", "1 g", "1M", "1mb", "99999999999g", "99999999999999999999g", "é"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
        for (text, milli) in [("2", 2000), ("0.5", 500), ("0.25", 250), ("1.125", 1125), ("0", 0), ("10.0", 10_000)] {
            assert_eq!(thousandths(text), Ok(milli), "{text}");
        }
        for bad in ["", ".", ".5", "1.", "-1", "+1", "0.1234", "1e3", "half", "1,5", "99999999999999999999", "é"] {
            assert!(thousandths(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_zone_is_a_domain_below_which_names_can_stand() {
        for good in ["localhost", "apps.example.com", "Example.Org.", &format!("{0}.{0}", "x".repeat(63))] {
            assert!(zone(good).is_ok(), "{good}");
        }
        let long = vec!["x".repeat(63); 3].join(".");
        for bad in ["", ".", "a:80", "127.0.0.1", "[::1]", "a..b", "-a", "a.b-", "a b", "é", &"x".repeat(64), &long] {
            assert!(zone(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn workers_are_some_but_not_countless() {
        assert_eq!((workers("1").map(NonZeroUsize::get), workers("1024").map(NonZeroUsize::get)), (Ok(1), Ok(1024)));
        for bad in ["", "0", "-1", "1025", "99999999999999999999", "many", "1.5"] {
            assert!(workers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_keeps_its_value_as_it_is() {
        let variable = |name: &str, value: &str| Variable { name: name.to_owned(), value: value.to_owned() };
        assert_eq!("A=b=c ".parse(), Ok(variable("A", "b=c ")));
        assert_eq!("_a1=".parse(), Ok(variable("_a1", "")));
        for bad in ["A", "=b", "1A=b", "A-B=c", "A B=c", "é=c"] {
            assert!(bad.parse::<Variable>().is_err(), "{bad:?}");
        }
    }
}
