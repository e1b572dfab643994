//! What is measured by benches: a table as a running edge has it, with nobody to serve. Nobody else calls it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use dormouse_link::{Found, Table, Update};
use tokio::sync::watch;

use crate::config::Limits;
use crate::decide::headers::{Facts, Scheme};
use crate::decide::{Outcome, Request, decide};
use crate::front::head::Head;
use crate::live::Live;
use crate::live::feed::Feed;
use crate::live::signals::Signals;
use crate::live::sites::Leads;
use crate::live::sticky::{StickyKey, StickySecret};
use crate::metrics::Metrics;
use crate::overload::{Lookout, Overload};

/// What an edge believes.
pub struct Believed {
    live: Arc<Live>,
    feed: Feed,
}

/// A request's head, parsed.
pub struct Asked(Head);

impl Asked {
    /// None where it is no head.
    pub fn parse(text: &str) -> Option<Self> {
        Head::parse(text.as_bytes(), text.len()).ok().map(Self)
    }
}

impl Default for Believed {
    fn default() -> Self {
        let live = Arc::new(Live::new(StickyKey::new(&StickySecret::new([0; 32]))));
        let (signals, _) = Signals::new();
        let table = Rc::new(RefCell::new(Table::default()));
        let lookout = Lookout::new(Overload::new(&Limits::default(), 0, &signals));
        let feed =
            Feed::new(Arc::clone(&live), signals, Metrics::new(1, Vec::new()), table, watch::channel(false).0, lookout);
        Self { live, feed }
    }
}

impl Believed {
    /// Applies an update as the edge does, until nobody can choose by what was there before.
    pub async fn take(&mut self, update: Update) {
        self.feed.take(update).await;
    }

    /// Looks for a normalised host, and takes hold of the environment it leads to, as a request does.
    pub fn finds(&self, host: &str) -> bool {
        let cell = self.live.sites.with(host, |site| match &site?.leads {
            Leads::ToOne(cell) => Some(Arc::clone(cell)),
            Leads::ByRules(_) => None,
        });
        cell.is_some()
    }

    /// Decides a request; whether it goes to an environment.
    pub fn decides(&self, asked: &Asked) -> bool {
        let facts = Facts { client: None, port: None, scheme: Scheme::Http };
        let field = |_: &str| Found::No;
        let request = Request { head: &asked.0, facts: &facts, proof: None, body_max: u64::MAX, field: &field };
        matches!(decide(&request, &self.live.sites).outcome, Outcome::Route(..))
    }
}
