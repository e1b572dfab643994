//! The one way to start a task: it has a name, a token that tells it to end, and somebody who waits for its end.
//!
//! A panic ends its own task only, and is logged under the task's name. Everything long-lived in the control plane takes a
//! [`Tasks`]; only the program's end calls [`Tasks::stop`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and ends them together. Clones are the same set of tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Set>);

#[derive(Debug, Default)]
struct Set {
    token: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<u64, Cow<'static, str>>>,
    next: AtomicU64,
}

impl Tasks {
    /// No task yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Is cancelled when the tasks are to end. Cancelling it ends nobody else.
    pub fn token(&self) -> CancellationToken {
        self.0.token.child_token()
    }

    /// Starts a task on the current runtime. It is expected to end soon after [`Tasks::token`] is cancelled.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.running().insert(id, name.clone());
        let listed = Listed { set: self.0.clone(), id };
        self.0.tracker.spawn(async move {
            // Moved in, so that the name leaves the list however the task ends.
            let _listed = listed;
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                tracing::error!(task = %name, panic = words(&*panic), "a task panicked");
            }
        });
    }

    /// Tells every task to end and waits at most `within` for it; the names of those that had not ended then, in the order
    /// of their start.
    pub async fn stop(&self, within: Duration) -> Vec<String> {
        self.0.token.cancel();
        self.0.tracker.close();
        match tokio::time::timeout(within, self.0.tracker.wait()).await {
            Ok(()) => Vec::new(),
            Err(_) => self.0.running().values().map(ToString::to_string).collect(),
        }
    }
}

impl Set {
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Cow<'static, str>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's place in the list of running ones.
struct Listed {
    set: Arc<Set>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.set.running().remove(&self.id);
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stop_tells_every_task_and_names_those_that_do_not_end() {
        let tasks = Tasks::new();
        let token = tasks.token();
        tasks.spawn("obeys", async move { token.cancelled().await });
        tasks.spawn("ends by itself", async {});
        tasks.spawn("deaf", std::future::pending());
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, ["deaf"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_its_own_task_only() {
        let tasks = Tasks::new();
        let (send, receive) = oneshot::channel();
        tasks.spawn("panics", async { panic!("on purpose") });
        tasks.spawn("goes on", async { send.send(()).expect("the test waits") });
        receive.await.expect("the second task ran");
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_cancelled_ends_nobody_else() {
        let tasks = Tasks::new();
        tasks.token().cancel();
        assert!(!tasks.token().is_cancelled());
    }
}
