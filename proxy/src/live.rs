//! The one table that requests are served by.
//!
//! A request reads one shard and one cell: no lock, no allocation, no copy of more than a pointer. The feed is the only
//! writer; a change costs its own size, however large the table is.

pub(crate) mod cell;
pub(crate) mod drain;
pub(crate) mod feed;
pub(crate) mod hosts;
pub(crate) mod signals;
pub(crate) mod sites;

use crate::front::tls::certificates::Certificates;
use sites::Sites;

/// Everything that requests look up.
pub(crate) struct Live {
    /// Host → what becomes of its requests.
    pub(crate) sites: Sites,
    /// Host → what it proves itself with.
    pub(crate) certificates: Certificates,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self { sites: Sites::new(), certificates: Certificates::new() }
    }
}
