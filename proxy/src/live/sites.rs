//! Host → what becomes of its requests, as they are decided: the routes of the table with their cells at hand.
//!
//! A request reads one site, and nothing else of the table. The feed is the only writer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use dormouse_link::{
    Action, CertificateName, Covers, EnvironmentId, HOST_MAX_BYTES, HostPattern, Https, Redirect, Route, RoutePath, To,
    ToHttps, When,
};
use http::HeaderValue;

use super::cell::Cell;
use super::hosts::Hosts;
use super::terms::Terms;

/// Every site.
pub(crate) struct Sites {
    hosts: Hosts<Site>,
    /// Those below a domain; while there are none, nobody looks for one.
    below: AtomicUsize,
    any: ArcSwapOption<Site>,
}

/// What becomes of a host's requests.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) https: Option<Arc<SiteHttps>>,
    pub(crate) leads: Leads,
}

/// What a host asks of connections.
#[derive(Debug)]
pub(crate) struct SiteHttps {
    pub(crate) redirect: Option<ToHttps>,
    pub(crate) hsts: Option<HeaderValue>,
}

/// Where requests for a host lead.
#[derive(Clone, Debug)]
pub(crate) enum Leads {
    /// All to one environment, as they are.
    ToOne(Arc<Cell>),
    /// As the first rule says that is met.
    ByRules(Arc<[SiteRule]>),
}

#[derive(Debug)]
pub(crate) struct SiteRule {
    pub(crate) when: When,
    pub(crate) action: SiteAction,
}

#[derive(Debug)]
pub(crate) enum SiteAction {
    Forward(SiteForward),
    Redirect(Box<Redirect>),
}

#[derive(Debug)]
pub(crate) struct SiteForward {
    pub(crate) cell: Arc<Cell>,
    pub(crate) replace_prefix: Option<RoutePath>,
    pub(crate) host: Option<HeaderValue>,
    /// What the rule says beside where its requests go.
    pub(crate) terms: Option<Arc<Terms>>,
}

impl Site {
    /// The site of a route that was checked, which follows on `before`.
    pub(crate) fn next(
        route: &Route,
        before: Option<&Self>,
        mut cell: impl FnMut(&EnvironmentId) -> Arc<Cell>,
    ) -> Self {
        let leads = match &route.to {
            To::Environment(id) => Leads::ToOne(cell(id)),
            To::Rules(rules) => {
                let rule = |at: usize| SiteRule {
                    when: rules[at].when.clone(),
                    action: match &rules[at].action {
                        Action::Redirect(redirect) => SiteAction::Redirect(redirect.clone()),
                        Action::Forward(forward) => SiteAction::Forward(SiteForward {
                            cell: cell(&forward.environment),
                            replace_prefix: forward.replace_prefix.clone(),
                            host: forward.rewrite_host.as_ref().map(|host| value(host.as_str())),
                            terms: Terms::next(forward, before.and_then(|before| before.terms(&rules[at].when))),
                        }),
                    },
                };
                Leads::ByRules(To::order(rules).into_iter().map(rule).collect())
            }
        };
        Self { https: route.https.as_deref().map(|https| Arc::new(SiteHttps::of(https))), leads }
    }

    /// What it says for the requests of a rule that is for these.
    fn terms(&self, when: &When) -> Option<&Arc<Terms>> {
        let Leads::ByRules(rules) = &self.leads else { return None };
        match &rules.iter().find(|rule| rule.when == *when)?.action {
            SiteAction::Forward(forward) => forward.terms.as_ref(),
            SiteAction::Redirect(_) => None,
        }
    }

    /// Every environment that it leads to; some perhaps more than once.
    pub(crate) fn cells(&self) -> Vec<&Arc<Cell>> {
        match &self.leads {
            Leads::ToOne(cell) => vec![cell],
            Leads::ByRules(rules) => rules.iter().filter_map(SiteRule::cell).collect(),
        }
    }
}

impl SiteRule {
    fn cell(&self) -> Option<&Arc<Cell>> {
        match &self.action {
            SiteAction::Forward(forward) => Some(&forward.cell),
            SiteAction::Redirect(_) => None,
        }
    }
}

impl SiteHttps {
    fn of(https: &Https) -> Self {
        Self { redirect: https.redirect, hsts: https.hsts.map(|hsts| value(&hsts.value())) }
    }
}

/// Hosts and what is made of numbers and words are always values.
fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl Sites {
    pub(crate) fn new() -> Self {
        Self { hosts: Hosts::new(), below: AtomicUsize::new(0), any: ArcSwapOption::empty() }
    }

    /// Asks of the site of a normalised host: its own, else that of hosts below its domain, else that of the rest.
    pub(crate) fn with<R>(&self, host: &str, ask: impl FnOnce(Option<&Site>) -> R) -> R {
        let own = self.hosts.look(host);
        if let Some(site) = own.value() {
            return ask(Some(site));
        }
        let mut buffer = [0; HOST_MAX_BYTES];
        if self.below.load(Ordering::Acquire) > 0
            && let Some(name) = CertificateName::wildcard_of(host, &mut buffer)
            && let Some(site) = self.hosts.look(name).value()
        {
            return ask(Some(site));
        }
        ask(self.any.load().as_deref())
    }

    /// The site that was set for these very hosts.
    pub(crate) fn get(&self, pattern: &HostPattern) -> Option<Site> {
        match pattern.covers() {
            Covers::Any => self.any.load().as_deref().cloned(),
            Covers::Below | Covers::One => self.hosts.get(pattern.as_str()),
        }
    }

    /// Sets or removes sites; each is seen whole.
    pub(crate) fn set_all(&self, changes: &HashMap<HostPattern, Option<Site>>) {
        let mut named = Vec::with_capacity(changes.len());
        let (mut more, mut less) = (0, 0);
        for (pattern, site) in changes {
            let covers = pattern.covers();
            if covers == Covers::Any {
                self.any.store(site.clone().map(Arc::new));
                continue;
            }
            if covers == Covers::Below {
                let had = self.get(pattern).is_some();
                more += usize::from(site.is_some() && !had);
                less += usize::from(site.is_none() && had);
            }
            named.push((pattern.as_str(), site.clone()));
        }
        // Whoever finds one has looked for it.
        self.below.fetch_add(more, Ordering::AcqRel);
        self.hosts.set_all(named);
        self.below.fetch_sub(less, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
