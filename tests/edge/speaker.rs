//! A client that speaks HTTP/2, and says whether a request failed or was never sent.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{self, SendRequest};
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::program::soon;

/// A connection, by prior knowledge.
pub(crate) struct Speaker {
    send: SendRequest<Bytes>,
    driving: JoinSet<Result<(), h2::Error>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The connection takes no more streams; nothing was sent.
    NotSent(h2::Error),
    Failed(#[expect(dead_code, reason = "shown by a test that fails")] h2::Error),
}

impl Speaker {
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        let (send, connection) = client::handshake(stream).await.map_err(io::Error::other)?;
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        Ok(Self { send, driving })
    }

    /// Asks, and waits for the head of the answer.
    pub(crate) async fn begin(&self, method: Method, path: &str, kind: &str) -> Result<(u16, RecvStream), NoAnswer> {
        let mut send = self.send.clone().ready().await.map_err(NoAnswer::NotSent)?;
        let request = Request::builder().method(method).uri(format!("http://a.example{path}"));
        let request = request.header("content-type", kind).header("accept", kind).body(()).unwrap();
        let (answer, _) = send.send_request(request, true).map_err(NoAnswer::NotSent)?;
        let (head, body) = answer.await.map_err(NoAnswer::Failed)?.into_parts();
        Ok((head.status.as_u16(), body))
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String), NoAnswer> {
        let (status, body) = self.begin(Method::GET, path, "text/plain").await?;
        Ok((status, rest(body).await.map_err(NoAnswer::Failed)?))
    }

    /// Waits until the connection is over, and says how.
    pub(crate) async fn ended(mut self) -> Result<(), h2::Error> {
        drop(self.send);
        soon("the connection's end", self.driving.join_next()).await.unwrap().unwrap()
    }
}

/// Reads a body to its end.
pub(crate) async fn rest(mut body: RecvStream) -> Result<String, h2::Error> {
    let mut text = String::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        text.push_str(&String::from_utf8_lossy(&part));
    }
    Ok(text)
}
