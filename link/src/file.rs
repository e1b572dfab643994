//! The table file: routes written by hand or by a program, for an edge that has no control plane.
//!
//! ```json
//! {"routes": [{"host": "a.example.com", "endpoints": ["127.0.0.1:9001"]}],
//!  "certificates": [{"host": "a.example.com", "chain": "a.pem", "key": "a.key"}]}
//! ```
//!
//! A route names its own endpoints, or one of the file's `environments`, which several routes may share and which has a policy.
//! A file is taken whole or not at all: what is wrong in it is told with its place, and whoever serves goes on with what it
//! has. Unknown fields are wrong, so that a slip of the pen is not a rule that silently does not hold.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    Body, Certificate, CertificateName, Environment, EnvironmentId, Epoch, Generation, Host, Invalid, LABEL_MAX_BYTES,
    Label, Object, ObjectId, OrganisationId, Policy, Route, State, Table, Term,
};

mod endpoint;
mod once;

pub use endpoint::FileEndpoint;

/// The largest table file that is read, in bytes: a million routes fit.
pub const FILE_MAX_BYTES: u64 = 512 << 20;

/// The only path a route can have, until routes have paths.
const ROOT: &str = "/";

/// What a table file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFile {
    /// Who serves what.
    pub routes: Vec<FileRoute>,
    /// What several routes may share, by name.
    #[serde(default, deserialize_with = "once::deserialize", skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<Label, FileEnvironment>,
    /// What hosts prove themselves with.
    #[serde(default)]
    pub certificates: Vec<FileCertificate>,
}

/// Requests for a host go to endpoints, its own or those of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRoute {
    /// The host, exact.
    pub host: Host,
    /// `/`.
    #[serde(default = "root")]
    pub path: String,
    /// Where instances listen, plain HTTP/1.1; at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<FileEndpoint>>,
    /// One of the file's environments, instead of endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Label>,
}

/// Who serves the routes that name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEnvironment {
    /// Where instances listen, plain HTTP/1.1; at least one.
    pub endpoints: Vec<FileEndpoint>,
    /// How its requests are to be treated.
    #[serde(default, skip_serializing_if = "Policy::is_default")]
    pub policy: Policy,
}

/// Where a host's certificate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCertificate {
    /// The host it is offered for, or `*.` and a domain for all hosts one label below it.
    pub host: CertificateName,
    /// A PEM file with the chain, leaf first; relative to the table file.
    pub chain: PathBuf,
    /// A PEM file with the private key; relative to the table file.
    pub key: PathBuf,
}

fn root() -> String {
    ROOT.to_owned()
}

