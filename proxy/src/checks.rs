//! What a request has to pass before it may wake anybody or reach an instance: shared by both lanes, in one fixed order.
//!
//! networks → rates → maintenance → `robots.txt` → password → another's word → `favicon.ico` → concurrency; then the pause and
//! the wake ([`crate::wake`]). Body sizes are *decided*, before all of it. The front calls [`pass`] where the environment's
//! policy asks for any of it; where it does not, that costs one look at a pointer. No type of a lane is in here.
//!
//! What is counted and remembered lives as long as the policy's sections stay as they are, through deployments, sleeps and
//! wakes; who is running is counted through every change.

mod asking;
mod basic;
mod concurrency;
pub(crate) mod forward_auth;
mod rates;
mod robots;
mod rule;
mod times;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dormouse_link::Network;
use dormouse_link::policy::{Access, Authorization, Limits, Maintenance, Policy};
use http::HeaderMap;

use crate::decide::granted::Granted;
use crate::decide::refuse::Reason;
use crate::edge::Edge;
use crate::exchange::Exchange;
use crate::front::head::Head;
use crate::lane::answer::Answer;
use crate::wake::NotAdmitted;

pub(crate) use asking::Asker;
pub(crate) use basic::Verifier;
pub(crate) use rule::RuleLimits;
pub(crate) use times::Times;

use basic::Basic;
use concurrency::{Running, Slot};
use forward_auth::Authority;
use rates::Rates;

/// The checks of an environment, made from its policy by the feed.
#[derive(Debug)]
pub(crate) struct Checks {
    limits: Option<Box<Limits>>,
    access: Option<Box<Access>>,
    maintenance: Option<Box<Maintenance>>,
    rates: Arc<Rates>,
    running: Arc<Running>,
    basic: Option<Arc<Basic>>,
    authority: Option<Authority>,
}

/// What passing gave a request; it has its place among those that run until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    _slots: [Option<Slot>; 2],
    pub(crate) granted: Granted,
}

/// Why a request did not pass, or did not get an endpoint.
#[derive(Debug)]
pub(crate) enum NotPassed {
    /// It is to be told this.
    Refused(Reason),
    /// It is to be told something that is no refusal of ours, which records call by this name.
    Answered(&'static str, Box<Answer>),
    /// There is nobody to tell any more.
    Left,
}

impl From<NotAdmitted> for NotPassed {
    fn from(not: NotAdmitted) -> Self {
        match not {
            NotAdmitted::Refused(reason) => Self::Refused(reason),
            NotAdmitted::Left => Self::Left,
        }
    }
}

impl From<Reason> for NotPassed {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

impl Checks {
    /// Those of a policy, which replace `before`; none where it asks for nothing, and the same where it asks for the same.
    pub(crate) fn next(policy: &Policy, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let Policy { limits, access, maintenance, .. } = policy;
        if limits.is_none() && access.is_none() && maintenance.is_none() {
            return None;
        }
        if let Some(same) = before
            .filter(|before| (&before.limits, &before.access, &before.maintenance) == (limits, access, maintenance))
        {
            return Some(Arc::clone(same));
        }
        let rates =
            before.filter(|before| before.rates.are_of(limits.as_deref())).map(|before| Arc::clone(&before.rates));
        let basic = access.as_ref().and_then(|access| access.basic.as_ref());
        let known = before.and_then(|before| before.basic.as_ref()).filter(|known| Some(known.policy()) == basic);
        Some(Arc::new(Self {
            rates: rates.unwrap_or_else(|| Arc::new(Rates::new(limits.as_deref()))),
            running: before.map(|before| Arc::clone(&before.running)).unwrap_or_default(),
            basic: known.cloned().or_else(|| Some(Arc::new(Basic::new(basic?.clone())))),
            authority: access.as_ref().and_then(|access| access.forward_auth.clone()).map(Authority::new),
            limits: limits.clone(),
            access: access.clone(),
            maintenance: maintenance.clone(),
        }))
    }

    /// Whether they look at the fields of a request.
    pub(crate) fn read_fields(&self) -> bool {
        self.basic.is_some() || self.authority.is_some()
    }

    /// The largest body.
    pub(crate) fn body_bytes(&self) -> Option<u64> {
        self.limits.as_ref()?.body_bytes
    }

