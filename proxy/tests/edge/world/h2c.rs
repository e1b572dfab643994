//! An application that speaks HTTP/2 without TLS, and says what it got.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::origin::Origin;

/// What `/large` answers: more than fits into windows.
pub(crate) const LARGE: usize = 8 << 20;

pub(crate) struct H2cOrigin {
    /// What stands in a table for it.
    pub(crate) origin: Origin,
    pub(crate) seen: Arc<Seen>,
    _task: JoinSet<()>,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    /// Streams that are refused before they are looked at.
    pub(crate) refuse: AtomicUsize,
    /// Streams of `/wait` that their client reset.
    pub(crate) resets: AtomicUsize,
    /// What `/wait` waits for.
    pub(crate) go: GoAhead,
}

pub(crate) struct GoAhead(pub(crate) Semaphore);

impl Default for GoAhead {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl H2cOrigin {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Seen::default());
        let mut task = JoinSet::new();
        task.spawn(accept(listener, name, Arc::clone(&seen)));
        // It is asked for its name and address only.
        let mut origin = Origin::down(name).await;
        origin.address = address;
        Self { origin, seen, _task: task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, name: &'static str, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            let mut streams = JoinSet::new();
            let Ok(mut connection) = server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let refuse = |left: usize| left.checked_sub(1);
                if seen.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
                    respond.send_reset(Reason::REFUSED_STREAM);
                    continue;
                }
                streams.spawn(answer(request, respond, name, Arc::clone(&seen)));
            }
        });
    }
}

/// Echoes the body, with the head's facts and all its fields in fields, and ends with a trailer.
async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, name: &'static str, seen: Arc<Seen>) {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let (head, mut stream) = request.into_parts();
    if head.uri.path() == "/wait" {
        tokio::select! {
            go = seen.go.0.acquire() => go.expect("nobody closes it").forget(),
            _ = std::future::poll_fn(|context| respond.poll_reset(context)) => {
                seen.resets.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
    if head.uri.path() == "/early" {
        let Ok(mut sending) = respond.send_response(Response::new(()), false) else { return };
        let _ = sending.send_data("early".into(), false);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", http::HeaderValue::from_static("1"));
        let _ = sending.send_trailers(trailers);
        // Without an error, whoever has not sent all may go on.
        while let Some(Ok(part)) = stream.data().await {
            let _ = stream.flow_control().release_capacity(part.len());
        }
        return;
    }
    let mut body = if head.uri.path() == "/large" { vec![7; LARGE] } else { Vec::new() };
    while let Some(Ok(part)) = stream.data().await {
        body.extend_from_slice(&part);
        let _ = stream.flow_control().release_capacity(part.len());
    }
    if head.uri.path() == "/bare" {
        let answer = Response::builder().header("content-type", "text/html").body(()).expect("a head");
        let _ = respond.send_response(answer, true);
        return;
    }
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    let answer = Response::builder()
        .header("x-name", name)
        .header("content-type", "text/plain")
        .header("x-method", head.method.as_str())
        .header("x-authority", authority)
        .header("x-path", head.uri.path_and_query().map_or("", |path| path.as_str()))
        .header("x-host-fields", head.headers.get_all("host").iter().count())
        .header(
            "x-forwarded",
            head.headers.get("x-forwarded-for").cloned().unwrap_or(http::HeaderValue::from_static("")),
        )
        .header("x-te", head.headers.get("te").cloned().unwrap_or(http::HeaderValue::from_static("")));
    let answer = if head.uri.path() == "/length" { answer.header("content-length", body.len()) } else { answer };
    let got = |name: &http::HeaderName| format!("got-{name}");
    let answer = head.headers.iter().fold(answer, |answer, (name, value)| answer.header(got(name), value));
    let Ok(mut sending) = respond.send_response(answer.body(()).expect("a head"), false) else { return };
    let _ = sending.send_data(body.into(), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", http::HeaderValue::from_static("reached"));
    let _ = sending.send_trailers(trailers);
}