/// Why a table file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is no JSON, or has other fields or types; with line and column.
    #[error("the table file cannot be read as a table")]
    Json(#[from] serde_json::Error),
    /// Two routes claim one host.
    #[error("routes[{second}]: {host} has a route already, routes[{first}]")]
    RouteTwice {
        /// The earlier route, counted from 0.
        first: usize,
        /// The later one.
        second: usize,
        /// The host of both.
        host: Host,
    },
    /// A path other than `/`.
    #[error("routes[{at}]: a route's path is \"/\", not {path:?}: routes by path are not there yet")]
    Path {
        /// Which route, counted from 0.
        at: usize,
        /// What it has.
        path: String,
    },
    /// Nobody can be served by that.
    #[error("routes[{at}]: the endpoints of {host} cannot be used")]
    Route {
        /// Which route, counted from 0.
        at: usize,
        /// Its host.
        host: Host,
        /// Why.
        #[source]
        invalid: Invalid,
    },
    /// Nobody, or two, to be served by.
    #[error("routes[{at}]: the route of {host} has either \"endpoints\" or an \"environment\"")]
    OneTarget {
        /// Which route, counted from 0.
        at: usize,
        /// Its host.
        host: Host,
    },
    /// It names what is not there.
    #[error("routes[{at}]: there is no environment {environment:?} for {host}", environment = environment.as_str())]
    NoEnvironment {
        /// Which route, counted from 0.
        at: usize,
        /// Its host.
        host: Host,
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

impl TableFile {
    /// Reads a file's text, and checks it whole.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let file: Self = serde_json::from_str(text)?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), FileError> {
        for (name, environment) in &self.environments {
            let checked = environment.named(name, Epoch(0)).check();
            checked.map_err(|invalid| FileError::Environment { name: name.clone(), invalid })?;
        }
        let mut hosts = BTreeMap::new();
        for (at, route) in self.routes.iter().enumerate() {
            let host = || route.host.clone();
            if route.path != ROOT {
                return Err(FileError::Path { at, path: route.path.clone() });
            }
            if let Some(first) = hosts.insert(&route.host, at) {
                return Err(FileError::RouteTwice { first, second: at, host: host() });
            }
            match (&route.endpoints, &route.environment) {
                (Some(endpoints), None) => {
                    let own = route.own(endpoints, Epoch(0));
                    own.check().map_err(|invalid| FileError::Route { at, host: host(), invalid })?;
                }
                (None, Some(name)) if self.environments.contains_key(name) => {}
                (None, Some(name)) => {
                    return Err(FileError::NoEnvironment { at, host: host(), environment: name.clone() });
                }
                _ => return Err(FileError::OneTarget { at, host: host() }),
            }
        }
        let mut hosts = BTreeMap::new();
        for (at, certificate) in self.certificates.iter().enumerate() {
            if let Some(first) = hosts.insert(&certificate.host, at) {
                return Err(FileError::CertificateTwice { first, second: at, host: certificate.host.clone() });
            }
        }
        Ok(())
    }

    /// The table that follows on `previous` and says what this file does, with these certificates. Objects that did not
    /// change keep their versions; an environment whose endpoints did gets the next epoch.
    pub fn table(&self, previous: &Table, certificates: Vec<Certificate>) -> Table {
        let generation = Generation(previous.generation.0 + 1);
        let mut table = Table { term: Term(1), generation, objects: BTreeMap::new() };
        let named = self.environments.iter().map(|(name, environment)| environment.named(name, Epoch(0)));
        let own = self.routes.iter().filter_map(|route| Some(route.own(route.endpoints.as_ref()?, Epoch(0))));
        let environments = named.chain(own).map(|mut environment| {
            environment.epoch = next_epoch(previous, &environment);
            Body::Environment(Box::new(environment))
        });
        let routes = self
            .routes
            .iter()
            .map(|route| Body::Route(Route { host: route.host.clone(), environment: route.environment_id() }));
        let certificates = certificates.into_iter().map(Body::Certificate);
        for body in environments.chain(routes).chain(certificates) {
            let mut object = Object { version: generation, organisation: OrganisationId::new("file"), body };
            let id = object.id();
            if let Some(before) = previous.objects.get(&id).filter(|before| before.body == object.body) {
                object.version = before.version;
            }
            table.objects.insert(id, object);
        }
        table
    }
}

impl FileRoute {
    /// Of its endpoints it has an environment of its own, whose id is no name that an environment can have.
    fn environment_id(&self) -> EnvironmentId {
        match &self.environment {
            Some(name) => EnvironmentId::new(name.as_str()),
            None => EnvironmentId::new(format!("{}{}", self.host, self.path)),
        }
    }

    fn own(&self, endpoints: &[FileEndpoint], epoch: Epoch) -> Environment {
        environment(self.environment_id(), app(&self.host), endpoints, epoch)
    }
}

impl FileEnvironment {
    fn named(&self, name: &Label, epoch: Epoch) -> Environment {
        let environment = environment(EnvironmentId::new(name.as_str()), name.clone(), &self.endpoints, epoch);
        Environment { policy: self.policy.clone(), ..environment }
    }
}

fn environment(id: EnvironmentId, app: Label, endpoints: &[FileEndpoint], epoch: Epoch) -> Environment {
    Environment {
        id,
        app,
        name: label("file"),
        deployment: 0,
        state: State::Ready,
        epoch,
        endpoints: endpoints.iter().map(FileEndpoint::endpoint).collect(),
        policy: Policy::default(),
    }
}

fn next_epoch(previous: &Table, environment: &Environment) -> Epoch {
    match previous.objects.get(&ObjectId::Environment(environment.id.clone())).map(|object| &object.body) {
        Some(Body::Environment(before)) if before.endpoints == environment.endpoints => before.epoch,
        Some(Body::Environment(before)) => Epoch(before.epoch.0 + 1),
        _ => Epoch(1),
    }
}

/// A name for records, as near to the host as a label can be.
fn app(host: &Host) -> Label {
    let plain = |byte: u8| if byte.is_ascii_lowercase() || byte.is_ascii_digit() { byte as char } else { '-' };
    let text: String = host.as_str().bytes().take(LABEL_MAX_BYTES).map(plain).collect();
    text.trim_matches('-').parse().unwrap_or_else(|_| label("file"))
}

fn label(text: &'static str) -> Label {
    text.parse().expect("it is spelt as a label")
}

#[cfg(test)]
mod tests;
