//! Accepts connections, decides who serves them, and takes each as far as its first byte of HTTP: who the client is, whether
//! there is room for it, and TLS.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::balance::{Arrival, Balance};
use super::budget::{Place, Room, Spent};
use super::handshakes::{self, Handshakes};
use crate::config::{Http2, Limits, Network};
use crate::decide::headers::{Facts, Scheme};
use crate::decide::refuse::Reason;
use crate::front::conn::Transport;
use crate::front::proxy_protocol::{self, HeaderError, Source};
use crate::front::stream::Stream;
use crate::front::tls::{Agreed, Offered, Tls};
use crate::front::{Visit, Worker, serve, turn_away};
use crate::life::Stop;
use crate::metrics::{Door, NoHandshake};
use crate::overload::Level;

/// After a failed accept, growing to the second: the failure is mostly a lack of descriptors, which passes.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What the connections of one listener have in common.
pub(crate) struct Entrance {
    /// Where TLS is spoken.
    pub(crate) tls: Option<Tls>,
    pub(crate) http2: Http2,
    /// The edge's, but for what the listener has of its own.
    pub(crate) limits: Arc<Limits>,
    /// How many there may be.
    pub(crate) room: Arc<Room>,
    /// Whose connections begin with a PROXY protocol header.
    pub(crate) proxy_protocol_from: Vec<Network>,
    /// Whose forwarding fields are believed.
    pub(crate) trust_forwarded_from: Arc<[Network]>,
    /// Where its connections are counted.
    pub(crate) door: Arc<Door>,
}

/// What one worker receives connections with.
pub(super) struct Reception {
    pub(super) worker: Rc<Worker>,
    pub(super) number: usize,
    pub(super) balance: Arc<Balance>,
    pub(super) handshakes: Rc<Handshakes>,
    pub(super) stop: watch::Receiver<Stop>,
    /// Held by each connection.
    pub(super) running: watch::Receiver<()>,
}

/// Accepts for as long as it is polled.
pub(super) async fn accept(listener: AsyncFd<Arc<Socket>>, entrance: Arc<Entrance>, reception: Rc<Reception>) {
    let mut backoff = BACKOFF.0;
    loop {
        match listener.async_io(Interest::READABLE, |socket| socket.accept()).await {
            Ok((socket, peer)) => {
                backoff = BACKOFF.0;
                reception.sort(socket, peer.as_socket(), &entrance);
            }
            // The client left before it was its turn.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let edge = &reception.worker.edge;
                if let Some(left_out) = edge.quiet.say(edge.signals.now()) {
                    warn!(%error, left_out, "a connection could not be accepted");
                }
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
    }
}

impl Reception {
    /// Counts a connection, and has it served: here, or by a worker that has less to do.
    pub(super) fn sort(self: &Rc<Self>, socket: Socket, peer: Option<SocketAddr>, entrance: &Arc<Entrance>) {
        let place = match self.worker.edge.budget.connection(&entrance.room) {
            Ok(place) => place,
            Err(spent) => return self.refused(spent, &entrance.door),
        };
        let seat = self.balance.accepted(self.number);
        let arrival = Arrival { socket, peer, entrance: Arc::clone(entrance), seat, place };
        // Others may be further with their end than this one is.
        let kept = if self.stop.borrow().is_asked() { Some(arrival) } else { self.balance.hand_over(arrival) };
        if let Some(arrival) = kept {
            self.take(arrival);
        }
    }

    /// Serves a connection on this worker.
    pub(super) fn take(self: &Rc<Self>, arrival: Arrival) {
        let reception = Rc::clone(self);
        let Arrival { socket, peer, entrance, seat, place } = arrival;
        let stream = match Stream::accepted(socket, peer) {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "a connection was gone at once"),
        };
        let inside = entrance.door.enter();
        tokio::task::spawn_local(async move {
            // The reception has to go before the end of the last connection is waited for.
            let running = reception.running.clone();
            connection(&reception, stream, peer, &entrance, place).await;
            drop((seat, inside, running));
        });
    }

    fn refused(&self, spent: Spent, door: &Door) {
        let edge = &self.worker.edge;
        door.refuse(spent as usize);
        edge.budget.note(spent);
        let Some(left_out) = edge.quiet.say(edge.signals.now()) else { return };
        match spent {
            Spent::Connections => {
                warn!(left_out, "there are as many connections as there may be: a new one was closed")
            }
            Spent::Client => warn!(left_out, "a client has as many connections as it may have: a new one was closed"),
            Spent::Handshakes => {
                warn!(left_out, "there are as many TLS handshakes as there may be: one was given up");
            }
            // Each is answered, and that is logged.
            Spent::Streams => {}
        }
    }
}

