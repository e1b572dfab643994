//! How a decided request is carried: through Pingora, or by an answer of our own.

mod again;
pub(crate) mod answer;
pub(crate) mod compress;
mod encoder;
mod failed;
pub(crate) mod lasting;
pub(crate) mod pages;
pub(crate) mod pingora;
mod response;
mod stream;
mod trace;
