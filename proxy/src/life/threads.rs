//! Threads that are waited for without blocking.

use std::convert::Infallible;
use std::thread::{Builder, JoinHandle};

use tokio::sync::mpsc;

use super::StartError;

/// Threads that hold a sender until they end.
pub(super) struct Threads {
    threads: Vec<JoinHandle<()>>,
    running: mpsc::Sender<Infallible>,
    ended: mpsc::Receiver<Infallible>,
}

impl Threads {
    pub(super) fn new() -> Self {
        let (running, ended) = mpsc::channel(1);
        Self { threads: Vec::new(), running, ended }
    }

    pub(super) fn start(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let running = self.running.clone();
        let thread = Builder::new().name(name).spawn(move || {
            run();
            drop(running);
        });
        self.threads.push(thread.map_err(StartError::Thread)?);
        Ok(())
    }

    /// Waits until all have ended, which they were told before.
    pub(super) async fn ended(mut self) {
        drop(self.running);
        let _ = self.ended.recv().await;
        join(self.threads);
    }
}

/// Threads that have come to their last lines.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // It reported its own panic; there is nothing more to do about it here.
        let _ = thread.join();
    }
}
