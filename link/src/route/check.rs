//! Whether a route makes sense. What could never be met, or would send clients round in circles, is refused; with the place.

use super::edits::{EditError, Head};
use super::{Action, FIELDS_MAX, FieldName, Forward, Hsts, PathMatch, Redirect, Route, Rule, To};
use crate::policy::LimitsError;
use crate::{HostPattern, path};

/// Rules of one host; a request may be compared with each.
pub const RULES_MAX: usize = 256;

/// What a host is to be remembered for at least, to be on the lists of browsers: a year, in seconds.
const PRELOAD_SECONDS_MIN: u32 = 31_536_000;

/// Why a route is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Nothing is served.
    #[error("a route has at least one rule")]
    NoRule,
    /// More than [`RULES_MAX`].
    #[error("a host has at most {RULES_MAX} rules")]
    TooManyRules,
    /// One of them can never decide.
    #[error("rules[{second}] can never be met: rules[{first}] is for the same requests")]
    Twice {
        /// The earlier rule, counted from 0.
        first: usize,
        /// The later one.
        second: usize,
    },
    /// A rule that makes no sense.
    #[error("rules[{at}]: {wrong}")]
    Rule {
        /// Which rule, counted from 0.
        at: usize,
        /// What is wrong.
        wrong: RuleError,
    },
    /// Browsers would not take it.
    #[error("preload asks for include_subdomains and a max_age of at least {PRELOAD_SECONDS_MIN}")]
    Preload,
    /// No client can connect to it.
    #[error("0 is no port to redirect to")]
    Port,
}

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// More than [`FIELDS_MAX`].
    #[error("a rule asks for at most {FIELDS_MAX} header fields")]
    TooManyFields,
    /// A field cannot have two values at once.
    #[error("the header field {0} is asked for twice")]
    FieldTwice(FieldName),
    /// There is nothing below an exact path.
    #[error("an exact path has no prefix to replace")]
    PrefixOfExact,
    /// Two answers to one question.
    #[error("a redirect has either a \"path\" or a \"replace_prefix\"")]
    TwoPaths,
    /// Its client would come back, and be sent again.
    #[error("the redirect leads to where its own rule is met again")]
    Circle,
    /// No client can connect to it.
    #[error("0 is no port to redirect to")]
    Port,
    /// Requests cannot be changed so.
    #[error("request_headers: {0}")]
    Requests(#[source] EditError),
    /// Answers cannot be changed so.
    #[error("response_headers: {0}")]
    Answers(#[source] EditError),
    /// Its limits make no sense.
    #[error("limits: {0}")]
    Limits(#[from] LimitsError),
}

impl Route {
    /// Whether an edge may serve by it.
    pub(crate) fn check(&self) -> Result<(), RouteError> {
        if let Some(https) = &self.https {
            https.hsts.as_ref().map_or(Ok(()), Hsts::check)?;
            if https.redirect.is_some_and(|redirect| redirect.port == Some(0)) {
                return Err(RouteError::Port);
            }
        }
        let To::Rules(rules) = &self.to else { return Ok(()) };
        if rules.is_empty() {
            return Err(RouteError::NoRule);
        }
        if rules.len() > RULES_MAX {
            return Err(RouteError::TooManyRules);
        }
        for (at, rule) in rules.iter().enumerate() {
            rule.check(&self.host).map_err(|wrong| RouteError::Rule { at, wrong })?;
            if let Some(first) = rules[..at].iter().position(|earlier| earlier.when.is_same(&rule.when)) {
                return Err(RouteError::Twice { first, second: at });
            }
        }
        Ok(())
    }
}

impl Hsts {
    fn check(&self) -> Result<(), RouteError> {
        let is_whole = self.include_subdomains && self.max_age >= PRELOAD_SECONDS_MIN;
        if self.preload && !is_whole { Err(RouteError::Preload) } else { Ok(()) }
    }
}

impl Forward {
    fn check(&self) -> Result<(), RuleError> {
        if let Some(edits) = &self.request_headers {
            edits.check(Head::Request).map_err(RuleError::Requests)?;
        }
        if let Some(edits) = &self.response_headers {
            edits.check(Head::Answer).map_err(RuleError::Answers)?;
        }
        if let Some(limits) = &self.limits {
            limits.check()?;
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self, host: &HostPattern) -> Result<(), RuleError> {
        let fields = &self.when.fields;
        if fields.len() > FIELDS_MAX {
            return Err(RuleError::TooManyFields);
        }
        for (at, field) in fields.iter().enumerate() {
            if fields[..at].iter().any(|earlier| earlier.name == field.name) {
                return Err(RuleError::FieldTwice(field.name.clone()));
            }
        }
        let replaces = match &self.action {
            Action::Forward(forward) => &forward.replace_prefix,
            Action::Redirect(redirect) => &redirect.replace_prefix,
        };
        if self.when.matching == PathMatch::Exact && replaces.is_some() {
            return Err(RuleError::PrefixOfExact);
        }
        match &self.action {
            Action::Forward(forward) => forward.check(),
            Action::Redirect(redirect) => self.check_redirect(redirect, host),
        }
    }

    fn check_redirect(&self, redirect: &Redirect, host: &HostPattern) -> Result<(), RuleError> {
        if redirect.port == Some(0) {
            return Err(RuleError::Port);
        }
        let stays = match (&redirect.path, &redirect.replace_prefix) {
            (Some(_), Some(_)) => return Err(RuleError::TwoPaths),
            (None, None) => true,
            (Some(to), None) if self.when.matching == PathMatch::Exact => *to == self.when.path,
            (Some(to), None) | (None, Some(to)) => path::is_below(to.as_str(), self.when.path.as_str()),
        };
        let same_host = redirect.host.as_ref().is_none_or(|to| host.host().as_ref() == Some(to));
        if stays && same_host && redirect.port.is_none() { Err(RuleError::Circle) } else { Ok(()) }
    }
}
