//! What is to become of a request: pure, from its head, its connection and the table.
//!
//! In this order: is the host known, may this connection ask for it, is the path ours, is the host served over HTTPS only, and
//! which rule does the request meet. Whatever is answered here, neither wakes nor reaches anybody.

pub(crate) mod compress;
pub(crate) mod edits;
pub(crate) mod fields;
pub(crate) mod forwarded;
pub(crate) mod granted;
pub(crate) mod headers;
pub(crate) mod location;
pub(crate) mod pages;
pub(crate) mod paths;
pub(crate) mod refuse;
pub(crate) mod response;
pub(crate) mod trace;
pub(crate) mod via;

use std::sync::Arc;

use dormouse_link::{Asked, Found, RoutePath};
use http::HeaderValue;

use crate::front::fence::Framing;
use crate::front::head::Head;
use crate::front::tls::CertificateId;
use crate::live::cell::Cell;
use crate::live::sites::{Leads, Site, SiteAction, SiteRule, Sites};
use crate::live::terms::Terms;
use headers::{Facts, Scheme};
use location::Location;
use paths::{Ambiguous, Paths};
use refuse::Reason;

/// A request, as far as it decides.
pub(crate) struct Request<'a, 'h> {
    pub(crate) head: &'a Head,
    pub(crate) facts: &'a Facts,
    pub(crate) proof: Option<&'a Proof<'a>>,
    /// Where a policy does not say it.
    pub(crate) body_max: u64,
    /// Looks for a header field by its lower-case name.
    pub(crate) field: &'a dyn Fn(&str) -> Found<'h>,
}

/// What is to become of a request, and what its answer says in any case.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) outcome: Outcome,
    /// `Strict-Transport-Security`.
    pub(crate) hsts: Option<HeaderValue>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// It goes to an environment.
    Route(Routed),
    /// Its client is sent elsewhere.
    Redirect(Reason, String),
    /// It is answered here.
    Answer(Reason),
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) cell: Arc<Cell>,
    pub(crate) rewritten: Option<Box<Rewritten>>,
    /// What its rule says beside that.
    pub(crate) terms: Option<Arc<Terms>>,
}

/// What an instance gets instead of what the client sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// Path and query.
    pub(crate) target: Option<String>,
    pub(crate) host: Option<HeaderValue>,
}

/// Who a TLS client was told that it speaks to, and who would have been named to it for another host.
pub(crate) struct Proof<'a> {
    pub(crate) name: &'a str,
    pub(crate) certificate: CertificateId,
    pub(crate) instead: &'a dyn Fn(&str) -> Option<CertificateId>,
}

impl Proof<'_> {
    /// Whether `host` would have proved itself otherwise: browsers use a connection for every host that its certificate names
    /// (RFC 9113 section 9.1.1), and one tenant's must not carry another's requests. A connection's own name is never
    /// misdirected: its certificate may have been renewed since.
    fn is_anothers(&self, host: &str) -> bool {
        host != self.name && (self.instead)(host) != Some(self.certificate)
    }
}

/// Decides.
pub(crate) fn decide(request: &Request<'_, '_>, sites: &Sites) -> Decision {
    let name = request.head.name.as_str();
    let unknown = || Decision { outcome: Outcome::Answer(Reason::UnknownHost), hsts: None };
    if name.is_empty() {
        // HTTP/1.0 only. What names no host is not even for those that no other site is for.
        return unknown();
    }
    sites.with(name, |site| {
        let Some(site) = site else { return unknown() };
        let https = site.https.as_deref().filter(|_| request.facts.scheme == Scheme::Https);
        let hsts = https.and_then(|https| https.hsts.clone());
        Decision { outcome: of_site(request, site).unwrap_or_else(Outcome::Answer), hsts }
    })
}

fn of_site(request: &Request<'_, '_>, site: &Site) -> Result<Outcome, Reason> {
    let head = request.head;
    if request.proof.is_some_and(|proof| proof.is_anothers(head.name.as_str())) {
        return Err(Reason::Misdirected);
    }
    let paths = Paths::of(head.path());
    if paths.reserved()? {
        return Err(Reason::Reserved);
    }
    let https = site.https.as_deref().filter(|_| request.facts.scheme == Scheme::Http);
    if let Some(to) = https.and_then(|https| https.redirect) {
        return redirect(request, Location::https(head.name.as_str(), to), to.status, head.target.as_str());
    }
    match &site.leads {
        Leads::ToOne(cell) => route(request, Routed { cell: Arc::clone(cell), rewritten: None, terms: None }),
        Leads::ByRules(rules) => by_rules(request, rules, &paths),
    }
}

/// By the rule that every reading of the path leads to: what an instance makes of a path must not be another rule's.
fn by_rules(request: &Request<'_, '_>, rules: &[SiteRule], paths: &Paths<'_>) -> Result<Outcome, Reason> {
    let head = request.head;
    let rule = paths.agreed(|path| {
        let asked = Asked { path, method: head.method.as_str(), field: request.field };
        rules.iter().position(|rule| rule.when.is_met(&asked))
    })?;
    let rule = &rules[rule.ok_or(Reason::NoRoute)?];
    let replaced = |by: &Option<RoutePath>| {
        let Some(by) = by else { return Ok(None) };
        let path = paths.replaced(rule.when.path.as_str(), by.as_str())?;
        let query = head.target.find('?').map_or("", |at| &head.target[at..]);
        Ok::<_, Ambiguous>(Some(path + query))
    };
    match &rule.action {
        SiteAction::Forward(to) => {
            let target = if head.target == "*" { None } else { replaced(&to.replace_prefix)? };
            let rewritten = Rewritten { target, host: to.host.clone() };
            let rewritten = (rewritten != Rewritten::default()).then(|| Box::new(rewritten));
            route(request, Routed { cell: Arc::clone(&to.cell), rewritten, terms: to.terms.clone() })
        }
        SiteAction::Redirect(to) => {
            let target = match &to.path {
                Some(path) => Some([path.as_str(), head.target.find('?').map_or("", |at| &head.target[at..])].concat()),
                None => replaced(&to.replace_prefix)?,
            };
            let location = Location::of(to, head.name.as_str(), request.facts);
            redirect(request, location, to.status, target.as_deref().unwrap_or(&head.target))
        }
    }
}

fn route(request: &Request<'_, '_>, to: Routed) -> Result<Outcome, Reason> {
    if request.head.hops > via::HOPS_MAX {
        return Err(Reason::Loop);
    }
    if let Framing::Length(length) = request.head.framing {
        let own = to.terms.as_ref().and_then(|terms| terms.limits.as_ref()?.body_bytes());
        if length > own.unwrap_or_else(|| to.cell.body_max(request.body_max)) {
            return Err(Reason::BodyTooLarge);
        }
    }
    Ok(Outcome::Route(to))
}

fn redirect(
    request: &Request<'_, '_>,
    to: Location<'_>,
    status: dormouse_link::RedirectStatus,
    target: &str,
) -> Result<Outcome, Reason> {
    let location = to.text(target);
    if location == Location::own(request.head.name.as_str(), request.facts).text(&request.head.target) {
        return Err(Reason::RedirectCircle);
    }
    Ok(Outcome::Redirect(Reason::Redirect(status), location))
}

#[cfg(test)]
mod tests;
