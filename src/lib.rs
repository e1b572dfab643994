//! The program as a library: what `main` runs, and what the tests may use.

pub mod boilerplate;
