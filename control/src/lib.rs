//! The control plane: decides what should be true and makes it true.
//!
//! Everything happens in loops that take no input, only pokes. A push moves a ref, a command writes a row, an edge reports what
//! it saw, the engine says that something happened: each is a reason to look. The reconciler of each environment (see
//! [`reconcile`]) then observes the store, the engine and the signals, plans (pure), acts, and what edges should believe
//! goes out as a newer table. Whoever waits for a result watches the store. So a crash at any point leaves rows from which
//! the next look goes on, and a lost poke costs a period, not a step.
//!
//! The parts, from the outside in: `api` and `git` (what people send), `apps` (what they may do), `follow` and `logs` (what they are shown),
//! `refs`, `builder`, `reconcile` → `plan` → `act` (the loops), `publish` and `signals` (the edges), `store`, `engine`, `context`,
//! `health`, `authority` (the outside world).

mod act;
mod api;
mod apps;
mod attempt;
pub mod authority;
mod away;
pub mod backoff;
mod builder;
mod certify;
mod clock;
pub mod context;
mod control;
pub mod crash;
pub mod engine;
mod error;
mod follow;
pub mod git;
pub mod health;
mod inventory;
mod journal;
pub mod limits;
mod logs;
pub mod model;
pub mod plan;
mod pokes;
mod policy;
mod publish;
pub mod reconcile;
mod refs;
mod signals;
pub mod store;
mod sweep;
pub mod task;
mod variables;
mod world;

pub use api::{EdgePorts, api_routes};
pub use builder::BUILD_DEADLINE;
pub use control::{Config, Control, ControlError, open_store, words};
pub use error::is_disk_full;
pub use publish::EdgeLink;
