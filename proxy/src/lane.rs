//! How a decided request is carried: through Pingora, or by an answer of our own.

pub(crate) mod answer;
pub(crate) mod pages;
pub(crate) mod pingora;
mod trace;
