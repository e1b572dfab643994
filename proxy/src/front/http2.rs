//! One HTTP/2 connection: each stream is decided, admitted and carried like a request of its own.
//!
//! The codec bounds what one connection can ask for; here is what it leaves open: deadlines for the handshake, for idleness
//! and for the end, and a client that costs more than it uses gets GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 section 10.5).
//!
//! At the end of a proxy, a connection on which nothing runs but what may last for ever (event streams, gRPC streams whose answer
//! has begun) is closed as a whole, after its GOAWAY: clients understand that better than single streams that are reset, and
//! gRPC calls it UNAVAILABLE.

pub(crate) mod taking;

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason as Code;
use pingora::apps::HttpServerApp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, handshake};
use pingora::protocols::{Digest, Stream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::conn::{Conn, Wire};
use super::head::{Head, Kind, StreamBody};
use super::listen::budget::Place;
use super::silence::stands_still;
use super::until_closed::sleeps;
use super::{Visit, Worker, decided, linger, prepare, route, words};
use crate::checks::NotPassed;
use crate::config::Limits;
use crate::decide::fields::Fields;
use crate::decide::forwarded::from_fields;
use crate::decide::refuse::Reason;
use crate::drain::{self, Before};
use crate::exchange::{Carried, Exchange};
use crate::lane::answer::Answer;
use crate::metrics::Goaway;
use taking::Taking;

/// Streams of a connection that may be malformed; a working client has none.
const MALFORMED_MAX: u32 = 32;
/// Streams that a client may give up, before it counts that these are more than half of all. A browser gives up some when
/// somebody leaves a page.
const GIVEN_UP_FREE: u32 = 100;

/// How often it is looked, at the end, whether nothing runs any more but what may last for ever; and what the answer that ended
/// last has to leave.
const LOOK: Duration = Duration::from_millis(500);

/// Windows in a row in which a body comes too slowly, until its stream is ended.
const SLOW_WINDOWS: u32 = 2;

/// Serves one connection until it ends.
pub(crate) async fn serve(worker: &Rc<Worker>, mut conn: Box<Conn>, visit: Visit) {
    let limits = &visit.limits;
    conn.lift();
    let wire = Arc::clone(conn.wire());
    let io: Stream = conn;
    // In time or not: what is no HTTP/2 is closed.
    if let Some(connection) = Box::pin(shaken(io, limits)).await {
        streams(worker, connection, &visit).await;
    }
    if wire.is_for_reset() {
        return wire.reset();
    }
    Box::pin(linger(wire.take_back(), worker)).await;
}

/// In a box, for its waiter would have several places for it as long as it lasts.
async fn shaken(io: Stream, limits: &Limits) -> Option<Box<Connection>> {
    let shaken = timeout(limits.head, handshake(io, Some(options(limits)))).await;
    shaken.ok()?.ok().map(Box::new)
}

fn options(limits: &Limits) -> H2Options {
    let mut options = H2Options::new();
    options
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(limits.stream_window)
        // Were it smaller, one stream that is not read would stop the others.
        .initial_connection_window_size(limits.streams.saturating_mul(limits.stream_window))
        .max_send_buffer_size(limits.stream_window as usize);
    options
}

type Connection = h2::server::Connection<Stream, Bytes>;

/// How a stream ended.
enum Ended {
    /// With an answer, or for a reason of ours.
    Served,
    /// By its client, before it was answered.
    GivenUp,
}

/// What a client did so far.
#[derive(Default)]
struct Conduct {
    streams: u32,
    malformed: u32,
    given_up: u32,
}

impl Conduct {
    fn costs_too_much(&self) -> bool {
        self.malformed >= MALFORMED_MAX || (self.given_up > GIVEN_UP_FREE && self.given_up > self.streams / 2)
    }
}

/// How far a connection is in its end.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Open,
    /// GOAWAY was said: what runs, and what crosses it, is served.
    Leaving,
    /// ENHANCE_YOUR_CALM was said: it ends then, whatever runs.
    Thrown(Instant),
}

