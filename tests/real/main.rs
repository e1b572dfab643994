//! The edge as a program between clients and servers of others: what they see through it is what they see of each other.
//!
//! `scripts/install.sh`, `scripts/tools.sh nginx` and `scripts/python.sh` bring them; `make test` calls all three.

#![expect(clippy::unwrap_used, reason = "what a test relies on ends it")]

mod answers;
mod curl;
mod events;
mod framing;
mod grpc;
mod load;
mod pressure;
#[path = "../edge/program.rs"]
#[expect(dead_code, reason = "the tests of the edge alone need more of it")]
mod program;
mod stale;
mod websocket;
mod world;
