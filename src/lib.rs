//! The program as a library: what `main` runs, and what the tests may use.

pub mod app;
pub mod boilerplate;
pub mod cli;
pub mod client;
pub mod config;
pub mod edge;
mod ends;
pub mod failure;
mod folder;
pub mod otlp;
mod plain;
mod telemetry;
