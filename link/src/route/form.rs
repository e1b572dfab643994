//! How routes are written in messages and in the store. The simple one is as short as it ever was:
//! `{"host": "a.example", "environment": "x"}`.

use serde::{Deserialize, Serialize};

use super::{Action, Edits, FieldMatch, Forward, Https, MethodName, PathMatch, Redirect, Route, Rule, To, When};
use crate::policy::Limits;
use crate::{EnvironmentId, Host, HostPattern, RoutePath};

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteForm {
    host: HostPattern,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    https: Option<Box<Https>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<EnvironmentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<Vec<Rule>>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleForm {
    #[serde(default, skip_serializing_if = "RoutePath::is_root")]
    path: RoutePath,
    #[serde(default, rename = "match", skip_serializing_if = "is_prefix")]
    matching: PathMatch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<MethodName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<FieldMatch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<EnvironmentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replace_prefix: Option<RoutePath>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewrite_host: Option<Host>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_headers: Option<Box<Edits>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_headers: Option<Box<Edits>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<Box<Limits>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redirect: Option<Box<Redirect>>,
}

fn is_prefix(matching: &PathMatch) -> bool {
    *matching == PathMatch::Prefix
}

/// Why a form is no route.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormError {
    #[error("a route has either \"environment\" or \"rules\"")]
    Route,
    #[error("a rule has either \"environment\" or \"redirect\", and changes only what goes to an environment")]
    Rule,
}

impl TryFrom<RouteForm> for Route {
    type Error = FormError;

    fn try_from(form: RouteForm) -> Result<Self, FormError> {
        let to = match (form.environment, form.rules) {
            (Some(environment), None) => To::Environment(environment),
            (None, Some(rules)) => To::Rules(rules),
            _ => return Err(FormError::Route),
        };
        Ok(Self { host: form.host, https: form.https, to })
    }
}

impl From<Route> for RouteForm {
    fn from(route: Route) -> Self {
        let (environment, rules) = match route.to {
            To::Environment(environment) => (Some(environment), None),
            To::Rules(rules) => (None, Some(rules)),
        };
        Self { host: route.host, https: route.https, environment, rules }
    }
}

impl TryFrom<RuleForm> for Rule {
    type Error = FormError;

    fn try_from(form: RuleForm) -> Result<Self, FormError> {
        let changes = Forward {
            environment: EnvironmentId::new(""),
            replace_prefix: form.replace_prefix,
            rewrite_host: form.rewrite_host,
            request_headers: form.request_headers,
            response_headers: form.response_headers,
            limits: form.limits,
        };
        let action = match (form.environment, form.redirect) {
            (Some(environment), None) => Action::Forward(Forward { environment, ..changes }),
            (None, Some(redirect)) if changes.changes_nothing() => Action::Redirect(redirect),
            _ => return Err(FormError::Rule),
        };
        let when = When { path: form.path, matching: form.matching, method: form.method, fields: form.headers };
        Ok(Self { when, action })
    }
}

impl From<Rule> for RuleForm {
    fn from(rule: Rule) -> Self {
        let When { path, matching, method, fields: headers } = rule.when;
        let form = Self {
            path,
            matching,
            method,
            headers,
            environment: None,
            replace_prefix: None,
            rewrite_host: None,
            request_headers: None,
            response_headers: None,
            limits: None,
            redirect: None,
        };
        match rule.action {
            Action::Redirect(redirect) => Self { redirect: Some(redirect), ..form },
            Action::Forward(forward) => Self {
                environment: Some(forward.environment),
                replace_prefix: forward.replace_prefix,
                rewrite_host: forward.rewrite_host,
                request_headers: forward.request_headers,
                response_headers: forward.response_headers,
                limits: forward.limits,
                ..form
            },
        }
    }
}
