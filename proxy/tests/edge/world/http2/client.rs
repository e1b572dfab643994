//! A client that speaks HTTP/2.

use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::world::soon;

pub(crate) struct Client {
    send: SendRequest<Bytes>,
    driving: JoinSet<Result<(), h2::Error>>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }
}

impl Client {
    /// By prior knowledge.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the listener accepts")).await
    }

    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = soon("a handshake", client::handshake(stream)).await.expect("HTTP/2");
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        Self { send, driving }
    }

    /// Waits for a place for one more stream.
    pub(crate) async fn ready(&mut self) -> Result<SendRequest<Bytes>, h2::Error> {
        soon("a place for a stream", self.send.clone().ready()).await
    }

    /// Whether the connection has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(self.send.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    /// Begins a request whose body is sent later.
    pub(crate) async fn begin(&mut self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        self.send = soon("a place for a stream", self.send.clone().ready()).await.expect("the connection is open");
        self.send.send_request(request, false).expect("a request")
    }

    pub(crate) async fn send(&mut self, request: Request<()>, body: &[u8]) -> Result<Response, h2::Error> {
        self.send = soon("a place for a stream", self.send.clone().ready()).await?;
        let (answer, mut stream) = self.send.send_request(request, body.is_empty())?;
        let sending = async {
            let mut rest = Bytes::copy_from_slice(body);
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                // An answer may come before the whole body was taken.
                let Some(Ok(room)) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else {
                    return;
                };
                let part = rest.split_to(room);
                if stream.send_data(part, rest.is_empty()).is_err() {
                    return;
                }
            }
        };
        let (_, answer) = soon("an answer", async { tokio::join!(sending, read(answer)) }).await;
        answer
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Result<Response, h2::Error> {
        self.send(request(Method::GET, host, path), b"").await
    }

    /// Closes the connection, whatever runs, without a goodbye.
    pub(crate) async fn leave(mut self) {
        self.driving.shutdown().await;
    }

    /// Waits for the connection's end, and says why it ended.
    pub(crate) async fn ended(mut self) -> Option<Reason> {
        drop(self.send);
        let end = soon("the connection's end", self.driving.join_next()).await.expect("it was driven");
        end.expect("no panic").err().and_then(|error| error.reason())
    }
}

/// Reads a whole answer.
pub(crate) async fn read(answer: ResponseFuture) -> Result<Response, h2::Error> {
    let (parts, mut stream) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part?;
        stream.flow_control().release_capacity(part.len())?;
        body.extend_from_slice(&part);
    }
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
}

pub(crate) fn request(method: Method, host: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://{host}{path}")).body(()).expect("a request")
}