/// Accepts streams until the connection is over. Only this drives the connection's IO.
async fn streams(worker: &Rc<Worker>, mut connection: Box<Connection>, visit: &Visit) {
    let limits = &visit.limits;
    let digest = Arc::new(Digest::default());
    // Dropped with the connection at the latest: nobody is left to be answered.
    let mut running = JoinSet::new();
    let mut conduct = Conduct::default();
    let (mut phase, mut idle_since) = (Phase::Open, Instant::now());
    let mut turn = pin!(drain::idle(&worker.edge.phase, &worker.edge.dice, Before::Answers));
    let mut last = pin!(drain::streams(&worker.edge.phase, &worker.edge.dice));
    let (lasting, mut is_last) = (Rc::new(Cell::new(0)), false);
    loop {
        // A client that never confirms the GOAWAY is not waited for once nothing runs.
        let patience = if phase == Phase::Open { limits.keep_alive } else { limits.linger };
        // Each arm is cancel-safe: a stream that was not returned is still the connection's.
        let is_over = tokio::select! {
            () = turn.as_mut(), if phase == Phase::Open => true,
            () = sleep_until(idle_since + patience), if running.is_empty() => true,
            () = thrown(phase) => return,
            () = last.as_mut(), if !is_last => {
                is_last = true;
                false
            }
            () = look_again(), if is_last => false,
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => {
                match accepted {
                    Ok(Some(H2Accept::Session(session))) => {
                        conduct.streams += 1;
                        worker.edge.tally.streams.add(1);
                        let place = (!running.is_empty()).then(|| worker.edge.budget.stream()).transpose();
                        let came = Came { visit: visit.clone(), place, lasting: Lasting::new(&lasting) };
                        running.spawn_local(stream(Rc::clone(worker), session, came));
                    }
                    Ok(Some(H2Accept::Rejected)) => {
                        conduct.malformed += 1;
                        worker.edge.tally.malformed.add(1);
                    }
                    // Thrown out, it was ended here.
                    Ok(None) | Err(_) if matches!(phase, Phase::Thrown(_)) => return,
                    Ok(None) | Err(_) => return heard(running, limits).await,
                }
                false
            }
            Some(ended) = running.join_next() => {
                conduct.given_up += u32::from(matches!(ended, Ok(Ended::GivenUp)));
                idle_since = Instant::now();
                false
            }
        };
        match phase {
            Phase::Open if is_over => {
                connection.graceful_shutdown();
                worker.edge.tally.goaway(Goaway::Graceful);
                (phase, idle_since) = (Phase::Leaving, Instant::now());
            }
            _ if is_over => return,
            // An answer that ended right now is still to be sent.
            Phase::Leaving if is_last && lasting.get() == running.len() && idle_since.elapsed() >= LOOK => return,
            _ => {}
        }
        // What was reset does not count for the codec's limit any more, but still runs here.
        let crowd = running.len() > 2 * limits.streams as usize;
        if (crowd || conduct.costs_too_much()) && !matches!(phase, Phase::Thrown(_)) {
            connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
            worker.edge.tally.goaway(Goaway::Calm);
            phase = Phase::Thrown(Instant::now() + limits.linger);
        }
    }
}

/// Lets the streams of a connection hear that their client ended it, or reset them right before: so each ends by itself, and its
/// record says by whom. One that listens to its instance alone for longer than that ends with the others.
async fn heard(mut running: JoinSet<Ended>, limits: &Limits) {
    let all = async { while running.join_next().await.is_some() {} };
    let _ = timeout(limits.linger, all).await;
}

async fn look_again() {
    sleep(LOOK).await;
}

/// What a stream comes with.
struct Came {
    visit: Visit,
    /// The first of those that run has its connection's.
    place: Result<Option<Place>, Reason>,
    lasting: Lasting,
}

/// Whether a stream counts among those of its connection that may last for ever; not any more when it is dropped.
struct Lasting {
    count: Rc<Cell<usize>>,
    counts: Cell<bool>,
}

