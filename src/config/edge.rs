//! What `dormouse edge` is told, by its arguments and by a file: an argument takes the place of the same key of the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use dormouse_proxy::{Address, Http2, ListenerLimits, Listening, Network, Output, Protocol};

use super::file::{self, File};
use super::{LogConfig, cores, distinct, export, log, machine, variable};
use crate::cli::{AccessLog, EdgeArgs, LogOutput};
use crate::edge::{KeyPairFiles, passed};
use crate::failure::{Exit, Failure};
use crate::otlp::Export;

/// Where `edge` serves if nothing else is said.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const HTTPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

/// The region of an edge that was not told its own.
const REGION: &str = "default";

/// How long requests that run may go on at the end.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a process that takes over may take.
const UPGRADE_WITHIN: Duration = Duration::from_secs(60);

/// What `dormouse edge` runs with.
#[derive(Debug)]
pub struct EdgeConfig {
    /// The table file.
    pub table: PathBuf,
    /// The certificate for names that the table has none for.
    pub certificate: Option<KeyPairFiles>,
    /// The secrets of session tickets that several edges share.
    pub ticket_keys: Option<PathBuf>,
    /// What cookies are signed with that several edges know.
    pub cookie_key: Option<PathBuf>,
    /// Where visitors are served; one at least.
    pub listeners: Vec<ListenerConfig>,
    /// What differs from the usual, for the edge, and for each listener that says nothing else.
    pub limits: ListenerLimits,
    /// Memory that it may have; `None`: what the machine, or its control group, allows.
    pub memory: Option<u64>,
    /// Where operators get health.
    pub admin: Option<SocketAddr>,
    /// Where access records go.
    pub access_log: Option<Output>,
    /// Where spans go.
    pub otlp: Option<Export>,
    /// What it is called, and its region.
    pub name: (String, String),
    /// How long requests that run may go on at the end.
    pub drain: Duration,
    /// How long it says before that it will end.
    pub drain_delay: Duration,
    /// Sockets that the service manager passed, each by the name of its listener.
    pub passed: Vec<Listening>,
    /// How it is replaced by another process, if it can be.
    pub run: Option<RunConfig>,
    /// Where the service manager hears how it is.
    pub notify: Option<OsString>,
    /// Worker threads; at least one.
    pub workers: usize,
    /// What is logged where.
    pub log: LogConfig,
}

/// A place where visitors are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// What it is called, in the ready line and in errors.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// HTTP or HTTPS.
    pub protocol: Protocol,
    /// Whether HTTP/2 is spoken, too.
    pub http2: Http2,
    /// Over TLS: the certificates of the authority that every client needs one from.
    pub client_ca: Option<PathBuf>,
    /// Whose connections begin with a PROXY protocol header.
    pub proxy_protocol_from: Vec<Network>,
    /// Whose forwarding fields are believed.
    pub trust_forwarded_from: Vec<Network>,
    /// What it has of its own.
    pub limits: ListenerLimits,
}

/// How an edge and its successor find each other.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The folder where they meet.
    pub folder: PathBuf,
    /// Whether another one runs already.
    pub begin: Begin,
    /// How long a successor may take.
    pub within: Duration,
    /// What this one starts as its successor: a program, if it can be found again, and its arguments.
    pub successor: (Option<PathBuf>, Vec<OsString>),
}

/// How an edge begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Alone.
    Fresh,
    /// In place of the one that runs.
    Upgrade,
}

