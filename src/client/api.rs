//! One request to the control plane, and what may go wrong with it.

use std::future::Future;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Problem;
use super::locate::{self, Place};
use super::{Format, show};
use crate::cli::ApiArgs;
use crate::failure::{Exit, Failure};

/// How long a connection may take to be there.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take to begin. Streams begin at once.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How much of an answer is taken.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// The control plane's API.
pub(super) struct Api {
    http: reqwest::Client,
    place: Place,
    pub(super) format: Format,
}

impl Api {
    /// Finds the control plane; asks nothing yet.
    pub(super) fn new(args: &ApiArgs) -> Result<Self, Failure> {
        let place = locate::locate(args)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            // The API is on this machine or in this network; and a token goes nowhere else.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("dormouse/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::new(Exit::Software, "cannot make an HTTP client").because(&error))?;
        Ok(Self { http, place, format: if args.json { Format::Json } else { Format::Text } })
    }

    /// Asks for one document: as text, and as what it says.
    pub(super) async fn document<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(String, T), Failure> {
        self.answer(method, path, body).await.map(|(_, text, document)| (text, document))
    }

    /// Changes what edges serve by: as `document`, and says so where an edge has yet to take it.
    pub(super) async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(String, T), Failure> {
        let (status, text, document) = self.answer(method, path, body).await?;
        if status == StatusCode::ACCEPTED {
            show::note(
                "it is kept, but not every edge serves by it: one that is late will, and why one refused it is in the log",
            );
        }
        Ok((text, document))
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, String, T), Failure> {
        let asked = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            Ok::<_, Failure>((status, self.text(response).await?))
        };
        let (status, text) = show::patiently("asking the control plane", asked).await?;
        let document = serde_json::from_str(&text).map_err(|error| self.strange().because(&error))?;
        Ok((status, text, document))
    }

    /// Asks, and gives an answer that is a success, its body unread.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Failure> {
        let mut request = self.http.request(method, format!("{}/api/v1{path}", self.place.base));
        if let Some(token) = &self.place.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.within(request.send()).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// What answers is no control plane, or one that speaks another language.
    pub(super) fn strange(&self) -> Failure {
        Failure::new(
            Exit::Unavailable,
            format!("what answers at {} is no Dormouse that this one knows", self.place.base),
        )
        .hint("check the address (--api), and that both are of the same release")
    }

    /// The answer ended before it was whole.
    pub(super) fn broken(&self) -> Failure {
        Failure::new(Exit::Unavailable, format!("the control plane at {} broke off its answer", self.place.base))
            .hint("see how it stands with: dormouse status")
    }

    async fn within<T>(&self, step: impl Future<Output = reqwest::Result<T>>) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_MAX, step).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.is_body() || error.is_decode() => Err(self.broken().because(&error.without_url())),
            Ok(Err(error)) => Err(self.unreachable().because(&error.without_url())),
            Err(_) => Err(self.unreachable().because(&TooSlow)),
        }
    }

    fn unreachable(&self) -> Failure {
        Failure::new(Exit::Unavailable, format!("cannot reach the control plane at {}", self.place.base))
            .hint("start one with: dormouse up   (or say where it is: --api URL, --data DIR)")
    }

    async fn text(&self, mut response: Response) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.within(response.chunk()).await? {
            if bytes.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(self.strange());
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|error| self.strange().because(&error))
    }

    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let text = self.text(response).await.unwrap_or_default();
        let problem = serde_json::from_str::<Problem>(&text).unwrap_or_default();
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NoPermission,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Exit::Unavailable
            }
            _ if status.is_client_error() => Exit::Data,
            _ if status.is_server_error() => Exit::Software,
            _ => return self.strange(),
        };
        let what = [problem.detail, problem.title].into_iter().flatten().find(|text| !text.is_empty());
        let what = what.unwrap_or_else(|| format!("the control plane at {} answered {status}", self.place.base));
        let failure = Failure::new(exit, show::plain(&what));
        match (problem.hint, exit) {
            (Some(hint), _) => failure.hint(show::plain(&hint)),
            (None, Exit::NoPermission) => failure.hint(self.about_the_token()),
            (None, _) => failure,
        }
    }

    fn about_the_token(&self) -> &'static str {
        match self.place.token {
            Some(_) => {
                "`dormouse up` writes the token that counts to DIR/admin.token; give it with --token or DORMOUSE_TOKEN"
            }
            None => {
                "no token was given: use --token or DORMOUSE_TOKEN, or --data DIR with the folder of that control plane"
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", ANSWER_MAX.as_secs())]
struct TooSlow;
