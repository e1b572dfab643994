//! Somebody else decides who is let in: each request is asked about, by a GET with what it asks for and its client's cookies.
//!
//! 2xx lets it pass, with the fields that the policy names; any other answer is the client's. Whatever keeps the authority from
//! answering is a refusal: nobody passes because it is away.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dormouse_link::policy;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::NotPassed;
use super::asking::{Asker, NotSecure, Secure, can_trust};
use crate::decide::headers::dropped_from_response;
use crate::decide::refuse::Reason;
use crate::exchange::Exchange;
use crate::front::head::Head;
use crate::lane::answer::Answer;

/// Requests of an environment about which is asked at a time; more get 503.
const ASKED_MAX: usize = 256;
/// Of an answer that is relayed.
const BODY_MAX: usize = 64 << 10;
/// Fields of a request that the authority gets beside what is asked for.
const TOLD: [HeaderName; 6] = [
    header::COOKIE,
    header::AUTHORIZATION,
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::USER_AGENT,
    header::ORIGIN,
];

/// Why an authority did not answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("it cannot be asked over TLS")]
    NotSecure(#[from] NotSecure),
    #[error("there is no way to ask it")]
    Cannot,
    #[error("it cannot be asked")]
    Asked(#[from] hyper_util::client::legacy::Error),
    #[error("it takes longer than {} ms", .0.as_millis())]
    Slow(Duration),
    #[error("its answer breaks off, or has more than {BODY_MAX} bytes")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("its answer is no word about a request: {0}")]
    Strange(StatusCode),
}

/// Who is asked.
#[derive(Debug)]
pub(super) struct Authority {
    policy: policy::ForwardAuth,
    host: Option<String>,
    copied: Vec<HeaderName>,
    asked: Arc<Semaphore>,
    /// Over TLS, once it was asked.
    secure: OnceCell<Secure>,
    /// Whether it was told that it does not answer.
    failing: AtomicBool,
}

impl Authority {
    pub(super) fn new(policy: policy::ForwardAuth) -> Self {
        Self {
            host: policy.host(),
            copied: policy.copy.iter().filter_map(|name| name.parse().ok()).collect(),
            asked: Arc::new(Semaphore::new(ASKED_MAX)),
            secure: OnceCell::new(),
            failing: AtomicBool::new(false),
            policy,
        }
    }

    /// Whether the request is for the authority itself, which is not asked about.
    pub(super) fn is_asked_by(&self, head: &Head) -> bool {
        self.host.as_deref() == Some(head.name.as_str())
    }

    /// The fields that an instance gets of its answer: each name, with its value if it has one.
    pub(super) async fn check(
        &self,
        asker: &Asker,
        head: &Head,
        exchange: &Exchange,
        fields: &HeaderMap,
    ) -> Result<Vec<(HeaderName, Option<HeaderValue>)>, NotPassed> {
        let _place = self.asked.try_acquire().map_err(|_| Reason::AccessBusy)?;
        let mut told = HeaderMap::new();
        for name in &TOLD {
            for value in fields.get_all(name) {
                told.append(name, value.clone());
            }
        }
        told.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let scheme = exchange.facts.scheme.as_str();
        let address = exchange.facts.client.map(|address| address.to_string());
        for (name, value) in [
            ("x-forwarded-method", Some(head.method.as_str())),
            ("x-forwarded-proto", Some(scheme)),
            ("x-forwarded-host", Some(head.host.as_str())),
            ("x-forwarded-uri", Some(head.target.as_str())),
            ("x-forwarded-for", address.as_deref()),
            ("x-request-id", Some(exchange.record.request_id.as_str())),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                told.insert(name, value);
            }
        }
        let within = Duration::from_millis(self.policy.timeout_ms.get().into());
        let answered = timeout(within, self.ask(asker, told)).await.unwrap_or(Err(Unanswered::Slow(within)));
        self.tell(answered.as_ref().err());
        match answered {
            Ok((status, fields, _)) if status.is_success() => {
                Ok(self.copied.iter().map(|name| (name.clone(), fields.get(name).cloned())).collect())
            }
            Ok((status, fields, body)) => {
                Err(NotPassed::Answered("forward_auth", Box::new(relayed(status, &fields, body))))
            }
            Err(_) => Err(Reason::AccessFailed.into()),
        }
    }

    /// Its answer, with its body where that is the client's.
    async fn ask(&self, asker: &Asker, fields: HeaderMap) -> Result<(StatusCode, HeaderMap, Bytes), Unanswered> {
        let request = Request::get(&self.policy.url).body(Empty::new());
        let mut request = request.map_err(|_| Unanswered::Cannot)?;
        *request.headers_mut() = fields;
        let answer = if self.policy.is_secure() {
            self.secure.get_or_try_init(|| self.trusting()).await?.ask(request).await?
        } else {
            asker.ask(request).await?
        };
        let (head, body) = answer.into_parts();
        match head.status {
            status if status.is_success() => Ok((status, head.headers, Bytes::new())),
            status if can_be_relayed(status) => {
                let body = Limited::new(body, BODY_MAX).collect().await.map_err(Unanswered::Body)?;
                Ok((status, head.headers, body.to_bytes()))
            }
            status => Err(Unanswered::Strange(status)),
        }
    }

    async fn trusting(&self) -> Result<Secure, Unanswered> {
        let ca = self.policy.ca.clone();
        let made = spawn_blocking(move || Secure::trusting(ca.as_deref())).await;
        Ok(made.map_err(|_| Unanswered::Cannot)??)
    }

    /// Logs that it does not answer, once until it does again.
    fn tell(&self, failed: Option<&Unanswered>) {
        let was_failing = self.failing.swap(failed.is_some(), Ordering::Relaxed);
        let authority = self.host.as_deref().unwrap_or_default();
        match failed {
            Some(error) if !was_failing => {
                let error = chain(error);
                tracing::warn!(authority, error, "an authority does not answer; whom it would let in gets 503");
            }
            None if was_failing => tracing::info!(authority, "the authority answers again"),
            _ => {}
        }
    }
}

