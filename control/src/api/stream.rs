//! Answers that come line by line: JSON documents, each on a line of its own.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;

/// A line comes at least so often, so that nobody on the way takes the connection for dead.
const ALIVE: Duration = Duration::from_secs(5);

/// Sends every message of a channel as a line; in between, signs of life.
pub(crate) fn lines<T: Serialize + Send + 'static>(messages: mpsc::Receiver<T>) -> Response {
    let lines = stream::unfold(messages, |mut messages| async move {
        let line = match tokio::time::timeout(ALIVE, messages.recv()).await {
            Ok(Some(message)) => serde_json::to_vec(&message).unwrap_or_default(),
            Ok(None) => return None,
            Err(_) => br#"{"alive":true}"#.to_vec(),
        };
        let mut line = line;
        line.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), messages))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
