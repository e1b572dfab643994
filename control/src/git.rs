//! `git push` over HTTP: the way an application's source comes in, and the way its developer sees what becomes of it.
//!
//! Git's own server-side programs do git's work; here requests are told apart, authenticated, limited, and joined to those
//! programs by pipes. No shell, no hook and no setting of the machine's takes part. After a push changed refs its response is
//! kept open, and what [`Pushes::pushed`] tells is shown by the client as `remote:` lines. The refs are the intent: whatever
//! happens to the client afterwards, the deployment goes on.
//!
//! The api's listener serves [`router`]; the store implements [`Pushes`].

mod exchange;
mod leftover;
mod limits;
mod measure;
mod name;
mod out;
mod pack;
mod packet;
mod refusal;
mod repository;
mod request;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use dormouse_link::Label;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use self::exchange::{Exchange, Input, Outcome};
pub use self::limits::Limits;
use self::measure::Measure;
pub use self::name::{BRANCH_MAX_BYTES, Branch, BranchError, Commit, CommitError};
use self::out::{Out, Piece, Until};
use self::refusal::Refusal;
pub use self::repository::{RefUpdate, Refs, Repository, RepositoryError};
use self::request::{Action, Asked, Service, Version};
use crate::task::Tasks;

/// An application could not be looked up.
#[derive(Debug, thiserror::Error)]
#[error("look up the application")]
pub struct LookupError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What git pushes need of the control plane.
#[async_trait]
pub trait Pushes: Send + Sync + 'static {
    /// Whether the token may push and fetch. Takes the same time for every token of one length.
    fn authorised(&self, token: &str) -> bool;

    /// The repository of an application, or `None` where there is no such application.
    async fn repository(&self, app: &Label) -> Result<Option<Repository>, LookupError>;

    /// Called after a push changed refs: looks at them, and returns the lines to show until what this push caused has ended;
    /// the last line says the outcome. Two pushes at the same time may each be told of the other's refs too. The reader may
    /// go away at any time; that changes nothing.
    async fn pushed(&self, app: &Label, updated: Vec<RefUpdate>) -> mpsc::Receiver<String>;
}

/// How many pieces of a response wait for a client that reads slowly. A piece is at most 64 KiB.
const RESPONSE_PIECES: usize = 16;

/// The first read of an advertisement, in bytes; what follows is copied in pieces of the same size.
const PIECE_BYTES: usize = 64 << 10;

struct Shared {
    pushes: Arc<dyn Pushes>,
    tasks: Tasks,
    limits: Limits,
    processes: Arc<Semaphore>,
}

/// Everything under `/git`.
pub fn router(pushes: Arc<dyn Pushes>, tasks: Tasks, limits: Limits) -> Router {
    let processes = Arc::new(Semaphore::new(limits.processes));
    Router::new()
        .route("/git", any(answer))
        .route("/git/", any(answer))
        .route("/git/{*path}", any(answer))
        .with_state(Arc::new(Shared { pushes, tasks, limits, processes }))
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Refusal> {
    let asked = Asked::of(request.method(), request.uri())?;
    let token = request::token(request.headers())?;
    if !shared.pushes.authorised(&token) {
        return Err(Refusal::WrongToken);
    }
    let repository = shared.pushes.repository(&asked.app).await.map_err(|error| Refusal::lookup(&error))?;
    let repository = repository.ok_or_else(|| Refusal::NoApp(asked.app.clone()))?;
    let permit = shared.permit().await?;
    match asked.action {
        Action::Advertise => {
            let version = asked.service.protocol(request.headers());
            shared.advertise(asked.service, &repository, version, permit).await
        }
        Action::Exchange => shared.exchange(asked, repository, request, permit).await,
    }
}

impl Shared {
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        match timeout(self.limits.queue, self.processes.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed, so this is the wait that ended.
            Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
        }
    }

    /// The refs and what this side can do.
    async fn advertise(
        &self,
        service: Service,
        repository: &Repository,
        version: Version,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response, Refusal> {
        let mut child = exchange::spawn(service, Action::Advertise, repository, version, &self.limits)?;
        let mut stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let mut first = service.preface(version);
        let preface = first.len();
        // Its errors come before its first word, so this is the moment to tell an answer from a failure.
        let read = timeout(self.limits.idle, stdout.read_buf(&mut first)).await;
        if !matches!(read, Ok(Ok(_))) || first.len() == preface {
            exchange::complain(service, child).await;
            return Err(Refusal::Failed);
        }
        let (out, receiver) = self.out(self.limits.fetch_within);
        self.tasks.spawn("git advertisement", async move {
            exchange::advertise(service, child, stdout, first.freeze(), out).await;
            drop(permit);
        });
        Ok(response(service.advertisement(), receiver))
    }

    /// A fetch or a push. It goes on as a task of its own, so that a client that goes away does not end it half-way.
    async fn exchange(
        self: &Arc<Self>,
        asked: Asked,
        repository: Repository,
        request: Request,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response, Refusal> {
        let service = asked.service;
        request::content_type(service, request.headers())?;
        let coding = request::coding(request.headers())?;
        let before = match service {
            Service::Push => repository.refs().await.map_err(Refusal::repository)?,
            Service::Fetch => Default::default(),
        };
        let version = service.protocol(request.headers());
        let child = exchange::spawn(service, Action::Exchange, &repository, version, &self.limits)?;
        let (out, receiver) = self.out(match service {
            Service::Push => self.limits.push_within,
            Service::Fetch => self.limits.fetch_within,
        });
        let body = request.into_body().into_data_stream();
        let measure = (service == Service::Push).then(|| Measure::new(self.limits, before.len()));
        let mut exchange = Exchange::new(service, child, Input { body, coding, measure }, out, self.limits);
        let shared = self.clone();
        self.tasks.spawn(format!("git {service} {}", asked.app), async move {
            let outcome = exchange.run().await;
            drop(permit);
            if service == Service::Push {
                shared.after_push(&asked.app, &repository, &before, outcome, &mut exchange.out).await;
            }
            exchange.finish(outcome).await;
        });
        Ok(response(service.result(), receiver))
    }

    /// Looks at what the push changed, whatever became of its client, and shows what follows from it.
    async fn after_push(&self, app: &Label, repository: &Repository, before: &Refs, outcome: Outcome, out: &mut Out) {
        let updated = match repository.refs().await {
            Ok(after) => repository::updates(before, &after),
            Err(error) => {
                // The branch is looked at again by whoever compares refs with deployments, so nothing is lost.
                tracing::error!(app.name = %app, error = &error as &dyn std::error::Error, "refs could not be read after a push");
                Vec::new()
            }
        };
        if updated.is_empty() {
            return;
        }
        let pushed = self.pushes.pushed(app, updated);
        match outcome {
            Outcome::Lines => {
                let lines = out.keep_alive_during(pushed).await;
                out.show(lines).await;
            }
            Outcome::NoLines | Outcome::Refused(_) | Outcome::Broken => drop(pushed.await),
        }
    }

    fn out(&self, within: Duration) -> (Out, mpsc::Receiver<Piece>) {
        let (sender, receiver) = mpsc::channel(RESPONSE_PIECES);
        (Out::new(sender, Until { stop: self.tasks.token(), at: Instant::now() + within }), receiver)
    }
}

fn response(content_type: &'static str, pieces: mpsc::Receiver<Piece>) -> Response {
    let mut pieces = pieces;
    let body = Body::from_stream(stream::poll_fn(move |context| pieces.poll_recv(context)));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, http::HeaderValue::from_static("no-cache, max-age=0, must-revalidate"));
    response
}
