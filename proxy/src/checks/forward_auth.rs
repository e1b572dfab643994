//! Somebody else decides who is let in: each request is asked about, by a GET with what it asks for and its client's cookies.
//!
//! 2xx lets it pass, with the fields that the policy names; any other answer is the client's. Whatever keeps the authority from
//! answering is a refusal: nobody passes because it is away.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dormouse_link::policy;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::NotPassed;
use crate::decide::headers::dropped_from_response;
use crate::decide::refuse::Reason;
use crate::exchange::Exchange;
use crate::front::head::Head;
use crate::lane::answer::Answer;

/// Requests of an environment about which is asked at a time; more get 503.
const ASKED_MAX: usize = 256;
/// Of an answer that is relayed.
const BODY_MAX: usize = 64 << 10;
/// Idle connections to one authority that a worker keeps.
const POOLED: usize = 16;
/// How long each is kept; shorter than what servers keep (Node: 5 s).
const POOLED_IDLE: Duration = Duration::from_secs(4);
/// Fields of a request that the authority gets beside what is asked for.
const TOLD: [HeaderName; 6] = [
    header::COOKIE,
    header::AUTHORIZATION,
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::USER_AGENT,
    header::ORIGIN,
];

/// A worker's connections to authorities.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker(Option<reqwest::Client>);

impl Asker {
    /// One that follows nothing and goes through nobody.
    pub(crate) fn new() -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(POOLED)
            .pool_idle_timeout(POOLED_IDLE);
        match client.build() {
            Ok(client) => Self(Some(client)),
            Err(error) => {
                tracing::error!(%error, "nobody can be asked who is let in; whoever needs that is refused");
                Self(None)
            }
        }
    }
}

/// Who is asked.
#[derive(Debug)]
pub(super) struct Authority {
    policy: policy::ForwardAuth,
    host: Option<String>,
    copied: Vec<HeaderName>,
    asked: Arc<Semaphore>,
}

impl Authority {
    pub(super) fn new(policy: policy::ForwardAuth) -> Self {
        Self {
            host: policy.host(),
            copied: policy.copy.iter().filter_map(|name| name.parse().ok()).collect(),
            asked: Arc::new(Semaphore::new(ASKED_MAX)),
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
        let client = asker.0.as_ref().ok_or(Reason::AccessFailed)?;
        let mut told = HeaderMap::new();
        for name in &TOLD {
            for value in fields.get_all(name) {
                told.append(name, value.clone());
            }
        }
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
        let asking = async {
            let answer = client.get(&self.policy.url).headers(told).send().await.ok()?;
            let (status, fields) = (answer.status(), answer.headers().clone());
            if status.is_success() {
                return Some((status, fields, Bytes::new()));
            }
            Some((status, fields, body(answer).await?))
        };
        let within = Duration::from_millis(self.policy.timeout_ms.get().into());
        match timeout(within, asking).await {
            Ok(Some((status, fields, _))) if status.is_success() => {
                Ok(self.copied.iter().map(|name| (name.clone(), fields.get(name).cloned())).collect())
            }
            Ok(Some((status, fields, body))) if can_be_relayed(status) => {
                Err(NotPassed::Answered("forward_auth", Box::new(relayed(status, &fields, body))))
            }
            _ => Err(Reason::AccessFailed.into()),
        }
    }
}

/// All of it, unless it is too much.
async fn body(mut answer: reqwest::Response) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while let Some(part) = answer.chunk().await.ok()? {
        if body.len() + part.len() > BODY_MAX {
            return None;
        }
        body.extend_from_slice(&part);
    }
    Some(body.freeze())
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
