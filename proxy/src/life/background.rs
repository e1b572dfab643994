//! What runs on the feed's thread: updates, reports, the admin listener, and the age of ticket keys.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use dormouse_link::{Report, Table, Update};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Stop;
use crate::admin;
use crate::edge::Edge;
use crate::front::listen::worker::block_on;
use crate::front::tls::tickets::{self, Tickets};
use crate::live::feed::Feed;
use crate::live::signals::Heard;
use crate::overload::Lookout;

/// See the module.
pub(super) struct Background {
    pub(super) edge: Arc<Edge>,
    pub(super) admin: Option<TcpListener>,
    pub(super) tickets: Vec<Arc<Tickets>>,
    pub(super) updates: mpsc::Receiver<Update>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) heard: Heard,
    pub(super) ready: watch::Sender<bool>,
    pub(super) stop: watch::Receiver<Stop>,
}

impl Background {
    pub(super) fn run(self) {
        let ended = block_on(async move {
            let Self { edge, admin, tickets, updates, reports, heard, ready, stop } = self;
            let table = Rc::new(RefCell::new(Table::default()));
            let feed = {
                let (live, signals) = (Arc::clone(&edge.live), Arc::clone(&edge.signals));
                let lookout = Lookout::new(Arc::clone(&edge.overload));
                Feed::new(live, signals, Arc::clone(&edge.metrics), Rc::clone(&table), ready, lookout)
            };
            let limits = Arc::clone(&edge.limits);
            if let Some(listener) = admin.and_then(|listener| tokio::net::TcpListener::from_std(listener).ok()) {
                tokio::task::spawn_local(admin::serve(listener, edge, table));
            }
            tokio::task::spawn_local(tickets::turn(tickets));
            // Ends with the workers, or at once where there is no shutdown; what it was doing is worth nothing then.
            tokio::select! {
                () = feed.run(&limits, updates, reports, heard) => {}
                () = over(stop) => {}
            }
        });
        if let Err(error) = ended {
            tracing::error!(%error, "the feed could not run");
        }
    }
}

/// Resolves when the workers' deadline is over, which a shutdown brings forward to when they have ended.
async fn over(mut stop: watch::Receiver<Stop>) {
    loop {
        match *stop.borrow_and_update() {
            Stop::At(at) if at <= Instant::now() => return,
            _ => {}
        }
        if stop.changed().await.is_err() {
            return;
        }
    }
}
