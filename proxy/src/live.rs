//! The one table that requests are served by.
//!
//! A request reads one shard and one cell: no lock, no allocation, no copy of more than a pointer. The feed is the only
//! writer; a change costs its own size, however large the table is.

pub(crate) mod balance;
pub(crate) mod cell;
pub(crate) mod drain;
pub(crate) mod feed;
pub(crate) mod health;
pub(crate) mod hosts;
pub(crate) mod judge;
pub(crate) mod lasting;
pub(crate) mod latency;
pub(crate) mod retries;
pub(crate) mod signals;
pub(crate) mod sites;
pub(crate) mod sticky;
pub(crate) mod terms;

use crate::front::tls::certificates::Certificates;
use sites::Sites;
use sticky::StickyKey;

/// Everything that requests look up.
pub(crate) struct Live {
    /// Host → what becomes of its requests.
    pub(crate) sites: Sites,
    /// Host → what it proves itself with.
    pub(crate) certificates: Certificates,
    /// What cookies are signed with.
    pub(crate) sticky: StickyKey,
}

impl Live {
    pub(crate) fn new(sticky: StickyKey) -> Self {
        Self { sites: Sites::new(), certificates: Certificates::new(), sticky }
    }
}