/// Certificates of an authority that are other than before, and are to be looked at before they are served by.
pub(crate) fn new_ca<'p>(policy: &'p policy::Policy, before: Option<&policy::Policy>) -> Option<&'p str> {
    ca(policy).filter(|new| before.and_then(ca) != Some(new))
}

fn ca(policy: &policy::Policy) -> Option<&str> {
    policy.access.as_ref()?.forward_auth.as_ref()?.ca.as_deref()
}

/// Whether an authority can be asked by these certificates; else why not, in words for their owner.
pub(crate) fn fits(ca: &str) -> Result<(), String> {
    can_trust(ca).map_err(|error| format!("policy.access: forward_auth.ca: {}", chain(&error)))
}

/// An error with all that is behind it.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        words.push_str(": ");
        words.push_str(&error.to_string());
        next = error.source();
    }
    words
}

/// What is about a cache's copy, or is no answer to a GET, is no answer to the client's request either.
fn can_be_relayed(status: StatusCode) -> bool {
    status.as_u16() >= 300 && status != StatusCode::NOT_MODIFIED
}

fn relayed(status: StatusCode, fields: &HeaderMap, body: Bytes) -> Answer {
    let dropped = dropped_from_response(fields, status.as_u16());
    let is_ours = |name: &HeaderName| {
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name) || dropped.contains(name)
    };
    let kept = fields.iter().filter(|(name, _)| !is_ours(name));
    let mut fields: Vec<_> = kept
        .filter_map(|(name, value)| Some((Cow::Owned(name.as_str().to_owned()), value.to_str().ok()?.to_owned())))
        .collect();
    if !fields.iter().any(|(name, _)| name == "cache-control") {
        fields.push((Cow::Borrowed("Cache-Control"), "no-store".to_owned()));
    }
    Answer { status: status.as_u16(), fields, body }
}

#[cfg(test)]
mod tests;
