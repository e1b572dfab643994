//! Answers that come line by line: one JSON object a line.

use std::time::Duration;

use reqwest::Response;

use super::api::Api;
use crate::failure::Failure;

/// The longest line.
const LINE_MAX_BYTES: usize = 1 << 20;

/// How long a stream may say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Work says every 5 seconds that it goes on; silence means that nobody is there any more.
    AtMost(Duration),
    /// Whoever follows a log waits for as long as it takes.
    Allowed,
}

/// The lines of an answer.
pub(super) struct Lines<'a> {
    api: &'a Api,
    response: Response,
    silence: Silence,
    buffer: Vec<u8>,
    /// How much of the buffer holds no line's end, for sure.
    searched: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(api: &'a Api, response: Response, silence: Silence) -> Self {
        Self { api, response, silence, buffer: Vec::new(), searched: 0 }
    }

    /// The next line, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                let line = String::from_utf8(line).map_err(|error| self.api.strange().because(&error))?;
                if !line.trim().is_empty() {
                    return Ok(Some(line.trim().to_owned()));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_MAX_BYTES {
                return Err(self.api.strange());
            }
            match self.read_more().await? {
                More::Some => {}
                More::End if self.buffer.is_empty() => return Ok(None),
                More::End => return Err(self.api.broken()),
            }
        }
    }

    async fn read_more(&mut self) -> Result<More, Failure> {
        let chunk = self.response.chunk();
        let chunk = match self.silence {
            Silence::Allowed => chunk.await,
            Silence::AtMost(limit) => {
                tokio::time::timeout(limit, chunk).await.map_err(|error| self.api.broken().because(&error))?
            }
        };
        match chunk.map_err(|error| self.api.broken().because(&error.without_url()))? {
            Some(chunk) => {
                self.buffer.extend_from_slice(&chunk);
                Ok(More::Some)
            }
            None => Ok(More::End),
        }
    }
}

/// What was there to read.
enum More {
    Some,
    End,
}
