//! Why a request is refused: one table of reasons, statuses and words. Git shows the words after `remote:`.

use std::fmt;

use axum::response::{IntoResponse, Response};
use dormouse_link::Label;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::{LookupError, RepositoryError};

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotFound,
    NoApp(Label),
    NoToken,
    WrongToken,
    Dumb,
    Method(&'static str),
    ContentType(&'static str),
    Coding,
    Busy,
    TooManyRefs,
    Failed,
}

impl Refusal {
    /// Logs why a repository could not be read; the client only learns that it was so.
    pub(super) fn repository(error: RepositoryError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a repository could not be read");
        match error {
            RepositoryError::TooMuch { .. } => Self::TooManyRefs,
            _ => Self::Failed,
        }
    }

    /// Logs why an application could not be looked up: whether it is there is not known.
    pub(super) fn lookup(error: &LookupError) -> Self {
        tracing::error!(error = error as &dyn std::error::Error, "an application could not be read for git");
        Self::Failed
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::NoApp(_) => StatusCode::NOT_FOUND,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::Dumb => StatusCode::FORBIDDEN,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType(_) | Self::Coding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManyRefs => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A header that the status calls for.
    fn header(&self) -> Option<(http::HeaderName, &'static str)> {
        match self {
            Self::NoToken | Self::WrongToken => Some((WWW_AUTHENTICATE, "Basic realm=\"dormouse\"")),
            Self::Method(allowed) => Some((ALLOW, allowed)),
            Self::Busy => Some((RETRY_AFTER, "5")),
            _ => None,
        }
    }
}

/// The words a client shows after `remote:`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("nothing is here: an application's repository is at /git/NAME.git"),
            Self::NoApp(app) => write!(f, "there is no application {app}: make it with: dormouse app create {app}"),
            Self::NoToken => f.write_str("a token is needed: give any user name, and the token as the password"),
            Self::WrongToken => f.write_str("the token is wrong: give any user name, and the token as the password"),
            Self::Dumb => f.write_str("this git is too old: version 1.6.6 or newer is needed"),
            Self::Method(allowed) => write!(f, "only {allowed} is possible here"),
            Self::ContentType(wanted) => write!(f, "the body must be {wanted}"),
            Self::Coding => f.write_str("the body must be plain or compressed with gzip"),
            Self::Busy => f.write_str("too many fetches and pushes at the moment: try again in some seconds"),
            Self::TooManyRefs => {
                f.write_str("the repository has too many branches and tags: its operator can remove old ones")
            }
            Self::Failed => {
                f.write_str("the repository could not be read: its operator finds the reason in dormouse's log")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{self}\n")).into_response();
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
