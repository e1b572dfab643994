//! Reasons to look: something happened to one of our containers, or we were deaf for a while.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{Docker, INSTALLATION, open};

/// The wait before the stream is asked for again: at first, and at most.
const AGAIN_AFTER_MIN: Duration = Duration::from_millis(100);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// The engine repeats what happened in this time before we asked, so that nothing falls between asking and listening.
const OVERLAP: Duration = Duration::from_secs(2);

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
            let mut events = client.events(Some(options(installation)));
            signal();
            while let Some(Ok(_)) = events.next().await {
                again_after = AGAIN_AFTER_MIN;
                signal();
            }
        }
        tokio::time::sleep(again_after).await;
        again_after = (again_after * 2).min(AGAIN_AFTER_MAX);
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
