//! The control plane: decides what should be true and makes it true.

pub mod context;
pub mod engine;
