//! Reasons to look: something happened to one of our containers, or we were deaf for a while.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::query_parameters::EventsOptions;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Docker, INSTALLATION, open};

/// The wait before the stream is asked for again: at first, and at most.
const AGAIN_AFTER_MIN: Duration = Duration::from_millis(100);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// The engine repeats what happened in this time before we asked, so that nothing falls between asking and listening.
const OVERLAP: Duration = Duration::from_secs(2);

/// When an event is worth another look. An engine tells that a container died, and only then writes it down: a listing of
/// the same moment may still show it as running.
const LOOKS_AFTER: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];

/// What is worth a look.
const ACTIONS: [&str; 6] = ["start", "die", "destroy", "pause", "unpause", "oom"];

impl Docker {
    pub(super) fn watch_events(&self) -> mpsc::Receiver<()> {
        // One is enough: it says that there is a reason, not how many.
        let (sender, receiver) = mpsc::channel(1);
        let address = self.address.clone();
        let installation = self.installation.clone();
        let open = self.open.clone();
        #[expect(clippy::disallowed_methods, reason = "it ends with its reader or the engine's handle")]
        tokio::spawn(async move {
            // Any branch may be dropped at any time: a signal carries nothing.
            tokio::select! {
                () = open.cancelled() => {}
                () = sender.closed() => {}
                () = listen(&address, &installation, &sender) => {}
            }
        });
        receiver
    }
}

async fn listen(address: &str, installation: &str, sender: &mpsc::Sender<()>) {
    // Where one is waiting already, it is reason enough.
    let signal = || sender.try_send(()).unwrap_or(());
    let mut again_after = AGAIN_AFTER_MIN;
    loop {
        // It may come back with another version.
        if let Ok(client) = open(address).await {
            let events = client.events(Some(options(installation)));
            signal();
            if hear(events.take_while(|event| std::future::ready(event.is_ok())), signal).await > 0 {
                again_after = AGAIN_AFTER_MIN;
            }
        }
        tokio::time::sleep(again_after).await;
        again_after = (again_after * 2).min(AGAIN_AFTER_MAX);
    }
}

/// Signals at each event, and again a while after the last one; returns how many there were.
async fn hear(events: impl Stream, signal: impl Fn()) -> usize {
    let mut events = std::pin::pin!(events);
    let (mut heard, mut looks) = (0, LOOKS_AFTER.iter());
    let mut last = Instant::now();
    let mut next = None;
    loop {
        let again = async {
            match next {
                Some(after) => sleep_until(last + after).await,
                None => std::future::pending().await,
            }
        };
        // Cancel safe: a stream loses nothing, and time is asked for anew.
        tokio::select! {
            event = events.next() => {
                if event.is_none() {
                    return heard;
                }
                heard += 1;
                last = Instant::now();
                looks = LOOKS_AFTER.iter();
            }
            () = again => {}
        }
        signal();
        next = looks.next().copied();
    }
}

fn options(installation: &str) -> EventsOptions {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(OVERLAP);
    let actions = ACTIONS.iter().map(|action| (*action).to_owned()).collect();
    EventsOptions {
        since: Some(since.as_secs().to_string()),
        filters: Some(HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![format!("{INSTALLATION}={installation}")]),
            ("event".to_owned(), actions),
        ])),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_event_is_a_reason_to_look_now_and_when_the_engine_has_written_it_down() {
        let looks = Cell::new(0);
        let events = stream::iter([(), ()]).chain(stream::pending());
        let heard = tokio::time::timeout(Duration::from_secs(60), hear(events, || looks.set(looks.get() + 1)));
        assert!(heard.await.is_err(), "it goes on");
        assert_eq!(looks.get(), 2 + LOOKS_AFTER.len(), "after the last one only");
        assert_eq!(hear(stream::iter([(), ()]), || {}).await, 2);
    }
}
