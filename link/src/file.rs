//! The table file: routes written by hand or by a program, for an edge that has no control plane.
//!
//! ```json
//! {"routes": [{"host": "a.example.com", "endpoints": ["127.0.0.1:9001"]}],
//!  "certificates": [{"host": "a.example.com", "chain": "a.pem", "key": "a.key"}]}
//! ```
//!
//! A route names its own endpoints, or one of the file's `environments`, which several routes may share and which has a policy;
//! or it sends clients elsewhere. The routes of one host become one object of the table.
//!
//! A file is taken whole or not at all: what is wrong in it is told with its place, and whoever serves goes on with what it
//! has. Unknown fields are wrong, so that a slip of the pen is not a rule that silently does not hold.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::policy::{Limits, Page};
use crate::{
    Action, Body, Certificate, CertificateName, Edits, Environment, EnvironmentId, Epoch, FieldMatch, Forward,
    Generation, Host, HostPattern, Https, LABEL_MAX_BYTES, Label, MethodName, Object, ObjectId, OrganisationId,
    PathMatch, Policy, Redirect, Route, RoutePath, Rule, State, Table, Term, To, When, once,
};

mod endpoint;
mod error;

pub use endpoint::FileEndpoint;
pub use error::FileError;

/// The largest table file that is read, in bytes: a million routes fit.
pub const FILE_MAX_BYTES: u64 = 512 << 20;

/// What a table file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct TableFile {
    /// Who serves what.
    pub routes: Vec<FileRoute>,
    /// What hosts ask of connections.
    #[serde(default, deserialize_with = "once::deserialize", skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<HostPattern, FileHost>,
    /// What several routes may share, by name.
    #[serde(default, deserialize_with = "once::deserialize", skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<Label, FileEnvironment>,
    /// What hosts prove themselves with.
    #[serde(default)]
    pub certificates: Vec<FileCertificate>,
}

/// Requests for a host go to endpoints, its own or those of an environment, or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct FileRoute {
    /// The host; `*.` and a domain for hosts one label below it; `*` for the rest.
    pub host: HostPattern,
    /// The path, normally with all that is below it.
    #[serde(default)]
    pub path: RoutePath,
    /// Whether all below the path belongs to it.
    #[serde(default, rename = "match")]
    pub matching: PathMatch,
    /// The method, if only for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodName>,
    /// What a request's head has to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<FieldMatch>,
    /// Where instances listen, plain HTTP/1.1; at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<FileEndpoint>>,
    /// One of the file's environments, instead of endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Label>,
    /// Where clients are sent, instead of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Box<Redirect>>,
    /// What comes in the place of the route's path; `/` takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_prefix: Option<RoutePath>,
    /// What comes in the place of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite_host: Option<Host>,
    /// What is changed of requests' fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Box<Edits>>,
    /// What is changed of answers' fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Box<Edits>>,
    /// What takes the place of the environment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<Limits>>,
}

/// What a host asks of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct FileHost {
    /// About HTTPS.
    #[serde(default)]
    pub https: Https,
}

/// Who serves the routes that name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct FileEnvironment {
    /// Where instances listen, plain HTTP/1.1; at least one.
    pub endpoints: Vec<FileEndpoint>,
    /// How its requests are to be treated.
    #[serde(default, skip_serializing_if = "Policy::is_default")]
    pub policy: Policy,
}

/// Where a host's certificate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct FileCertificate {
    /// The host it is offered for, or `*.` and a domain for all hosts one label below it.
    pub host: CertificateName,
    /// A PEM file with the chain, leaf first; relative to the table file.
    pub chain: PathBuf,
    /// A PEM file with the private key; relative to the table file.
    pub key: PathBuf,
}

crate::object::only!(TableFile, FileRoute, FileHost, FileEnvironment, FileCertificate);