impl Lasting {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        Self { count: Rc::clone(count), counts: Cell::new(false) }
    }

    fn note(&self) {
        if !self.counts.replace(true) {
            self.count.set(self.count.get() + 1);
        }
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        if self.counts.get() {
            self.count.set(self.count.get() - 1);
        }
    }
}

async fn thrown(phase: Phase) {
    match phase {
        Phase::Thrown(deadline) => sleep_until(deadline).await,
        Phase::Open | Phase::Leaving => pending().await,
    }
}

async fn stream(worker: Rc<Worker>, mut session: HttpSession, came: Came) -> Ended {
    let Came { visit, place, lasting } = came;
    let edge = &worker.edge;
    let body = if session.is_body_empty() { StreamBody::None } else { StreamBody::Follows };
    let head = Head::of_stream(session.req_header(), body, visit.limits.target_bytes);
    let (_place, head) = match place {
        Ok(place) => (place, head),
        Err(reason) => (None, Err(reason)),
    };
    let wire = Arc::new(Wire::default());
    let fields = session.req_header().headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let facts = visit.trusted.as_ref().map_or(visit.facts, |trusted| from_fields(visit.facts, trusted, fields));
    let mut exchange = Box::new(Exchange::new(edge, &visit.limits, facts, &wire, head.as_ref().ok()));
    exchange.came_by(&visit, head.as_ref().ok());
    let prepared = match &head {
        Ok(head) => {
            let sent = Fields::Map(&session.req_header().headers);
            let decision = decided(edge, head, visit.offered.as_deref(), sent, &mut exchange);
            match route(decision, &mut exchange) {
                Ok(reads) => {
                    let fields = reads.then(|| session.req_header().headers.clone());
                    let left = async {
                        // Reset by its client, or gone with its connection.
                        let _ = session.idle().await;
                    };
                    prepare(edge, (head, fields.as_ref()), &mut exchange, left).await
                }
                Err(reason) => Err(NotPassed::Refused(reason)),
            }
        }
        Err(reason) => Err(NotPassed::Refused(*reason)),
    };
    match (prepared.map_err(|not| words(not, &mut exchange)), head) {
        (Ok(()), Ok(head)) => {
            let carried = carry(&worker, session, &head, exchange, body, &wire);
            noted(&lasting, &wire, head.kind, carried).await
        }
        (Err(Some(answer)), _) => {
            exchange.record.status = answer.status;
            forget_fields(&mut session);
            // A client that is gone needs no answer.
            let _ = write(&mut session, &answer, &visit.limits).await;
            Ended::Served
        }
        _ => Ended::GivenUp,
    }
}

/// Lets a stream count as lasting from when its answer says so; asked after each step, as `front::until_closed` does.
async fn noted<T>(lasting: &Lasting, wire: &Wire, kind: Kind, carried: impl Future<Output = T>) -> T {
    let mut carried = pin!(carried);
    poll_fn(|context| {
        let polled = carried.as_mut().poll(context);
        let flag = if kind == Kind::Grpc { &wire.answered } else { &wire.streams };
        if polled.is_pending() && flag.load(Ordering::Relaxed) {
            lasting.note();
        }
        polled
    })
    .await
}

/// Lets go of a request's fields: its client may take its time for the answer, and few bytes become many of them.
fn forget_fields(session: &mut HttpSession) {
    let method = session.req_header().method.clone();
    if let Ok(bare) = RequestHeader::build(method, b"/", Some(0)) {
        *session.req_header_mut() = bare;
    }
}

/// Answers a stream; the codec resets what was not read of it.
async fn write(session: &mut HttpSession, answer: &Answer, limits: &Limits) -> pingora::Result<()> {
    let is_head = session.req_header().method == http::Method::HEAD;
    session.set_write_timeout(Some(limits.client_write));
    session.write_response_header(Box::new(answer.header()?), is_head)?;
    if !is_head {
        session.write_body(answer.body.clone(), true).await?;
    }
    Ok(())
}