/// Checks what was said to `edge`, by arguments and by the file that one of them names.
pub fn edge(mut args: EdgeArgs) -> Result<EdgeConfig, Failure> {
    let file = args.config.as_deref().map(file::read).transpose()?.unwrap_or_default();
    let (passed, added) = passed::assign(passed::sockets(passed::VARIABLES.map(variable))?, &said(&args, &file))?;
    args.http = args.http.or_else(|| added.get("http").cloned());
    args.https = args.https.or_else(|| added.get("https").cloned());
    args.admin = args.admin.or_else(|| added.get("admin").and_then(Address::ip));
    let certificate = certificate(&args, &file)?;
    let listeners = listeners(&args, &file, certificate.is_some())?;
    let admin = args.admin.or(file.admin);
    let called = |listener: &ListenerConfig| (file.called(&listener.name), listener.address.clone());
    let all = listeners.iter().map(called).chain(admin.map(|address| ("--admin".to_owned(), address.into())));
    distinct(&all.collect::<Vec<_>>())?;
    let ticket_keys = args.ticket_keys.or(file.ticket_keys);
    if !listeners.iter().any(|listener| listener.protocol == Protocol::Tls)
        && (ticket_keys.is_some() || certificate.is_some() || args.client_ca.is_some())
    {
        let what = "a certificate, --ticket-keys and --client-ca are of HTTPS, which is not served";
        return Err(Failure::new(Exit::Configuration, what).hint("add --https ADDR, or a listener with tls = true"));
    }
    let run = args.run.or(file.run);
    if args.upgrade && run.is_none() {
        let what = "--upgrade takes over from an edge that runs with --run DIR, and there is none";
        return Err(Failure::new(Exit::Usage, what).hint("add --run DIR, the one that it runs with"));
    }
    let Some(table) = args.table.or(file.table) else {
        let what = "there is no table to serve: neither --table nor the file that --config names says one";
        return Err(Failure::new(Exit::Configuration, what).hint(r#"add  table = "table.json"  at its begin"#));
    };
    Ok(EdgeConfig {
        table,
        certificate,
        ticket_keys,
        cookie_key: args.cookie_key.or(file.cookie_key),
        listeners,
        limits: ListenerLimits {
            connections: args.connections.map(NonZeroUsize::get).or(file.limits.connections),
            connections_per_client: args
                .connections_per_client
                .map(NonZeroU32::get)
                .or(file.limits.connections_per_client),
            ..file.limits
        },
        memory: args.memory_limit.or(file.memory_limit),
        admin,
        access_log: args.access_log.or(file.access_log).and_then(AccessLog::output),
        otlp: export(args.otlp.or(file.otlp), args.otlp_sample.or(file.otlp_sample))?,
        name: (
            args.name.or(file.name).unwrap_or_else(machine),
            args.region.or(file.region).unwrap_or_else(|| REGION.to_owned()),
        ),
        drain: args.drain.or(file.drain).unwrap_or(DRAIN),
        drain_delay: args.drain_delay.or(file.drain_delay).unwrap_or_default(),
        run: run.map(|folder| RunConfig {
            folder,
            begin: if args.upgrade { Begin::Upgrade } else { Begin::Fresh },
            within: args.upgrade_within.or(file.upgrade_within).unwrap_or(UPGRADE_WITHIN),
            successor: successor(&added),
        }),
        passed,
        notify: variable("NOTIFY_SOCKET"),
        workers: args.workers.or(file.workers).map_or_else(cores, NonZeroUsize::get),
        log: log(args.log.or(file.log).unwrap_or(LogOutput::Stderr)),
    })
}

fn certificate(args: &EdgeArgs, file: &File) -> Result<Option<KeyPairFiles>, Failure> {
    let pair = |chain: &Option<PathBuf>, key: &Option<PathBuf>| {
        Some(KeyPairFiles { chain: chain.clone()?, key: key.clone()? })
    };
    match (pair(&args.cert, &args.key), &file.cert, &file.key) {
        (Some(said), ..) => Ok(Some(said)),
        (None, Some(_), None) | (None, None, Some(_)) => {
            let what = "of cert and key, the file that --config names says only one";
            Err(Failure::new(Exit::Configuration, what).hint("add the other one"))
        }
        (None, chain, key) => Ok(pair(chain, key)),
    }
}

/// Those of the file, or those of the arguments: a listener is not made of both.
fn listeners(args: &EdgeArgs, file: &File, certified: bool) -> Result<Vec<ListenerConfig>, Failure> {
    if !file.listeners.is_empty() {
        let said = [
            ("--http", args.http.is_some()),
            ("--https", args.https.is_some()),
            ("--client-ca", args.client_ca.is_some()),
            ("--http2-prior-knowledge", args.http2_prior_knowledge),
            ("--proxy-protocol-from", !args.proxy_protocol_from.is_empty()),
            ("--trust-forwarded-from", !args.trust_forwarded_from.is_empty()),
        ];
        if let Some((flag, _)) = said.iter().find(|(_, is_said)| *is_said) {
            let what = format!("{flag} is said, and listeners are in the file that --config names");
            return Err(Failure::new(Exit::Configuration, what).hint("say all of them in one place"));
        }
        return Ok(file.listeners.iter().map(|(_, listener)| listener.clone()).collect());
    }
    let http = args.http.clone().or_else(|| args.https.is_none().then_some(HTTP.into()));
    let https = args.https.clone().or_else(|| certified.then_some(HTTPS.into()));
    let http2 = if args.http2_prior_knowledge { Http2::On } else { Http2::Off };
    let listener = |name: &str, address, (protocol, http2)| ListenerConfig {
        name: name.to_owned(),
        address,
        protocol,
        http2,
        client_ca: args.client_ca.clone().filter(|_| protocol == Protocol::Tls),
        proxy_protocol_from: args.proxy_protocol_from.clone(),
        trust_forwarded_from: args.trust_forwarded_from.clone(),
        limits: ListenerLimits::default(),
    };
    let http = http.map(|address| listener("http", address, (Protocol::Plain, http2)));
    let https = https.map(|address| listener("https", address, (Protocol::Tls, Http2::On)));
    Ok(http.into_iter().chain(https).collect())
}

/// What was said of each listener that there may be: where it is, or nothing yet.
fn said(args: &EdgeArgs, file: &File) -> Vec<(String, Option<Address>)> {
    let by_flags = || {
        let flags = [("http", &args.http), ("https", &args.https)];
        flags.map(|(name, said)| (name.to_owned(), said.clone())).into()
    };
    let mut said: Vec<_> = if file.listeners.is_empty() {
        by_flags()
    } else {
        file.listeners.iter().map(|(_, listener)| (listener.name.clone(), Some(listener.address.clone()))).collect()
    };
    said.push(("admin".to_owned(), args.admin.or(file.admin).map(Address::from)));
    said
}

/// This program as it was started, but as an upgrade, and told where the listeners are that the service manager passed. Its
/// path is looked up now: once the file was replaced, it would be that of the old one.
fn successor(added: &BTreeMap<String, Address>) -> (Option<PathBuf>, Vec<OsString>) {
    let upgrade = OsString::from("--upgrade");
    let mut arguments: Vec<_> = std::env::args_os().skip(1).filter(|argument| *argument != upgrade).collect();
    arguments.push(upgrade);
    for (listener, address) in added {
        arguments.extend([format!("--{listener}").into(), address.to_string().into()]);
    }
    (std::env::current_exe().ok(), arguments)
}
