//! The data plane: serves what it was last told. The life of a request, in prose:
//!
//! A worker thread accepts a connection (`front::listen`), or is handed one by a worker that has too many. It learns who
//! the client is (`front::proxy_protocol`), shakes hands if it is TLS (`front::tls`), and wraps the connection in a *fence*
//! (`front::conn`). The *gate* (`front::gate`) reads one head, under a total deadline and a size, and parses it strictly
//! (`front::head`); what is ambiguous ends here. The head is *decided* (`decide`): its host leads through one shard of the
//! *live* table (`live`) to its site (`live::sites`), whose rules lead to an environment's cell by every reading of the
//! path (`decide::paths`), or elsewhere (`decide::location`), or the request is answered from the one table of reasons
//! (`decide::refuse`, `lane::answer`).
//!
//! Where the environment's policy asks for it, a routed request passes *checks* (`checks`): networks, rates, maintenance,
//! passwords, another's word, concurrency; whoever does not pass wakes nobody and reaches nobody.
//!
//! It is then *admitted* (`wake`): it counts itself, looks at the cell, and takes an endpoint, by the plan that was made
//! with the cell's version (`live::balance`) and without those that failed again and again (`live::health`). If the
//! environment sleeps, it waits for a newer cell instead, its body unread, and the control plane hears that the environment
//! is wanted. Then the connection is lent to the *lane* (`lane::pingora`) with its *exchange* (`exchange`), which carries
//! all that was decided; the fence shows Pingora this one message and nothing of the next, while the client keeps up a
//! least pace (`front::pace`). Fields are rewritten (`decide::headers`), the endpoint becomes a peer whose pool key holds
//! environment and epoch (`origin`), bodies stream both ways. An endpoint that cannot be connected to is reported, and
//! another tried, or a newer cell waited for, while nothing was sent; all retries of an environment are a part of its
//! requests (`live::retries`). An answer whose end could be found in two ways is refused (`decide::response`); where the policy
//! says so, it is compressed for who takes it (`decide::compress`, `lane::compress`). Where there is no answer, people get the
//! environment's page (`decide::pages`) or ours (`lane::pages`).
//!
//! An answer may become what lasts for ever (`lane::lasting`): a WebSocket, which is followed frame by frame (`front::websocket`),
//! or an event stream. It counts as activity by its data alone (`live::lasting`), and is ended with notice when its environment is
//! to sleep, and at the end of the proxy (`front::until_closed`).
//!
//! Who chose HTTP/2 (by ALPN, or by its preface where the listener allows that) is served by `front::http2`: one task
//! drives the connection, and each stream is a request that is decided, admitted and carried as above; its exchange travels
//! with its head.
//!
//! When memory, descriptors or another thing runs short (`overload`), new handshakes are refused first, then held requests
//! are sent away, and then new requests to the busiest environment are refused.
//!
//! When the exchange is dropped, however the request ended, its place in flight is free, it is counted (`metrics`), and its
//! record is queued (`access`). The connection comes back to the gate, or is closed so that its client can still read the
//! answer.
//!
//! Beside the workers one thread runs the *feed* (`live::feed`): it applies updates, acknowledges them when no request can
//! choose by an older cell, and says upwards what is wanted, drained, unreachable (`wake`, `live::drain`) and seen
//! (`activity`). The admin listener (`admin`) is on that thread, too. There is no global state: two proxies in one process
//! share nothing but Pingora's clock.

mod access;
mod activity;
mod admin;
mod checks;
mod clients;
mod config;
mod count;
mod decide;
mod descriptors;
mod dice;
mod drain;
mod edge;
mod exchange;
mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lane;
mod life;
mod live;
#[cfg(feature = "measuring")]
pub mod measuring;
mod metrics;
mod origin;
mod overload;
mod passwords;
mod quiet;
mod spans;
mod wake;

pub use access::{Output, OutputError, SyslogAddress};
pub use config::{
    Address, AddressError, Config, Http2, Limits, Listener, ListenerLimits, Network, NetworkError, Protocol,
};
pub use descriptors::raise as raise_descriptor_limit;
pub use front::inherit::{NotListening, gather};
pub use front::listen::sockets::{Keeper, Listening};
pub use front::tls::{
    ClientAuthority, ClientAuthorityError, KeyPair, KeyPairError, OwnTicketKey, TicketKey, TicketKeys, TicketKeysError,
};
pub use life::{Proxy, StartError};
pub use live::sticky::{StickySecret, StickySecretError};
pub use passwords::{NoRandomness, hash as hash_password};
pub use spans::{SPANS_MAX, Share, Span, Spans, Told};
