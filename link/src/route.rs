//! The routes of a host: which requests go where, as one object, so that a request reads one and a change is of one.
//!
//! Of the rules that a request meets the most specific one decides: an exact path before a prefix, a longer prefix before a
//! shorter one, then one that asks for a method, then the one that asks for more fields, then the first one written. Hosts come
//! before that: an exact one, then `*.` and a domain, then `*`, and what the most specific one does not have, nobody has.
//! A route that contradicts itself is refused whole, in words for its owner.

mod check;
mod edits;
mod form;
mod redirect;
mod when;

use serde::{Deserialize, Serialize};

use crate::policy::Limits;
use crate::{EnvironmentId, Host, HostPattern, RoutePath};

pub use check::{RULES_MAX, RouteError, RuleError};
pub use edits::{EDITS_MAX, EDITS_MAX_BYTES, EditError, Edits};
pub use redirect::{Redirect, RedirectError, RedirectStatus, Scheme};
pub use when::{Asked, FIELDS_MAX, FieldMatch, FieldName, Found, MethodName, PathMatch, When};

/// Who serves the requests for a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "form::RouteForm", into = "form::RouteForm")]
pub struct Route {
    /// The hosts it is for.
    pub host: HostPattern,
    /// What is asked of connections. Boxed, since few hosts say it.
    pub https: Option<Box<Https>>,
    /// Where requests go.
    pub to: To,
}

/// Where requests for a host go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// All to one environment, as they are.
    Environment(EnvironmentId),
    /// As the most specific rule says; in the order in which they were written.
    Rules(Vec<Rule>),
}

/// What becomes of some of a host's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "form::RuleForm", into = "form::RuleForm")]
pub struct Rule {
    /// Which ones.
    pub when: When,
    /// What becomes of them.
    pub action: Action,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes to an environment.
    Forward(Forward),
    /// Its client is sent elsewhere. This wakes nobody.
    Redirect(Box<Redirect>),
}

/// To which environment a request goes, and what is changed of it and of its answer on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Who serves it.
    pub environment: EnvironmentId,
    /// What comes in the place of the rule's path; `/` takes it away.
    pub replace_prefix: Option<RoutePath>,
    /// What comes in the place of the host.
    pub rewrite_host: Option<Host>,
    /// What is changed of the request's fields. Boxed, since few rules say it.
    pub request_headers: Option<Box<Edits>>,
    /// What is changed of the answer's.
    pub response_headers: Option<Box<Edits>>,
    /// What takes the place of the environment's, and its own rates.
    pub limits: Option<Box<Limits>>,
}

/// What a host asks of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Https {
    /// Where plain requests are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<ToHttps>,
    /// What browsers are to remember; said over HTTPS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
}

/// Plain requests are sent to the same address under HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct ToHttps {
    /// With which status.
    #[serde(default)]
    pub status: RedirectStatus,
    /// Where HTTPS is served, if not at 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Hsts {
    /// For how many seconds browsers remember it; 0 makes them forget.
    pub max_age: u32,
    /// Whether it is for all hosts below, too.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether makers of browsers may put the host on their lists.
    #[serde(default)]
    pub preload: bool,
}

crate::object::only!(Https, ToHttps, Hsts);

impl Hsts {
    /// The field's value.
    pub fn value(&self) -> String {
        let below = if self.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        format!("max-age={}{below}{preload}", self.max_age)
    }
}

impl Route {
    /// A route of which all requests go to one environment.
    pub fn new(host: impl Into<HostPattern>, environment: EnvironmentId) -> Self {
        Self { host: host.into(), https: None, to: To::Environment(environment) }
    }

    /// Every environment that it names; some perhaps more than once.
    pub fn environments(&self) -> impl Iterator<Item = &EnvironmentId> {
        let (one, rules) = match &self.to {
            To::Environment(id) => (Some(id), &[][..]),
            To::Rules(rules) => (None, &rules[..]),
        };
        one.into_iter().chain(rules.iter().filter_map(|rule| match &rule.action {
            Action::Forward(forward) => Some(&forward.environment),
            Action::Redirect(_) => None,
        }))
    }
}

impl Forward {
    /// As requests are.
    pub fn new(environment: EnvironmentId) -> Self {
        Self {
            environment,
            replace_prefix: None,
            rewrite_host: None,
            request_headers: None,
            response_headers: None,
            limits: None,
        }
    }

    /// Whether it only says where requests go.
    pub(crate) fn changes_nothing(&self) -> bool {
        let Self { environment: _, replace_prefix, rewrite_host, request_headers, response_headers, limits } = self;
        replace_prefix.is_none()
            && rewrite_host.is_none()
            && request_headers.is_none()
            && response_headers.is_none()
            && limits.is_none()
    }
}

impl To {
    /// The places of the rules, the most specific one first.
    pub fn order(rules: &[Rule]) -> Vec<usize> {
        let mut order: Vec<_> = (0..rules.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(rules[at].when.specificity()));
        order
    }
}

#[cfg(test)]
mod tests;
