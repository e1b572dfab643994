//! Answers that come line by line: JSON documents, each on a line of its own.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A line comes at least so often, so that nobody on the way takes the connection for dead.
const ALIVE: Duration = Duration::from_secs(5);

/// When a stream ends.
pub(crate) enum Until {
    /// With its last message, which comes by itself when the program is stopped.
    LastMessage,
    /// When the program is stopped, too: a log that is followed has no last message.
    Stop(CancellationToken),
}

impl Until {
    async fn over(&self) {
        match self {
            Self::LastMessage => std::future::pending().await,
            Self::Stop(token) => token.cancelled().await,
        }
    }
}

/// Sends every message of a channel as a line; in between, signs of life.
pub(crate) fn lines<T: Serialize + Send + 'static>(messages: mpsc::Receiver<T>, until: Until) -> Response {
    let lines = stream::unfold((messages, until), |(mut messages, until)| async move {
        // Cancel safe: `recv` loses nothing.
        let mut line = tokio::select! {
            message = messages.recv() => serde_json::to_vec(&message?).unwrap_or_default(),
            () = tokio::time::sleep(ALIVE) => br#"{"alive":true}"#.to_vec(),
            () = until.over() => return None,
        };
        line.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), (messages, until)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
