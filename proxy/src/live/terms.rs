//! What a rule says beside where its requests go: what is changed of heads, and limits of its own.
//!
//! Made by the feed with the site, and carried by each request of the rule; rules that say nothing have none.

use std::sync::Arc;

use dormouse_link::Forward;

use crate::checks::RuleLimits;
use crate::decide::edits::Edits;

/// See the module.
#[derive(Debug)]
pub(crate) struct Terms {
    /// What is changed of requests.
    pub(crate) request: Option<Edits>,
    /// What is changed of answers.
    pub(crate) answer: Option<Edits>,
    pub(crate) limits: Option<RuleLimits>,
}

impl Terms {
    /// Those of a rule, whose requests were counted by `before`.
    pub(crate) fn next(forward: &Forward, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let Forward { request_headers, response_headers, limits, .. } = forward;
        if request_headers.is_none() && response_headers.is_none() && limits.is_none() {
            return None;
        }
        let counted = before.and_then(|before| before.limits.as_ref());
        Some(Arc::new(Self {
            request: request_headers.as_deref().map(Edits::new),
            answer: response_headers.as_deref().map(Edits::new),
            limits: limits.as_deref().map(|limits| RuleLimits::next(limits, counted)),
        }))
    }
}
