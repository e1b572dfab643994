//! The data plane from outside: real sockets, raw clients and origins, and a control plane that is a test.

mod access;
mod client_address;
mod drain;
mod failing;
mod framing;
mod lifecycle;
mod listening;
mod routing;
mod streaming;
mod tls;
mod wake;
mod world;