impl TableFile {
    /// Reads a file's text, and checks it whole.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let file: Self = serde_json::from_str(text)?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), FileError> {
        for (name, environment) in &self.environments {
            let checked = environment.before_files_are_read(name).check();
            checked.map_err(|invalid| FileError::Environment { name: name.clone(), invalid })?;
        }
        for (at, route) in self.routes.iter().enumerate() {
            route.check(at, &self.environments)?;
        }
        let by_host = self.by_host();
        for (host, routes) in &by_host {
            let checked = self.route(host, routes).check();
            checked.map_err(|wrong| FileError::of_route(host, routes, wrong))?;
        }
        if let Some(host) = self.hosts.keys().find(|host| !by_host.contains_key(host)) {
            return Err(FileError::NoRoute { host: host.clone() });
        }
        let mut names = BTreeMap::new();
        for (at, certificate) in self.certificates.iter().enumerate() {
            if let Some(first) = names.insert(&certificate.host, at) {
                return Err(FileError::CertificateTwice { first, second: at, host: certificate.host.clone() });
            }
        }
        Ok(())
    }

    /// The pages of its environments, with their places; those that are files are to be read before [`Self::table`].
    pub fn pages_mut(&mut self) -> impl Iterator<Item = (String, &mut Page)> {
        let environments = self.environments.iter_mut();
        let pages = environments.filter_map(|(name, environment)| Some((name, environment.policy.pages.as_mut()?)));
        pages.flat_map(|(name, pages)| {
            pages.named_mut().map(move |(page, at)| (format!("environments.{name}.policy.pages.{page}"), at))
        })
    }

    /// The table that follows on `previous` and says what this file does, with these certificates. Objects that did not
    /// change keep their versions; an environment whose endpoints did gets the next epoch.
    pub fn table(&self, previous: &Table, certificates: Vec<Certificate>) -> Table {
        let generation = Generation(previous.generation.0 + 1);
        let mut table = Table { term: Term(1), generation, objects: BTreeMap::new() };
        let by_host = self.by_host();
        let named = self.environments.iter().map(|(name, environment)| environment.named(name));
        let own = by_host.values().flatten().filter_map(|(at, id)| self.routes[*at].own(id.clone()));
        let environments = named.chain(own).map(|mut environment| {
            environment.epoch = next_epoch(previous, &environment);
            Body::Environment(Box::new(environment))
        });
        let routes = by_host.iter().map(|(host, routes)| Body::Route(self.route(host, routes)));
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

    /// The places of each host's routes, and the environment each would go to.
    fn by_host(&self) -> ByHost<'_> {
        let mut by_host = ByHost::new();
        for (at, route) in self.routes.iter().enumerate() {
            let routes = by_host.entry(&route.host).or_default();
            let id = match &route.environment {
                Some(name) => EnvironmentId::new(name.as_str()),
                // No name of an environment has a slash in it.
                None => match routes.iter().filter(|(other, _)| self.routes[*other].path == route.path).count() {
                    0 => EnvironmentId::new(format!("{}{}", route.host, route.path)),
                    count => EnvironmentId::new(format!("{}{}#{count}", route.host, route.path)),
                },
            };
            routes.push((at, id));
        }
        by_host
    }

    fn route(&self, host: &HostPattern, routes: &[(usize, EnvironmentId)]) -> Route {
        let rules: Vec<_> = routes.iter().map(|(at, id)| self.routes[*at].rule(id.clone())).collect();
        let to = match &rules[..] {
            [Rule { when, action: Action::Forward(forward) }]
                if *when == When::default() && forward.changes_nothing() =>
            {
                To::Environment(forward.environment.clone())
            }
            _ => To::Rules(rules),
        };
        let https = self.hosts.get(host).map(|host| &host.https).filter(|https| **https != Https::default());
        Route { host: host.clone(), https: https.cloned().map(Box::new), to }
    }
}

type ByHost<'f> = BTreeMap<&'f HostPattern, Vec<(usize, EnvironmentId)>>;

impl FileRoute {
    fn check(&self, at: usize, environments: &BTreeMap<Label, FileEnvironment>) -> Result<(), FileError> {
        let host = || self.host.clone();
        match (&self.endpoints, &self.environment, &self.redirect) {
            (Some(_), None, None) => {
                let own = self.own(EnvironmentId::new("")).map_or(Ok(()), |own| own.check());
                own.map_err(|invalid| FileError::Route { at, host: host(), invalid })
            }
            (None, Some(name), None) if environments.contains_key(name) => Ok(()),
            (None, Some(name), None) => Err(FileError::NoEnvironment { at, host: host(), environment: name.clone() }),
            (None, None, Some(_)) if !self.forward(EnvironmentId::new("")).changes_nothing() => {
                Err(FileError::RewritesRedirect { at, host: host() })
            }
            (None, None, Some(_)) => Ok(()),
            _ => Err(FileError::OneTarget { at, host: host() }),
        }
    }

    fn rule(&self, environment: EnvironmentId) -> Rule {
        let when = When {
            path: self.path.clone(),
            matching: self.matching,
            method: self.method.clone(),
            fields: self.headers.clone(),
        };
        let action = match &self.redirect {
            Some(redirect) => Action::Redirect(redirect.clone()),
            None => Action::Forward(self.forward(environment)),
        };
        Rule { when, action }
    }

    fn forward(&self, environment: EnvironmentId) -> Forward {
        Forward {
            environment,
            replace_prefix: self.replace_prefix.clone(),
            rewrite_host: self.rewrite_host.clone(),
            request_headers: self.request_headers.clone(),
            response_headers: self.response_headers.clone(),
            limits: self.limits.clone(),
        }
    }

    /// The environment of its own that a route with endpoints has.
    fn own(&self, id: EnvironmentId) -> Option<Environment> {
        Some(environment(id, app(&self.host), self.endpoints.as_ref()?))
    }
}

impl FileEnvironment {
    fn named(&self, name: &Label) -> Environment {
        let environment = environment(EnvironmentId::new(name.as_str()), name.clone(), &self.endpoints);
        Environment { policy: self.policy.clone(), ..environment }
    }

    /// What can be checked before its files are read.
    fn before_files_are_read(&self, name: &Label) -> Environment {
        let mut environment = self.named(name);
        if let Some(pages) = environment.policy.pages.take() {
            environment.policy.pages = Some(Box::new(pages.without_files()));
        }
        environment
    }
}

fn environment(id: EnvironmentId, app: Label, endpoints: &[FileEndpoint]) -> Environment {
    Environment {
        id,
        app,
        name: label("file"),
        deployment: 0,
        state: State::Ready,
        epoch: Epoch(0),
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
fn app(host: &HostPattern) -> Label {
    let plain = |byte: u8| if byte.is_ascii_lowercase() || byte.is_ascii_digit() { byte as char } else { '-' };
    let text: String = host.as_str().bytes().take(LABEL_MAX_BYTES).map(plain).collect();
    text.trim_matches('-').parse().unwrap_or_else(|_| label("file"))
}

fn label(text: &'static str) -> Label {
    text.parse().expect("it is spelt as a label")
}

#[cfg(test)]
mod tests;
