//! The lines of a build, on their way to a reader that may be slow or gone.

use std::time::Duration;

use tokio::sync::mpsc;

/// How long a build waits for its reader at one line. Then lines are left out, so that a reader that hangs does not hold
/// the build; when it reads again, it is told how many.
const PATIENCE: Duration = Duration::from_secs(2);

/// The writing end.
pub(super) struct Log {
    reader: mpsc::Sender<String>,
    left_out: u64,
}

impl Log {
    pub(super) fn new(reader: mpsc::Sender<String>) -> Self {
        Self { reader, left_out: 0 }
    }

    /// Hands on a line, if it can be done.
    pub(super) async fn line(&mut self, line: String) {
        if self.left_out > 0 {
            let words = format!("({} lines were left out: they were not read fast enough)", self.left_out);
            if self.reader.try_send(words).is_err() {
                self.left_out += 1;
                return;
            }
            self.left_out = 0;
        }
        match self.reader.send_timeout(line, PATIENCE).await {
            Ok(()) | Err(mpsc::error::SendTimeoutError::Closed(_)) => {}
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => self.left_out += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_hangs_does_not_hold_the_build() {
        let (sender, mut reader) = mpsc::channel(2);
        let mut log = Log::new(sender);
        for number in 0..100 {
            log.line(number.to_string()).await;
        }
        assert_eq!((reader.recv().await.as_deref(), reader.recv().await.as_deref()), (Some("0"), Some("1")));
        log.line("last".to_owned()).await;
        let words = reader.recv().await.unwrap();
        assert!(words.contains("98 lines"), "{words}");
        assert_eq!(reader.recv().await.as_deref(), Some("last"));
    }

    #[tokio::test]
    async fn a_reader_that_left_does_not_end_the_build() {
        let (sender, reader) = mpsc::channel(1);
        drop(reader);
        Log::new(sender).line("x".to_owned()).await;
    }
}