/// Lends the stream to the lane.
async fn carry(
    worker: &Worker,
    mut session: HttpSession,
    head: &Head,
    mut exchange: Box<Exchange>,
    body: StreamBody,
    wire: &Wire,
) -> Ended {
    let limits = &Arc::clone(&exchange.limits);
    // Both sides of a call may be silent for long.
    let taking = (head.kind != Kind::Grpc).then(|| Taking::new(limits));
    exchange.taking.clone_from(&taking);
    let silence = exchange.watch();
    session.req_header_mut().extensions_mut().insert(Carried::new(exchange));
    let mut session = ServerSession::new_http2(session);
    session.set_write_timeout(Some(limits.client_write));
    session.set_total_drain_timeout(Some(limits.linger));
    let watched = body == StreamBody::Follows && head.kind != Kind::Grpc;
    tokio::select! {
        // First, for it knows what the answer becomes.
        biased;
        // There is no connection to keep: the stream was all of it.
        _ = worker.lane.process_new_http(session, &worker.edge.stopping) => {}
        () = too_slow(wire, limits), if watched => {}
        () = takes_too_slowly(wire, taking.as_deref(), limits) => {}
        () = stands_still(silence, wire, taking.as_deref()) => {}
        () = falls_asleep(wire) => {}
        () = stopped(wire, taking.as_deref(), limits), if body == StreamBody::Follows => {}
    }
    if wire.given_up.load(Ordering::Relaxed) { Ended::GivenUp } else { Ended::Served }
}

/// Resolves when the answer has become an event stream whose environment is to sleep. Asked after each step of the lane.
async fn falls_asleep(wire: &Wire) {
    poll_fn(|_| if wire.streams.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }).await;
    sleeps(wire).await;
}

/// Resolves when the client sends its body more slowly than the least rate, while it is waited for, and says so: the request is
/// recorded before anybody could say it afterwards.
///
/// What an instance does not take, the client need not send. Such a wait ends by the limit for a write to the instance,
/// which is why one slow window is none.
async fn too_slow(wire: &Wire, limits: &Limits) {
    let least = limits.client_rate.saturating_mul(limits.client_window.as_millis() as u64) / 1000;
    let (mut before, mut slow) = (0, 0);
    while slow < SLOW_WINDOWS {
        sleep(limits.client_window).await;
        if wire.whole.load(Ordering::Relaxed) || wire.answered.load(Ordering::Relaxed) {
            return pending().await;
        }
        let now = wire.received.load(Ordering::Relaxed);
        let is_slow = wire.connected.load(Ordering::Relaxed) && now - before < least;
        slow = if is_slow { slow + 1 } else { 0 };
        before = now;
    }
    wire.slow.store(true, Ordering::Relaxed);
}

/// Resolves when all of the answer was taken, and the rest of the request's body does not come any more: nobody waits for it, and
/// some clients (curl 7.88) never send it. The codec then says that it is not wanted, by a reset without an error (RFC 9113
/// section 8.1). What still comes goes on to the instance.
async fn stopped(wire: &Wire, taking: Option<&Taking>, limits: &Limits) {
    // A call has none: its client hears its end in trailers, and has nothing more to say.
    let Some(taking) = taking else { return pending().await };
    let mut before = None;
    loop {
        sleep(limits.linger).await;
        if wire.whole.load(Ordering::Relaxed) {
            return pending().await;
        }
        let is_over = wire.ended.load(Ordering::Relaxed) && taking.is_all_taken();
        let now = is_over.then(|| wire.received.load(Ordering::Relaxed));
        if now.is_some() && now == before {
            return wire.unwanted.store(true, Ordering::Relaxed);
        }
        before = now;
    }
}

/// Resolves when the client takes its answer more slowly than the least rate, and says so.
async fn takes_too_slowly(wire: &Wire, taking: Option<&Taking>, limits: &Limits) {
    let Some(taking) = taking else { return pending().await };
    while taking.judge(Instant::now()).is_ok() {
        sleep(limits.client_window).await;
    }
    wire.given_up.store(true, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
