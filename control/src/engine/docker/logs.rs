//! What an application wrote, line by line.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use dormouse_link::InstanceId;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::{ANSWER_WITHIN, Docker};
use crate::engine::lines::Lines;
use crate::engine::{EngineError, LogLine, Logs};

/// Lines that were read and not taken yet. A slow reader holds up the engine's stream, never the application.
const WAITING_MAX: usize = 64;

impl Docker {
    pub(super) async fn read_logs(
        &self,
        instance: &InstanceId,
        lines: Logs,
    ) -> Result<mpsc::Receiver<LogLine>, EngineError> {
        let Some(parts) = self.parts(instance).await? else {
            return Err(EngineError::NoInstance(instance.clone()));
        };
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let Some(app) = parts.apps.into_iter().next() else { return Ok(receiver) };
        let options = LogsOptions {
            follow: lines.follow,
            stdout: true,
            stderr: true,
            tail: lines.tail.to_string(),
            ..Default::default()
        };
        let client = self.client();
        #[expect(clippy::disallowed_methods, reason = "it ends with its reader, its container or the engine")]
        tokio::spawn(async move {
            // Both branches may be dropped at any time: nothing was read that is not handed on.
            tokio::select! {
                () = sender.closed() => {}
                () = hand_on(client.logs(&app.container, Some(options)), &sender, lines.follow) => {}
            }
        });
        Ok(receiver)
    }
}

async fn hand_on(
    stream: impl Stream<Item = Result<LogOutput, bollard::errors::Error>>,
    sender: &mpsc::Sender<LogLine>,
    follow: bool,
) {
    let mut stream = std::pin::pin!(stream);
    let mut out = Lines::default();
    let mut err = Lines::default();
    loop {
        let next = if follow {
            stream.next().await
        } else {
            // What is there already comes at once; an engine that hangs must not hang the reader.
            tokio::time::timeout(ANSWER_WITHIN, stream.next()).await.unwrap_or(None)
        };
        let (stderr, texts) = match next {
            Some(Ok(LogOutput::StdErr { message })) => (true, err.push(&message)),
            Some(Ok(output)) => (false, out.push(&output.into_bytes())),
            Some(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the engine ended a log");
                break;
            }
            None => break,
        };
        for text in texts {
            if sender.send(LogLine { stderr, text }).await.is_err() {
                return;
            }
        }
    }
    let rest =
        out.finish().into_iter().map(|text| (false, text)).chain(err.finish().into_iter().map(|text| (true, text)));
    for (stderr, text) in rest.collect::<Vec<_>>() {
        if sender.send(LogLine { stderr, text }).await.is_err() {
            return;
        }
    }
}
