//! The table: everything an edge needs to serve, as whole objects that each carry their own version.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Base, CertificateName, EnvironmentId, Epoch, Gap, Generation, HostPattern, InstanceId, Label, OrganisationId,
    Policy, Rejected, Route, RouteError, Term, Update,
};

/// What an object is called; unique in a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectId {
    /// The routes of a host, or of several.
    Route(HostPattern),
    /// The cell of an environment.
    Environment(EnvironmentId),
    /// The certificate of a host, or of all hosts below a domain.
    Certificate(CertificateName),
}

/// One whole object of the table. It replaces its older version entirely; there are no patches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// The generation in which this version was published.
    pub version: Generation,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// What it says.
    pub body: Body,
}

/// The content of an [`Object`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// Where a host's requests go.
    Route(Route),
    /// How an environment is to be served now. Boxed, so that the many routes of a table are not as large.
    Environment(Box<Environment>),
    /// What a host proves itself with.
    Certificate(Certificate),
}

/// An environment's cell: state, endpoints and policy. Read anew at every choice of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// The application's name, for records and pages.
    pub app: Label,
    /// The environment's name, for records and pages.
    pub name: Label,
    /// The number of the deployment that the endpoints run; 0 before the first.
    pub deployment: u64,
    /// How requests are to be treated.
    pub state: State,
    /// Rises with every change of `endpoints`.
    pub epoch: Epoch,
    /// Where instances listen; offered to requests only while `Ready`.
    pub endpoints: Vec<Endpoint>,
    /// How its requests are to be treated.
    #[serde(default, skip_serializing_if = "Policy::is_default")]
    pub policy: Policy,
}

/// What an environment's requests meet. The moves between the states are the control plane's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// Requests go to the endpoints.
    Ready,
    /// About to sleep: new requests are held and reported as wanted, running ones finish.
    Closing,
    /// Stopped: requests are held and reported as wanted.
    Asleep,
    /// Being started: requests are held.
    Waking,
    /// Could not be started: requests are refused at once, and reported as wanted.
    Failed {
        /// When the control plane tries again, counted from the publication.
        #[serde(with = "crate::millis")]
        retry_in: Duration,
    },
    /// Nothing was ever deployed: requests are refused.
    Empty,
}

/// Where an instance listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which instance.
    pub instance: InstanceId,
    /// Its address and port, without TLS.
    pub address: SocketAddr,
    /// Its share of the requests, beside the weights of the others; with 0 it gets one only if nobody else can.
    #[serde(default = "weight", skip_serializing_if = "is_usual")]
    pub weight: u16,
    /// What it belongs to, where a policy tells endpoints apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Label>,
}

/// The usual weight of an endpoint.
pub(crate) const WEIGHT: u16 = 1;

fn weight() -> u16 {
    WEIGHT
}

fn is_usual(weight: &u16) -> bool {
    *weight == WEIGHT
}

impl Endpoint {
    /// One like any other.
    pub fn new(instance: InstanceId, address: SocketAddr) -> Self {
        Self { instance, address, weight: WEIGHT, group: None }
    }
}

/// What a host proves itself with, as bytes: an edge parses it when it is first needed. Copies share the bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What it is offered for.
    pub host: CertificateName,
    /// The chain, leaf first, PEM.
    pub chain: Arc<str>,
    /// The private key, PEM (PKCS #8).
    pub key: Arc<str>,
}