    /// Whether search engines are to stay away.
    pub(crate) fn forbid_indexing(&self) -> bool {
        self.access.as_ref().is_some_and(|access| !access.is_indexed())
    }

    /// How whoever has no password is asked for it.
    pub(crate) fn challenge(&self) -> Option<String> {
        self.basic.as_ref().map(|basic| basic.challenge())
    }

    fn networks(&self, client: Option<IpAddr>) -> Result<(), Reason> {
        let Some(access) = &self.access else { return Ok(()) };
        let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(client));
        if is_in(&access.deny) || !(access.allow.is_empty() || is_in(&access.allow)) {
            return Err(Reason::Denied);
        }
        Ok(())
    }

    fn maintenance(&self, client: Option<IpAddr>) -> Result<(), Reason> {
        match &self.maintenance {
            Some(maintenance) if !maintenance.allow.iter().any(|network| network.contains(client)) => {
                let retry_after = Duration::from_secs(maintenance.retry_after_seconds.get().into());
                Err(Reason::Maintenance { retry_after })
            }
            _ => Ok(()),
        }
    }
}

/// How long a request's parts may take, by its rule's limits, its environment's checks, and an edge's.
pub(crate) fn times(rule: Option<&RuleLimits>, checks: Option<&Checks>, limits: &crate::config::Limits) -> Times {
    Times::new([rule.map(|rule| &rule.said), checks.and_then(|checks| checks.limits.as_deref())], limits)
}

/// Has a request pass the limits of its rule and the checks that it was decided by, in order, and notes what that gave it.
/// `fields` are the request's, if any check reads them; `left` resolves when the client is gone.
///
/// A request that passed before, by an older policy, is not counted again for the rates.
pub(crate) async fn pass(
    edge: &Edge,
    head: &Head,
    fields: Option<&HeaderMap>,
    exchange: &mut Exchange,
    left: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Result<(), NotPassed> {
    let passed_before = exchange.pass.take().is_some();
    let (client, terms) = (exchange.facts.client, exchange.terms.clone());
    let rule = terms.as_ref().and_then(|terms| terms.limits.as_ref());
    let count = |exchange: &Exchange| match rule.filter(|_| !passed_before) {
        Some(rule) => rule.rates.count(exchange.began, client),
        None => Ok(()),
    };
    let enter = || rule.map(|rule| rule.running.enter(Some(&rule.said), client)).transpose();
    let Some(checks) = exchange.checks.clone() else {
        count(exchange)?;
        exchange.pass = Some(Box::new(Pass { _slots: [enter()?, None], granted: Granted::default() }));
        return Ok(());
    };
    checks.networks(client)?;
    count(exchange)?;
    if !passed_before {
        checks.rates.count(exchange.began, client)?;
    }
    checks.maintenance(client)?;
    if checks.forbid_indexing() {
        robots::answer(head)?;
    }
    // A policy that came after the request was read may ask for what was not kept of it.
    let fields = || fields.ok_or(NotPassed::Refused(Reason::NoEndpoint));
    let mut copied = Vec::new();
    if checks.read_fields() {
        let fields = fields()?;
        let decided = async {
            if let Some(basic) = &checks.basic {
                basic.check(&edge.verifier, client, fields).await?;
            }
            match checks.authority.as_ref().filter(|authority| !authority.is_asked_by(head)) {
                Some(authority) => authority.check(&edge.asker, head, exchange, fields).await,
                None => Ok(Vec::new()),
            }
        };
        // Cancel-safe: what is being verified or asked is worth nothing without its client.
        copied = tokio::select! {
            decided = decided => decided?,
            () = left => return Err(NotPassed::Left),
        };
    }
    if checks.forbid_indexing() && exchange.cell.as_ref().is_some_and(|cell| cell.offer().endpoints().is_empty()) {
        robots::asleep(head)?;
    }
    let _slots = [enter()?, Some(checks.running.enter(checks.limits.as_deref(), client)?)];
    let drops_authorization =
        checks.basic.as_ref().is_some_and(|basic| basic.policy().authorization == Authorization::Remove);
    exchange.pass = Some(Box::new(Pass { _slots, granted: Granted { drops_authorization, copied } }));
    Ok(())
}

#[cfg(test)]
mod tests;
