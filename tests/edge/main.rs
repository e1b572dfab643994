//! The edge as a program, without a control plane: what it serves is a file.

#![expect(clippy::unwrap_used, reason = "what a test relies on ends it")]

mod authority;
mod config;
mod drain;
mod files;
mod http2;
mod listening;
mod load;
mod observe;
mod passed;
mod program;
mod slow;
mod speaker;
mod tls;
mod upgrade;
mod upgrade_fails;
