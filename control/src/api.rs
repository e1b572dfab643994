//! The API: the table of URLs, who may use it, and how answers and errors look. One resource a file; no SQL, no engine.

mod app;
mod environment;
mod error;
mod input;
mod policy;
mod pushes;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use base64::Engine as _;

use self::error::Problem;
use self::pushes::Gate;
use crate::git;
use crate::world::World;

/// The longest body of an API request, in bytes. Pushes have a limit of their own.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) world: Arc<World>,
    /// How people reach the API: `http://ADDRESS`.
    pub(crate) url: Arc<str>,
    /// Where the edge listens, for the addresses that are shown; `None` where it does not.
    pub(crate) edge: EdgePorts,
}

/// The ports that visitors use.
#[derive(Clone, Copy, Debug, Default)]
pub struct EdgePorts {
    /// Plain.
    pub http: Option<u16>,
    /// TLS.
    pub https: Option<u16>,
}

/// The one secret of an installation: whoever has it may do everything.
#[derive(Clone)]
pub(crate) struct Token(Arc<str>);

impl Token {
    /// Takes a token.
    pub(crate) fn new(token: &str) -> Self {
        Self(token.into())
    }

    /// Compares in a time that does not depend on where two tokens differ.
    pub(crate) fn matches(&self, offered: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), offered.as_bytes());
        let differing = ours.iter().zip(theirs).fold(0, |differing, (a, b)| differing | (a ^ b));
        ours.len() == theirs.len() && std::hint::black_box(differing) == 0
    }
}

/// Every method and URL of the API, and who answers.
fn table() -> [(&'static str, &'static str, MethodRouter<Api>); 12] {
    [
        ("GET", "/api/v1/apps", get(app::list)),
        ("POST", "/api/v1/apps", post(app::create)),
        ("GET", "/api/v1/apps/{app}", get(app::show)),
        ("DELETE", "/api/v1/apps/{app}", delete(app::delete)),
        ("PATCH", "/api/v1/apps/{app}/environments/{environment}", patch(environment::set)),
        ("GET", "/api/v1/apps/{app}/environments/{environment}/policy", get(policy::show)),
        ("PUT", "/api/v1/apps/{app}/environments/{environment}/policy", put(policy::set)),
        ("DELETE", "/api/v1/apps/{app}/environments/{environment}/policy", delete(policy::clear)),
        ("POST", "/api/v1/apps/{app}/environments/{environment}/deploy", post(environment::deploy)),
        ("POST", "/api/v1/apps/{app}/environments/{environment}/sleep", post(environment::sleep)),
        ("POST", "/api/v1/apps/{app}/environments/{environment}/wake", post(environment::wake)),
        ("GET", "/api/v1/apps/{app}/environments/{environment}/logs", get(environment::read_logs)),
    ]
}

/// Method and path of everything the API answers, for tests that leave nothing out.
pub fn api_routes() -> Vec<(&'static str, &'static str)> {
    table().into_iter().map(|(method, path, _)| (method, path)).collect()
}

/// Every URL, of the API and of git.
pub(crate) fn router(world: &Arc<World>, token: Token, url: String, edge: EdgePorts, limits: git::Limits) -> Router {
    let api = Api { world: world.clone(), url: url.into(), edge };
    let guarded = table().into_iter().fold(Router::new(), |router, (_, path, route)| router.route(path, route));
    let guarded = guarded
        .layer(from_fn_with_state(token.clone(), guard))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(api);
    let pushes = Arc::new(Gate { world: world.clone(), token });
    guarded
        .merge(git::router(pushes, world.tasks.clone(), limits))
        .fallback(|| async { Problem::not_found("there is nothing at this address") })
        .method_not_allowed_fallback(|| async { Problem::method() })
}

async fn guard(State(token): State<Token>, request: Request, next: Next) -> Response {
    let offered = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(secret);
    match offered {
        Some(offered) if token.matches(&offered) => next.run(request).await,
        Some(_) => Problem::token("the token is wrong").into_response(),
        None => Problem::token("a token is needed").into_response(),
    }
}

/// The token of `Bearer TOKEN` or of `Basic`, as the password of any user.
fn secret(authorization: &str) -> Option<String> {
    let (scheme, value) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_only_itself() {
        let token = Token::new("abc");
        assert!(token.matches("abc"));
        for other in ["", "ab", "abcd", "abd", "ABC"] {
            assert!(!token.matches(other), "{other}");
        }
    }

    #[test]
    fn the_token_comes_as_bearer_or_as_anybodys_password() {
        assert_eq!(secret("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(secret("bearer abc").as_deref(), Some("abc"));
        assert_eq!(secret("Basic Z2l0OmFiYw==").as_deref(), Some("abc"));
        for bad in ["abc", "Basic !!", "Basic Z2l0", "Digest abc", ""] {
            assert_eq!(secret(bad), None, "{bad:?}");
        }
    }
}
