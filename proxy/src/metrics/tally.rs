//! What one worker counts.

use std::sync::OnceLock;

use super::count::Count;
use super::site::{Outcome, Site};
use super::{NOBODY, PLACES, Place};
use crate::front::tls::Agreed;

/// Why a connection of HTTP/2 was sent GOAWAY.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goaway {
    /// It was idle, or its turn to end.
    Graceful,
    /// It cost more than it used.
    Calm,
}

/// How a TLS handshake ended that did not come to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoHandshake {
    Failed,
    Timeout,
    /// For a newer one.
    GivenUp,
}

pub(super) const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];
pub(super) const GOAWAYS: [&str; 2] = ["graceful", "enhance_your_calm"];
pub(super) const NO_HANDSHAKES: [&str; 3] = ["failed", "timeout", "given_up"];

/// See the module.
pub(crate) struct Tally {
    /// By [`Place`]; made when the first request comes.
    sites: Box<[OnceLock<Box<Site>>]>,
    /// Requests that began, and those that ended.
    pub(crate) begun: Count,
    pub(super) ended: Count,
    /// By version, and whether it resumed.
    pub(super) handshakes: [[Count; 2]; VERSIONS.len()],
    pub(super) no_handshakes: [Count; NO_HANDSHAKES.len()],
    /// Streams of HTTP/2 that were accepted, and those that were malformed.
    pub(crate) streams: Count,
    pub(crate) malformed: Count,
    pub(super) goaways: [Count; GOAWAYS.len()],
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            sites: (0..PLACES).map(|_| OnceLock::new()).collect(),
            begun: Count::zero(),
            ended: Count::zero(),
            handshakes: [const { [const { Count::zero() }; 2] }; VERSIONS.len()],
            no_handshakes: [const { Count::zero() }; NO_HANDSHAKES.len()],
            streams: Count::zero(),
            malformed: Count::zero(),
            goaways: [const { Count::zero() }; GOAWAYS.len()],
        }
    }

    /// A request ended; it had this place.
    pub(crate) fn request(&self, place: Option<&Place>, outcome: &Outcome) {
        self.ended.add(1);
        let place = place.map_or(NOBODY, Place::get);
        if let Some(site) = self.sites.get(place as usize) {
            site.get_or_init(Box::default).count(outcome);
        }
    }

    /// A TLS handshake came to its end.
    pub(crate) fn handshake(&self, agreed: &Agreed) {
        if let Some(at) = VERSIONS.iter().position(|version| *version == agreed.version) {
            self.handshakes[at][usize::from(agreed.resumed)].add(1);
        }
    }

    /// A TLS handshake did not.
    pub(crate) fn no_handshake(&self, how: NoHandshake) {
        self.no_handshakes[how as usize].add(1);
    }

    /// A connection of HTTP/2 was sent GOAWAY.
    pub(crate) fn goaway(&self, why: Goaway) {
        self.goaways[why as usize].add(1);
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = (u32, &Site)> {
        (0..).zip(&self.sites).filter_map(|(place, site)| Some((place, &**site.get()?)))
    }

    /// Only while nobody counts there.
    pub(super) fn forget(&self, place: u32) {
        if let Some(site) = self.sites.get(place as usize).and_then(OnceLock::get) {
            site.reset();
        }
    }
}
