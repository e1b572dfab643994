//! The way back to a client: pieces of a response, lines for people, and a sign of life while there is nothing to say.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::packet;

/// A piece of a response, or the reason why it is cut.
pub(super) type Piece = Result<Bytes, io::Error>;

/// While there is nothing to show, the client and whoever is between hear this often that we are here.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(4);

/// The last words where the lines had not ended when the time was over.
const GOES_ON: &str = "dormouse stops showing here, but the deployment goes on: see it with: dormouse status";

/// When an exchange ends at the latest.
#[derive(Clone)]
pub(super) struct Until {
    /// The program stops.
    pub(super) stop: CancellationToken,
    /// It has taken too long.
    pub(super) at: Instant,
}

impl Until {
    /// Waits for the end.
    pub(super) async fn reached(&self) {
        // Cancel-safe: neither side keeps anything.
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep_until(self.at) => {}
        }
    }
}

/// A client's ear.
pub(super) struct Out {
    /// `None` once the client has gone.
    sender: Option<mpsc::Sender<Piece>>,
    until: Until,
}

impl Out {
    pub(super) fn new(sender: mpsc::Sender<Piece>, until: Until) -> Self {
        Self { sender: Some(sender), until }
    }

    /// When it ends.
    pub(super) fn until(&self) -> &Until {
        &self.until
    }

    /// Whether nobody listens any more.
    pub(super) fn gone(&self) -> bool {
        self.sender.is_none()
    }

    /// Sends a piece; does nothing where the client has gone or the time is over.
    pub(super) async fn send(&mut self, piece: Piece) {
        let Some(sender) = &self.sender else { return };
        // Cancel-safe: a piece that is not sent is the last. Biased, so that last words go out where there is room for them.
        let sent = tokio::select! {
            biased;
            sent = sender.send(piece) => sent.is_ok(),
            () = self.until.reached() => false,
        };
        if !sent {
            self.sender = None;
        }
    }

    /// Waits for something, and lets the client know that we are here.
    pub(super) async fn keep_alive_during<T>(&mut self, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            // Cancel-safe: `what` stays where it is, and a sleep is begun anew.
            tokio::select! {
                done = &mut what => return done,
                () = sleep(KEEP_ALIVE_EVERY) => self.send(Ok(packet::KEEP_ALIVE)).await,
            }
        }
    }

    /// Shows lines until they end, the client goes, or the time is over.
    pub(super) async fn show(&mut self, mut lines: mpsc::Receiver<String>) {
        let until = self.until.clone();
        while let Some(sender) = self.sender.clone() {
            // Cancel-safe: a line that is not received stays in the channel, and a sleep is begun anew. Biased, so that lines
            // which are there are shown, the last ones above all.
            tokio::select! {
                biased;
                line = lines.recv() => match line {
                    Some(line) => self.send(Ok(packet::line(&line))).await,
                    None => return,
                },
                () = sender.closed() => self.sender = None,
                () = until.reached() => return self.send(Ok(packet::line(GOES_ON))).await,
                () = sleep(KEEP_ALIVE_EVERY) => self.send(Ok(packet::KEEP_ALIVE)).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn out(at: Duration) -> (Out, mpsc::Receiver<Piece>) {
        let (sender, receiver) = mpsc::channel(100);
        (Out::new(sender, Until { stop: CancellationToken::new(), at: Instant::now() + at }), receiver)
    }

    fn all(mut receiver: mpsc::Receiver<Piece>) -> Vec<Bytes> {
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|piece| piece.expect("no piece is an error")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_deployment_keeps_its_client() {
        let (mut out, receiver) = out(Duration::from_secs(3600));
        let (sender, lines) = mpsc::channel(1);
        let deployment = async move {
            for line in ["one", "two"] {
                sleep(Duration::from_secs(9)).await;
                sender.send(line.to_owned()).await.expect("somebody reads");
            }
        };
        tokio::join!(out.show(lines), deployment);
        let alive = packet::KEEP_ALIVE;
        let expected = [alive.clone(), alive.clone(), packet::line("one"), alive.clone(), alive, packet::line("two")];
        assert_eq!(all(receiver), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_time_is_over_the_client_is_told_that_the_deployment_goes_on() {
        let (mut out, receiver) = out(Duration::from_secs(1));
        let (_sender, lines) = mpsc::channel(1);
        out.show(lines).await;
        assert_eq!(all(receiver), [packet::line(GOES_ON)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_gone_is_missed_at_once() {
        let (mut out, receiver) = out(Duration::from_secs(3600));
        drop(receiver);
        let (sender, lines) = mpsc::channel(1);
        timeout(Duration::from_millis(1), out.show(lines)).await.expect("the client is missed");
        assert!(out.gone() && sender.is_closed());
    }
}
