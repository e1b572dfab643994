//! Brings edges up to date: what changed since their last update goes down, what they say goes into the signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dormouse_link::{Base, Report, Update};
use tokio::sync::mpsc;

use crate::error::chain;
use crate::model::now;
use crate::signals::EdgeId;
use crate::world::World;

/// Updates that wait for an edge to apply them; a slow edge slows only itself.
const UPDATES: usize = 16;

/// Reports of an edge that wait to be heard.
const REPORTS: usize = 1024;

/// How long changes are collected before they go out as one update.
const COALESCE: Duration = Duration::from_millis(2);

/// Changes are looked for this often, poke or not.
const PERIOD: Duration = Duration::from_secs(5);

static NEXT_EDGE: AtomicU64 = AtomicU64::new(1);

/// The two ends of a link that an edge in the same process holds.
#[derive(Debug)]
pub struct EdgeLink {
    /// What the edge should serve.
    pub updates: mpsc::Receiver<Update>,
    /// What the edge has to say.
    pub reports: mpsc::Sender<Report>,
}

/// Joins an edge: it gets a snapshot, then every change. It counts as gone when it drops its end.
pub(crate) fn join(world: &Arc<World>) -> EdgeLink {
    let edge = NEXT_EDGE.fetch_add(1, Ordering::Relaxed);
    let (down, updates) = mpsc::channel(UPDATES);
    let (reports, up) = mpsc::channel(REPORTS);
    let again = Arc::new(tokio::sync::Notify::new());
    world.signals.join(edge);
    let (sender, hearer) = (world.clone(), world.clone());
    let behind = again.clone();
    world.tasks.spawn(format!("updates to edge {edge}"), async move {
        send(&sender, &down, &behind).await;
        sender.signals.leave(edge);
        sender.pokes.poke_all();
    });
    world.tasks.spawn(format!("reports of edge {edge}"), async move { hear(&hearer, edge, up, &again).await });
    EdgeLink { updates, reports }
}

async fn send(world: &Arc<World>, down: &mpsc::Sender<Update>, behind: &tokio::sync::Notify) {
    let stop = world.tasks.token();
    let mut base = Base::Snapshot;
    let mut changes = world.store.changes();
    loop {
        match world.store.objects_since(base).await {
            Ok(update) if base == Base::Snapshot || Base::Since(update.generation) != base => {
                let generation = update.generation;
                if down.send(update).await.is_err() {
                    return;
                }
                base = Base::Since(generation);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(error = chain(&error), "changes could not be read"),
        }
        // Cancel safe: `changed` and `Notify` keep what happened meanwhile; the period finds the rest.
        tokio::select! {
            _ = changes.changed() => tokio::time::sleep(COALESCE).await,
            () = world.publish_poke.notified() => {}
            () = behind.notified() => base = Base::Snapshot,
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return,
            () = down.closed() => return,
        }
    }
}

async fn hear(world: &Arc<World>, edge: EdgeId, mut up: mpsc::Receiver<Report>, behind: &tokio::sync::Notify) {
    let stop = world.tasks.token();
    loop {
        // Cancel safe: `recv` loses nothing.
        let report = tokio::select! {
            report = up.recv() => report,
            () = stop.cancelled() => return,
        };
        let Some(report) = report else { return };
        match &report {
            Report::Acked { rejected, generation } => {
                for rejected in rejected {
                    tracing::error!(edge.id = edge, object = ?rejected.id, %generation, reason = rejected.reason, "an edge refused an object");
                }
            }
            Report::Lost { have } => {
                tracing::warn!(edge.id = edge, generation = %have, "an edge lost its place and gets a snapshot");
                behind.notify_one();
            }
            Report::Unreachable { environment, instance, .. } => {
                // Under traffic it comes with every request: the edge logs it, once a second.
                tracing::debug!(environment.id = %environment, instance.id = %instance, "an edge could not connect to an instance");
            }
            Report::Wanted(_) | Report::Drained { .. } | Report::Seen(_) => {}
        }
        for environment in world.signals.hear(edge, &report, now()) {
            world.pokes.poke(&environment);
        }
    }
}
