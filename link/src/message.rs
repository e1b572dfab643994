//! What travels between the halves: [`Update`] down, [`Report`] up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{EnvironmentId, Epoch, Generation, InstanceId, Object, ObjectId, Term};

/// A step from one generation of the table to a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Of the control plane that sends it.
    pub term: Term,
    /// The generation that the table has afterwards.
    pub generation: Generation,
    /// What it builds on.
    pub base: Base,
    /// New and changed objects, whole.
    pub put: Vec<Object>,
    /// Objects that are gone.
    pub remove: Vec<ObjectId>,
}

/// What an [`Update`] builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// Nothing: what is not in it is gone.
    Snapshot,
    /// A table at this generation, or a later one up to the update's own: objects are whole, so repeating is harmless.
    Since(Generation),
}

/// An update that does not follow on what the edge has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// The sender leads no longer, or was restored from a backup and does not know it.
    #[error("the update's term is {offered}, this edge has seen {have}")]
    OldTerm {
        /// The term of the edge's table.
        have: Term,
        /// The update's.
        offered: Term,
    },
    /// Updates between the two were not received.
    #[error("the update builds on generation {base}, this edge has {have}")]
    Missing {
        /// The generation of the edge's table.
        have: Generation,
        /// What the update builds on.
        base: Generation,
    },
    /// The update would take the table back.
    #[error("the update leads to generation {offered}, this edge has {have}")]
    Backwards {
        /// The generation of the edge's table.
        have: Generation,
        /// What the update leads to.
        offered: Generation,
    },
}

impl Update {
    /// Whether it can be applied to a table of `term` at `generation`.
    pub fn follows(&self, term: Term, generation: Generation) -> Result<(), Gap> {
        if self.term < term {
            return Err(Gap::OldTerm { have: term, offered: self.term });
        }
        if self.term == term && self.generation < generation {
            return Err(Gap::Backwards { have: generation, offered: self.generation });
        }
        match self.base {
            Base::Snapshot => Ok(()),
            Base::Since(base) if self.term == term && base <= generation => Ok(()),
            Base::Since(base) => Err(Gap::Missing { have: generation, base }),
        }
    }
}

/// What an edge tells the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// No request chooses by a cell older than this generation any more.
    Acked {
        /// What was applied.
        generation: Generation,
        /// What was not, with the reason; the previous versions stay.
        rejected: Vec<Rejected>,
    },
    /// The last update did not follow; a snapshot is needed.
    Lost {
        /// What the edge has.
        have: Generation,
    },
    /// Every environment that somebody waits for. Level-triggered: repeated each second until it is served or nobody waits.
    Wanted(Vec<Wanted>),
    /// Nothing is in flight to an instance of this environment that the cell, as applied at `generation`, does not offer.
    /// (A cell offers its endpoints only while `Ready`.)
    Drained {
        /// Which environment.
        environment: EnvironmentId,
        /// The version of the cell it was judged by.
        generation: Generation,
    },
    /// Environments with requests in flight or since the last such report; repeated each second while there are.
    Seen(Vec<Seen>),
    /// An endpoint that should be there could not be connected to.
    Unreachable {
        /// Which environment.
        environment: EnvironmentId,
        /// By which epoch of its endpoints.
        epoch: Epoch,
        /// Which endpoint.
        instance: InstanceId,
    },
}

/// An object the edge refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Which.
    pub id: ObjectId,
    /// Which version of it; the same one is not sent again.
    pub version: Generation,
    /// In words for its owner.
    pub reason: String,
}

/// An environment that requests wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    pub environment: EnvironmentId,
    /// The epoch of the cell they wait on.
    pub epoch: Epoch,
    /// How many are held; 0 where a request was refused because the environment failed, or there was data of a WebSocket or an
    /// event stream while it is `Closing`.
    pub waiters: u32,
}

/// What an environment's traffic was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which.
    pub environment: EnvironmentId,
    /// Requests that run now.
    pub in_flight: u32,
    /// Since the last request ended, or there was data of a WebSocket or an event stream: such streams run, and count by their
    /// data only. Zero while another request runs. Durations travel, not instants: clocks differ.
    #[serde(with = "crate::millis")]
    pub idle: Duration,
}
