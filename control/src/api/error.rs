//! What a client of the API is told when something was not done: status, words, and what to do. RFC 9457.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::BODY_MAX_BYTES;
use crate::apps::AppsError;
use crate::engine::EngineError;
use crate::error::chain;
use crate::store::StoreError;

/// How much of what a client sent is said back to it, in bytes.
const DETAIL_MAX_BYTES: usize = 1000;

/// An error as `application/problem+json`.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { kind: "about:blank", title, status: status.as_u16(), detail: shown(&detail.into()), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail).hint("the API is under /api/v1, repositories are at /git/NAME.git")
    }

    pub(crate) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
            .hint("the field Allow says which it takes")
    }

    pub(crate) fn slow(within: Duration) -> Self {
        let detail = format!("the body did not arrive within {} s", within.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, detail).hint("send it at once; it is a small document")
    }

    pub(crate) fn token(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
            .hint("the token is in the file admin.token of the data folder; give it by --token or DORMOUSE_TOKEN")
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 wants to see how one proves who one is.
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"dormouse\""));
        }
        response
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let (detail, hint) = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => (
                format!("the body has more than {BODY_MAX_BYTES} bytes"),
                "send less; variables may be set in several steps",
            ),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("the body is not said to be JSON".to_owned(), "send it with Content-Type: application/json")
            }
            _ => (rejection.body_text(), "send one JSON document with the fields that this address knows"),
        };
        Self::new(rejection.status(), detail).hint(hint)
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text()).hint("names have only a-z, 0-9 and -")
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text()).hint("this address knows tail=N and follow=true")
    }
}

impl From<AppsError> for Problem {
    fn from(error: AppsError) -> Self {
        let words = error.to_string();
        match error {
            AppsError::Reserved(_) => Self::new(StatusCode::CONFLICT, words).hint("choose another name"),
            AppsError::NoApp(_) => Self::new(StatusCode::NOT_FOUND, words)
                .hint("`dormouse app list` shows the applications, `dormouse app create NAME` makes one"),
            AppsError::NoEnvironment { .. } => {
                Self::new(StatusCode::NOT_FOUND, words).hint("`dormouse status NAME` shows its environments")
            }
            AppsError::NothingToDeploy(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, words)
                .hint("push its branch first: `git push` deploys Test"),
            AppsError::Value(_) => Self::new(StatusCode::BAD_REQUEST, words).hint("nothing was changed"),
            AppsError::Policy(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, words)
                .hint("nothing was changed; docs/policy.md says what each field takes"),
            AppsError::Deleting(_) => Self::new(StatusCode::CONFLICT, words).hint("wait until it is gone"),
            AppsError::Store(error) => error.into(),
            AppsError::Engine(error) => error.into(),
            AppsError::Git(error) if error.is_disk_full() => disk_full(&error),
            error @ (AppsError::Git(_) | AppsError::Authority(_)) => internal(&error),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let words = error.to_string();
        match error {
            StoreError::AppTaken(_) | StoreError::HostTaken { .. } => {
                Self::new(StatusCode::CONFLICT, words).hint("choose another name")
            }
            StoreError::Quota(_) => Self::new(StatusCode::CONFLICT, words).hint("delete an application first"),
            StoreError::Gone(_) => {
                Self::new(StatusCode::NOT_FOUND, words).hint("`dormouse status` shows what there is")
            }
            error @ StoreError::DiskFull(_) => disk_full(&error),
            error => internal(&error),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unavailable { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, chain(&error))
                .hint("start Docker; Dormouse goes on by itself when it answers"),
            EngineError::NoInstance(_) => Self::new(StatusCode::NOT_FOUND, "no container has run there yet")
                .hint("deploy it first; `dormouse status NAME` shows how it stands"),
            error => internal(&error),
        }
    }
}

/// Nothing was done, and it can be asked for again as soon as there is room.
fn disk_full(error: &dyn std::error::Error) -> Problem {
    tracing::error!(error = chain(error), "the disk that holds the data folder is full");
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "the disk that holds Dormouse's data folder is full")
        .hint("free some space there; Dormouse goes on by itself")
}

/// Our own fault: the details go to the log.
fn internal(error: &dyn std::error::Error) -> Problem {
    tracing::error!(error = chain(error), "a request to the API failed");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Dormouse could not do it")
        .hint("the log of `dormouse up` tells why")
}

/// A text that says a part of what a client sent: on one line, not too long, and nothing in it that moves a cursor or turns
/// the direction of writing.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(DETAIL_MAX_BYTES));
    for letter in text.chars() {
        if shown.len() >= DETAIL_MAX_BYTES {
            return shown + "…";
        }
        match letter {
            '"' | '\'' | '\\' => shown.push(letter),
            // What cannot be printed becomes its number.
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_is_said_back_short_and_harmless() {
        assert_eq!(shown("a \"b\" c:\\é"), "a \"b\" c:\\é");
        assert_eq!(shown("a\u{1b}[2J\r\n\u{9b}\u{202e}"), "a\\u{1b}[2J\\r\\n\\u{9b}\\u{202e}");
        let long = shown(&"x".repeat(1_000_000));
        assert!(long.len() < DETAIL_MAX_BYTES + 10 && long.ends_with("x…"));
    }
}
