//! Why a table file is not taken, in words that say where.

use crate::{CertificateName, EnvironmentId, HostPattern, Invalid, Label, RouteError, RuleError};

/// Why a table file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is no JSON, or has other fields or types; with line and column.
    #[error("the table file cannot be read as a table")]
    Json(#[from] serde_json::Error),
    /// Two routes claim the same requests.
    #[error("routes[{second}] of {host} can never be met: routes[{first}] is for the same requests")]
    RouteTwice {
        /// The earlier route, counted from 0.
        first: usize,
        /// The later one.
        second: usize,
        /// The host of both.
        host: HostPattern,
    },
    /// Nobody can be served by that.
    #[error("routes[{at}]: the endpoints of {host} cannot be used")]
    Route {
        /// Which route, counted from 0.
        at: usize,
        /// Its host.
        host: HostPattern,
        /// Why.
        #[source]
        invalid: Invalid,
    },
    /// A route that makes no sense.
    #[error("routes[{at}]: the route of {host} cannot be used")]
    Rule {
        /// Which route, counted from 0.
        at: usize,
        /// Its host.
        host: HostPattern,
        /// Why.
        #[source]
        wrong: RuleError,
    },
    /// What is said of a host makes no sense.
    #[error("{host} cannot be served so")]
    Host {
        /// The host.
        host: HostPattern,
        /// Why.
        #[source]
        wrong: RouteError,
    },
    /// Nobody, or two, to be served by.
    #[error("routes[{at}]: the route of {host} has exactly one of \"endpoints\", \"environment\" and \"redirect\"")]
    OneTarget {
        /// Which route, counted from 0.
        at: usize,
        /// Its host.
        host: HostPattern,
    },
    /// What is sent elsewhere is not changed on its way, and has no limits.
    #[error("routes[{at}]: what the redirect of {host} changes is said inside of \"redirect\"")]
    RewritesRedirect {
        /// Which route, counted from 0.
        at: usize,
        /// Its host.
        host: HostPattern,
    },
    /// It names what is not there.
    #[error("routes[{at}]: there is no environment {environment:?} for {host}", environment = environment.as_str())]
    NoEnvironment {
        /// Which route, counted from 0.
        at: usize,
        /// Its host.
        host: HostPattern,
        /// What it names.
        environment: Label,
    },
    /// Nobody can be served by it.
    #[error("environments.{name}: it cannot be used")]
    Environment {
        /// Its name.
        name: Label,
        /// Why.
        #[source]
        invalid: Invalid,
    },
    /// Something is said of a host that is not served.
    #[error("hosts.{host}: no route has this host")]
    NoRoute {
        /// The host.
        host: HostPattern,
    },
    /// Two certificates for one host.
    #[error("certificates[{second}]: {host} has a certificate already, certificates[{first}]")]
    CertificateTwice {
        /// The earlier certificate, counted from 0.
        first: usize,
        /// The later one.
        second: usize,
        /// What both are for.
        host: CertificateName,
    },
}

impl FileError {
    /// What is wrong with a host's routes, whose places in the file are these.
    pub(super) fn of_route(host: &HostPattern, routes: &[(usize, EnvironmentId)], wrong: RouteError) -> Self {
        let (host, place) = (host.clone(), |at: usize| routes.get(at).map_or(at, |(place, _)| *place));
        match wrong {
            RouteError::Twice { first, second } => {
                Self::RouteTwice { first: place(first), second: place(second), host }
            }
            RouteError::Rule { at, wrong } => Self::Rule { at: place(at), host, wrong },
            wrong => Self::Host { host, wrong },
        }
    }
}
