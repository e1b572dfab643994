//! From listening sockets to connections that are served: workers, their balance, and what all of them may take together.
//!
//! Each worker is a thread with a runtime, a Pingora proxy and pools of its own. A connection stays on the worker that the
//! kernel gave it to, unless that one has far more than the others ([`balance`]). The [`sockets`] outlive every worker.

pub(crate) mod accept;
pub(crate) mod balance;
pub(crate) mod budget;
mod handshakes;
pub(crate) mod sockets;
pub(crate) mod worker;
