//! The data plane from outside: real sockets, raw clients and origins, and a control plane that is a test.

mod access;
mod access_rules;
mod answers;
mod client_address;
mod corpus;
mod drain;
mod failing;
mod framing;
mod http2;
mod http2_abuse;
mod lifecycle;
mod limits;
mod listening;
mod logging;
mod maintenance;
mod pipelining;
mod resumption;
mod routing;
mod slow;
mod streaming;
mod strict;
mod tls;
mod wake;
mod world;
