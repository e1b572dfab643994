//! The control plane: decides what should be true and makes it true.

pub mod authority;
pub mod backoff;
pub mod context;
pub mod engine;
pub mod git;
pub mod health;
pub mod task;
