//! The words both halves of Dormouse use.
//!
//! State goes down, signals go up: the control plane sends an edge [`Update`]s of the [`Table`] it should serve, the edge
//! sends [`Report`]s of what it applied and saw. Nothing here does IO, reads a clock, or is async; the control plane
//! validates an object with the very code the edge applies it with.

mod fields;
mod file;
mod host;
mod message;
mod millis;
mod name;
mod network;
mod object;
mod once;
pub mod path;
pub mod policy;
mod route;
mod table;

pub use fields::{canonical, canonical_eq, is_disguise, is_reserved_for_proxies, is_token};
pub use file::{FILE_MAX_BYTES, FileCertificate, FileEndpoint, FileEnvironment, FileError, FileRoute, TableFile};
pub use host::{CertificateName, Covers, HOST_MAX_BYTES, Host, HostError, HostPattern, normalise_authority};
pub use message::{Base, Gap, Rejected, Report, Seen, Update, Wanted};
pub use name::{
    EnvironmentId, Epoch, Generation, InstanceId, LABEL_MAX_BYTES, Label, LabelError, OrganisationId, Term,
};
pub use network::{Network, NetworkError, masked_v6};
pub use path::{PATH_MAX_BYTES, PathError, RoutePath};
pub use policy::{
    Balance, By, Canary, FIELD_TOKEN_MAX_BYTES, FieldToken, FieldTokenError, IdleSeconds, IdleSecondsError, Percent,
    PercentError, Policy, Pool, Sign, UpstreamProtocol,
};
pub use route::{
    Action, Asked, EDITS_MAX, EDITS_MAX_BYTES, EditError, Edits, FIELDS_MAX, FieldMatch, FieldName, Forward, Found,
    Hsts, Https, MethodName, PathMatch, RULES_MAX, Redirect, RedirectError, RedirectStatus, Route, RouteError, Rule,
    RuleError, Scheme, To, ToHttps, When,
};
pub use table::{Body, Certificate, Endpoint, Environment, Invalid, Object, ObjectId, State, Table};