/// Never shows the key: cells and updates are logged.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Why an object is refused, in words for its owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Requests would have nowhere to go.
    #[error("a ready environment has at least one endpoint")]
    NoEndpoint,
    /// Two endpoints claim to be one instance.
    #[error("instance {0} is listed twice")]
    InstanceTwice(InstanceId),
    /// An endpoint that no instance can have: port 0, or an unspecified or multicast address.
    #[error("{0} is no address an instance can listen on")]
    Address(SocketAddr),
    /// A policy that nobody can be served by.
    #[error(transparent)]
    Policy(#[from] crate::policy::PolicyError),
    /// A canary that nobody can be one of.
    #[error("policy.balance: a canary has a group or instances")]
    CanaryOfNobody,
    /// A route that contradicts itself.
    #[error(transparent)]
    Route(#[from] RouteError),
}

impl Object {
    /// What it is called.
    pub fn id(&self) -> ObjectId {
        match &self.body {
            Body::Route(route) => ObjectId::Route(route.host.clone()),
            Body::Environment(environment) => ObjectId::Environment(environment.id.clone()),
            Body::Certificate(certificate) => ObjectId::Certificate(certificate.host.clone()),
        }
    }

    /// Whether an edge may serve by it. The control plane asks before it publishes, the edge before it applies.
    pub fn check(&self) -> Result<(), Invalid> {
        match &self.body {
            Body::Environment(environment) => environment.check(),
            Body::Route(route) => Ok(route.check()?),
            Body::Certificate(_) => Ok(()),
        }
    }
}

impl Environment {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        if self.state == State::Ready && self.endpoints.is_empty() {
            return Err(Invalid::NoEndpoint);
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let address = endpoint.address;
            if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
                return Err(Invalid::Address(address));
            }
            if self.endpoints[..index].iter().any(|other| other.instance == endpoint.instance) {
                return Err(Invalid::InstanceTwice(endpoint.instance.clone()));
            }
        }
        self.policy.check()
    }
}

/// A table at a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Of the control plane that published it.
    pub term: Term,
    /// The last one applied.
    pub generation: Generation,
    /// By name.
    pub objects: BTreeMap<ObjectId, Object>,
}

impl Table {
    /// [`Table::apply_if`] with no more rules.
    pub fn apply(&mut self, update: Update) -> Result<Vec<Rejected>, Gap> {
        self.apply_if(update, |_, _| Ok(()))
    }

    /// Brings the table to the update's generation, where `fits` accepts an object and [`Object::check`], too; it is shown the
    /// object and its previous version. A bad object is refused alone and its previous version stays; an update
    /// that does not follow on this table changes nothing.
    pub fn apply_if(
        &mut self,
        update: Update,
        mut fits: impl FnMut(&Object, Option<&Object>) -> Result<(), String>,
    ) -> Result<Vec<Rejected>, Gap> {
        update.follows(self.term, self.generation)?;
        let mut rejected = Vec::new();
        if update.base == Base::Snapshot {
            let offered: std::collections::BTreeSet<_> = update.put.iter().map(Object::id).collect();
            self.objects.retain(|id, _| offered.contains(id));
        }
        for id in &update.remove {
            self.objects.remove(id);
        }
        for object in update.put {
            let id = object.id();
            let fit = object.check().map_err(|invalid| invalid.to_string());
            match fit.and_then(|()| fits(&object, self.objects.get(&id))) {
                Ok(()) => {
                    self.objects.insert(id, object);
                }
                Err(reason) => rejected.push(Rejected { id, version: object.version, reason }),
            }
        }
        self.term = update.term;
        self.generation = update.generation;
        Ok(rejected)
    }

    /// The update that brings a table equal to `self` to `newer`.
    pub fn diff(&self, newer: &Self) -> Update {
        let put = newer.objects.iter().filter(|(id, object)| self.objects.get(id) != Some(object));
        let remove = self.objects.keys().filter(|id| !newer.objects.contains_key(id));
        Update {
            term: newer.term,
            generation: newer.generation,
            base: Base::Since(self.generation),
            put: put.map(|(_, object)| object.clone()).collect(),
            remove: remove.cloned().collect(),
        }
    }

    /// The whole table as one update, for an edge that knows nothing or has lost its place.
    pub fn snapshot(&self) -> Update {
        Update {
            term: self.term,
            generation: self.generation,
            base: Base::Snapshot,
            put: self.objects.values().cloned().collect(),
            remove: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
