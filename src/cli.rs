//! The command line: what can be said. What a word means is in `cli/value.rs`, what it leads to in `app` and `client`.

mod value;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use dormouse_link::{Host, Label};
use dormouse_proxy::{Address, Network};

pub use value::{AccessLog, LogOutput, SleepAfter, Switch, Variable};
pub(crate) use value::{called, duration, memory, workers};

use crate::otlp::{Collector, Sample};
use value::{size, thousandths, user, variable_name, zone};

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
    /// Record this share of the traces that begin here: 0.25; those of clients that are sampled are recorded in any case
    /// [default: 1]
    #[arg(long, value_name = "SHARE")]
    pub otlp_sample: Option<Sample>,
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
    /// Record this share of the traces that begin here: 0.25; those of clients that are sampled are recorded in any case
    /// [default: 1]
    #[arg(long, value_name = "SHARE")]
    pub otlp_sample: Option<Sample>,
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
    Set(Box<SetArgs>),
    /// Show how requests are treated, as JSON, or say it anew
    Policy(PolicyArgs),
}

/// The policy of an environment, shown unless it is to change.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Which environment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Take the policy that this file says as JSON, in the place of what was said before; - reads stdin
    #[arg(long, value_name = "FILE", conflicts_with = "clear")]
    pub file: Option<PathBuf>,
    /// Remove it: as if none was ever said
    #[arg(long)]
    pub clear: bool,
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
    /// Answer everybody by a page that says that it is being worked on, or serve again: on, off
    #[arg(long, value_name = "SWITCH", group = "change")]
    pub maintenance: Option<Switch>,
    /// Let requests wait, for a migration, or go on: on, off
    #[arg(long, value_name = "SWITCH", group = "change")]
    pub pause: Option<Switch>,
    /// Let search engines index it, or not: on, off [default: on for live, off for others]
    #[arg(long, value_name = "SWITCH", group = "change")]
    pub index: Option<Switch>,
    /// Ask visitors for a password; that of this user is asked for here, or read from stdin
    #[arg(long, value_name = "USER", group = "change", value_parser = user)]
    pub password: Option<String>,
    /// Remove the password of this user; without any, everybody is let in. May be given several times
    #[arg(long = "remove-password", value_name = "USER", group = "change", value_parser = user)]
    pub removed_passwords: Vec<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
