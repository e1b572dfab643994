//! Visitors who come all the time, until they are asked what they got.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::http::Visitor;
use crate::world::World;

/// Between two visits of one visitor.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Crowd<T> {
    done: Arc<AtomicBool>,
    all: JoinSet<Vec<T>>,
}

impl<T: Send + 'static> Crowd<T> {
    /// Two of them: one keeps its connection, the other has a new one for each visit.
    pub(crate) fn begin<F>(world: &World, visit: impl Fn(Visitor) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = T> + Send,
    {
        let done = Arc::new(AtomicBool::new(false));
        let mut all = JoinSet::new();
        for visitor in [world.visitor(), world.fleeting_visitor()] {
            let (done, visit) = (done.clone(), visit.clone());
            all.spawn(async move {
                let mut got = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    got.push(visit(visitor.clone()).await);
                    tokio::time::sleep(PAUSE).await;
                }
                got
            });
        }
        Self { done, all }
    }

    /// What each of them got at each visit; it is not nothing.
    pub(crate) async fn end(self) -> Vec<T> {
        self.done.store(true, Ordering::SeqCst);
        let got: Vec<T> = self.all.join_all().await.into_iter().flatten().collect();
        assert!(!got.is_empty(), "nobody came");
        got
    }
}