async fn connection(
    reception: &Reception,
    mut stream: Stream,
    peer: Option<SocketAddr>,
    entrance: &Entrance,
    mut place: Place,
) {
    let limits = &entrance.limits;
    let patience = if entrance.tls.is_some() { limits.tls_handshake } else { limits.head };
    let deadline = Instant::now() + patience;
    let scheme = if entrance.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let client = peer.map(|peer| peer.ip().to_canonical());
    let mut facts = Facts { client, port: stream.port(), scheme };
    let mut trusted = Some(&entrance.trust_forwarded_from);
    let listed = |networks: &[Network]| networks.iter().any(|network| network.contains(facts.client));
    if listed(&entrance.proxy_protocol_from) {
        // In a box: it is short, and the connection is long.
        match timeout_at(deadline, Box::pin(proxy_protocol::read(&mut stream))).await {
            Ok(Ok(Source::Socket)) => {}
            Ok(Ok(Source::Client { address, port })) => {
                facts = Facts { client: Some(address), port: Some(port), ..facts };
            }
            // It came through somebody else's Unix socket: that is not the one of ours whose users are known.
            Ok(Ok(Source::Nameless)) => {
                facts = Facts { client: None, port: None, ..facts };
                trusted = None;
            }
            Ok(Err(HeaderError::Ended)) => return,
            Ok(Err(error)) => return Box::pin(no_header(reception, stream, (facts, limits), &error)).await,
            Err(_) => return debug!("a PROXY protocol header took too long"),
        }
    }
    let listed = |networks: &[Network]| networks.iter().any(|network| network.contains(facts.client));
    let trusted = trusted.filter(|trusted| listed(trusted)).map(Arc::clone);
    // A trusted proxy's connections are of many clients.
    if trusted.is_none()
        && let Err(spent) = place.of_client(facts.client)
    {
        return reception.refused(spent, &entrance.door);
    }
    let (transport, offered, agreed) = match &entrance.tls {
        None => (Transport::Plain(stream), None, None),
        Some(tls) => match Box::pin(handshake(reception, (tls, &entrance.door), stream, deadline)).await {
            Some(shaken) => shaken,
            None => return,
        },
    };
    let silent = if entrance.tls.is_some() { Instant::now() + limits.head } else { deadline };
    // Over TLS it is agreed on, or not spoken.
    let http2 = if entrance.tls.is_some() { Http2::Off } else { entrance.http2 };
    let limits = Arc::clone(limits);
    serve(&reception.worker, transport, Visit { facts, limits, offered, agreed, trusted, http2, silent }).await;
}

async fn handshake(
    reception: &Reception,
    (tls, door): (&Tls, &Door),
    stream: Stream,
    deadline: Instant,
) -> Option<(Transport, Option<Arc<Offered>>, Option<Agreed>)> {
    let edge = &reception.worker.edge;
    let (overload, tally) = (&edge.overload, &edge.tally);
    let refused = || {
        if overload.is_at(Level::Handshakes) {
            overload.shed_handshake();
        }
        reception.refused(Spent::Handshakes, door);
    };
    let room = if overload.is_at(Level::Handshakes) { handshakes::Room::None } else { handshakes::Room::Some };
    let Some(mut place) = reception.handshakes.begin(Instant::now(), room) else {
        refused();
        return None;
    };
    let _under_way = overload.handshake();
    // Neither is looked at again once one of them is there.
    tokio::select! {
        shaken = timeout_at(deadline, tls.accept(stream)) => match shaken {
            Ok(Ok((stream, offered))) => {
                let agreed = Agreed::of(stream.get_ref().1);
                tally.handshake(&agreed);
                return Some((Transport::Tls(Box::new(stream)), offered, Some(agreed)));
            }
            Ok(Err(error)) => {
                tally.no_handshake(NoHandshake::Failed);
                debug!(%error, "TLS handshake failed");
            }
            Err(_) => {
                tally.no_handshake(NoHandshake::Timeout);
                debug!("TLS handshake took too long");
            }
        },
        () = place.given_up() => {
            tally.no_handshake(NoHandshake::GivenUp);
            refused();
        }
    }
    None
}

/// Tells what is missing where that can be told without TLS.
async fn no_header(reception: &Reception, stream: Stream, (facts, limits): (Facts, &Arc<Limits>), error: &HeaderError) {
    debug!(%error, "a proxy's connection is refused");
    if facts.scheme == Scheme::Http {
        turn_away(&reception.worker, Transport::Plain(stream), (facts, limits), Reason::ProxyHeader).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::conn::Conn;

    /// The size of what such a function waits with.
    fn held<'a, F: Future>(
        _: impl FnOnce(&'a Reception, Stream, Option<SocketAddr>, &'a Entrance, Place) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_holds_nothing_of_what_is_done_for_a_request() {
        let (held, conn) = (held(connection), size_of::<Conn>());
        assert!(held + conn <= 2 << 10, "{held} and {conn} bytes");
    }
}
