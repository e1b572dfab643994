//! From a socket to a decided request, again and again: gate, decide, admit, lane, and who keeps the connection.

pub(crate) mod conn;
pub(crate) mod fence;
pub(crate) mod gate;
pub(crate) mod head;
pub(crate) mod http2;
pub(crate) mod inherit;
pub(crate) mod listen;
pub(crate) mod pace;
pub(crate) mod proxy_protocol;
pub(crate) mod silence;
pub(crate) mod stream;
pub(crate) mod tls;
mod until_closed;
pub(crate) mod websocket;

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::access::EndedBy;
use crate::checks::{self, NotPassed};
use crate::config::{Http2, Limits, Network};
use crate::decide::fields::Fields;
use crate::decide::forwarded::believed;
use crate::decide::headers::{Changes, Facts, for_instance};
use crate::decide::refuse::Reason;
use crate::decide::{Decision, Outcome, Proof, Request, decide};
use crate::drain::{self, Before};
use crate::edge::Edge;
use crate::exchange::Exchange;
use crate::lane::answer::{After, Answer, answer};
use crate::lane::pingora::Lane;
use crate::wake::{NotAdmitted, Patience, admit};
use conn::{Conn, Transport};
use gate::Gate;
use head::{Head, Kind, Version};
use silence::stands_still;
use tls::{Agreed, Offered};
use until_closed::until_closed;

/// Policies by which one request is checked, one after the other, while it waits.
const POLICIES_MAX: usize = 8;

/// What a worker serves connections with.
pub(crate) struct Worker {
    pub(crate) edge: Arc<Edge>,
    pub(crate) lane: Arc<HttpProxy<Lane>>,
}

/// How a connection came.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(crate) facts: Facts,
    /// Of its listener.
    pub(crate) limits: Arc<Limits>,
    /// By whose name, and with which certificate, a TLS client was answered, if it named somebody.
    pub(crate) offered: Option<Arc<Offered>>,
    /// Over TLS: how it is spoken.
    pub(crate) agreed: Option<Agreed>,
    /// Where its client is a proxy whose forwarding fields are believed: all such proxies.
    pub(crate) trusted: Option<Arc<[Network]>>,
    /// Whether it may begin with HTTP/2 by its client's own knowledge: with its very first bytes only.
    pub(crate) http2: Http2,
    /// Until when it may be silent at first.
    pub(crate) silent: Instant,
}

/// Serves one connection until it ends.
///
/// Between requests it holds as little as can be: what is done beside waiting for the next head is boxed, for as long as it
/// takes, and is no part of what each idle connection has.
pub(crate) async fn serve(worker: &Rc<Worker>, transport: Transport, mut visit: Visit) {
    let limits = Arc::clone(&visit.limits);
    let agreed = transport.agreed_on_http2();
    let mut conn = Box::new(Conn::new(transport, &limits));
    if agreed {
        return Box::pin(http2::serve(worker, conn, visit)).await;
    }
    let (facts, mut idle, mut before) = (visit.facts, visit.silent, Before::Nothing);
    loop {
        let over = drain::idle(&worker.edge.phase, &worker.edge.dice, before);
        let next = match gate::next(&mut conn, &limits, idle, over).await {
            Gate::Over => return,
            Gate::Preface if visit.http2 == Http2::On => {
                return Box::pin(http2::serve(worker, conn, visit)).await;
            }
            Gate::Preface => Box::pin(refuse_bytes(worker, conn, (facts, &limits), Reason::BadHead)).await,
            Gate::Refused(reason) => Box::pin(refuse_bytes(worker, conn, (facts, &limits), reason)).await,
            Gate::Head(head) => {
                let facts = visit.trusted.as_ref().map_or(facts, |trusted| {
                    believed(facts, trusted, conn.ahead().get(..head.bytes).unwrap_or_default())
                });
                Box::pin(request(worker, conn, &head, (facts, &visit))).await
            }
        };
        conn = match next {
            Next::Keep(conn) => conn,
            Next::Close(conn) => return Box::pin(linger(conn.into_transport(), worker)).await,
            Next::Gone => return,
        };
        (idle, before) = (Instant::now() + limits.keep_alive, Before::Answers);
        visit.http2 = Http2::Off;
    }
}

/// Refuses a connection before anything was read of it that could be a request.
pub(crate) async fn turn_away(
    worker: &Worker,
    transport: Transport,
    (facts, limits): (Facts, &Arc<Limits>),
    reason: Reason,
) {
    let conn = Box::new(Conn::new(transport, limits));
    if let Next::Close(conn) = refuse_bytes(worker, conn, (facts, limits), reason).await {
        linger(conn.into_transport(), worker).await;
    }
}

/// What becomes of a connection after a request.
enum Next {
    Keep(Box<Conn>),
    Close(Box<Conn>),
    Gone,
}

/// Answers what is no request.
async fn refuse_bytes(
    worker: &Worker,
    mut conn: Box<Conn>,
    (facts, limits): (Facts, &Arc<Limits>),
    reason: Reason,
) -> Next {
    let mut exchange = Exchange::new(&worker.edge, limits, facts, conn.wire(), None);
    refuse(&mut conn, None, &mut exchange, reason).await;
    Next::Close(conn)
}

async fn request(worker: &Worker, mut conn: Box<Conn>, head: &Head, (facts, visit): (Facts, &Visit)) -> Next {
    let edge = &worker.edge;
    let mut exchange = Box::new(Exchange::new(edge, &visit.limits, facts, conn.wire(), Some(head)));
    exchange.came_by(visit, Some(head));
    let sent = Fields::Lines(conn.ahead().get(..head.bytes).unwrap_or_default());
    let decision = decided(edge, head, visit.offered.as_deref(), sent, &mut exchange);
    let prepared = match route(decision, &mut exchange) {
        Ok(reads) => {
            let fields = reads.then(|| fields(conn.ahead().get(..head.bytes).unwrap_or_default()));
            prepare(edge, (head, fields.as_ref()), &mut exchange, conn.departed(head.bytes)).await
        }
        Err(reason) => Err(NotPassed::Refused(reason)),
    };
    match prepared.map_err(|not| words(not, &mut exchange)) {
        Ok(()) => carry(worker, conn, head, exchange).await,
        Err(None) => Next::Gone,
        Err(Some(words)) => match answer(&mut conn, Some(head), &words, &mut exchange).await {
            After::Keep => Next::Keep(conn),
            After::Close => Next::Close(conn),
        },
    }
}

/// What is said to who did not pass; nothing where there is nobody to tell.
fn words(not: NotPassed, exchange: &mut Exchange) -> Option<Answer> {
    match not {
        NotPassed::Refused(reason) => {
            exchange.refuse(reason);
            Some(Answer::refusal(reason, exchange))
        }
        NotPassed::Answered(label, mut answer) => {
            (exchange.record.refused, exchange.record.ended_by) = (label, EndedBy::Proxy);
            answer.edit(exchange);
            answer.remember(exchange.hsts.as_ref());
            Some(*answer)
        }
        NotPassed::Left => None,
    }
}

/// The fields of a head that the gate let pass.
fn fields(head: &[u8]) -> HeaderMap {
    let lines = head.split(|&byte| byte == b'\n').skip(1);
    let field = |line: &[u8]| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let mut fields = HeaderMap::new();
    for (name, value) in lines.filter_map(field) {
        fields.append(name, value);
    }
    fields
}

/// Decides what becomes of a request, and notes what of its fields matters for its endpoint.
fn decided(
    edge: &Edge,
    head: &Head,
    offered: Option<&Offered>,
    fields: Fields<'_>,
    exchange: &mut Exchange,
) -> Decision {
    let instead = |host: &str| offered?.instead(host);
    let proof =
        offered.map(|offered| Proof { name: &offered.name, certificate: offered.certificate, instead: &instead });
    let request = Request {
        head,
        facts: &exchange.facts,
        proof: proof.as_ref(),
        body_max: exchange.limits.body_bytes,
        field: &|name| fields.found(name),
    };
    let decision = decide(&request, &edge.live.sites);
    if let Outcome::Route(to) = &decision.outcome {
        (exchange.tried.wish, exchange.accepts) = to.cell.note(exchange.facts.client, fields);
    }
    decision
}

/// Takes what was decided; says whether the request's fields have to be read for what comes now.
fn route(decision: Decision, exchange: &mut Exchange) -> Result<bool, Reason> {
    exchange.hsts = decision.hsts;
    match decision.outcome {
        Outcome::Answer(reason) => Err(reason),
        Outcome::Redirect(reason, location) => {
            exchange.location = Some(location);
            Err(reason)
        }
        Outcome::Route(to) => {
            (exchange.rewritten, exchange.terms) = (to.rewritten, to.terms);
            exchange.route(to.cell);
            Ok(exchange.checks.as_ref().is_some_and(|checks| checks.read_fields()))
        }
    }
}

/// Has a decided request pass its checks and gets it an endpoint; `left` resolves when its client is gone.
///
/// Who gets one by a newer policy than it passed by passes again: nobody gets past a change that an edge has acknowledged.
async fn prepare(
    edge: &Edge,
    (head, fields): (&Head, Option<&HeaderMap>),
    exchange: &mut Exchange,
    left: impl Future<Output = ()> + Send,
) -> Result<(), NotPassed> {
    let Some(cell) = exchange.cell.clone() else { return Err(NotPassed::Refused(Reason::Internal)) };
    let mut left = pin!(left);
    for _ in 0..POLICIES_MAX {
        if exchange.is_checked() {
            // Boxed, so that no other request is larger for it.
            let passed = Box::pin(checks::pass(edge, head, fields, exchange, left.as_mut())).await;
            if matches!(passed, Err(NotPassed::Left)) {
                exchange.record.ended_by = EndedBy::Client;
            }
            passed?;
        }
        if edge.overload.refuses(&cell) {
            return Err(NotPassed::Refused(Reason::Overloaded));
        }
        let connect = exchange.began + exchange.times().connect_total;
        let patience = Patience { wake: exchange.patience, connect, bytes: exchange.held_bytes };
        let admitted = admit(edge, &cell, &exchange.tried, patience, left.as_mut()).await;
        if matches!(admitted, Err(NotAdmitted::Left)) {
            exchange.record.ended_by = EndedBy::Client;
            exchange.held = Some(exchange.began.elapsed());
        }
        let admitted = admitted?;
        let by = admitted.flight.offer.checks.as_ref();
        if by.map(Arc::as_ptr) == exchange.checks.as_ref().map(Arc::as_ptr) {
            exchange.board(admitted);
            return Ok(());
        }
        exchange.checks = by.cloned();
    }
    Err(NotPassed::Refused(Reason::NoEndpoint))
}

async fn refuse(conn: &mut Conn, head: Option<&Head>, exchange: &mut Exchange, reason: Reason) -> After {
    exchange.refuse(reason);
    let words = Answer::refusal(reason, exchange);
    answer(conn, head, &words, exchange).await
}

/// Lends the connection to the lane for one message.
async fn carry(worker: &Worker, mut conn: Box<Conn>, head: &Head, mut exchange: Box<Exchange>) -> Next {
    let edge = &worker.edge;
    let limits = Arc::clone(&exchange.limits);
    let bytes = conn.ahead().get(..head.bytes).unwrap_or_default();
    let changes = Changes {
        rewritten: exchange.rewritten.as_deref(),
        part: &exchange.part,
        granted: exchange.pass.as_ref().map(|pass| &pass.granted),
        edits: exchange.terms.as_ref().and_then(|terms| terms.request.as_ref()),
    };
    let instead = for_instance(bytes, head, &changes, &exchange.facts, &exchange.record.request_id);
    conn.admit(head, instead);
    let wire = Arc::clone(conn.wire());
    let mut session = ServerSession::new_http1(conn);
    // A tunnel lives as long as either side says something (`until_closed`).
    session.set_read_timeout((head.kind != Kind::WebSocket).then_some(limits.body_gap));
    session.set_write_timeout(Some(limits.client_write));
    session.set_total_drain_timeout(Some(limits.linger));
    // An answer before the body's end (a 100 is one to Pingora) does not end the connection: the fence knows what is unread.
    session.set_close_on_response_before_downstream_finish(false);
    // HTTP/1.0 knows no interim answers (RFC 9110 section 15.2).
    session.set_ignore_info_resp(head.version == Version::Http10);
    let silence = exchange.watch();
    let times = (head.kind == Kind::WebSocket).then(|| exchange.times());
    session.set_connection_user_context(Some(exchange));
    let carried = worker.lane.process_new_http(session, &worker.edge.stopping);
    let carried = tokio::select! {
        biased;
        carried = until_closed(edge, &wire, times, carried) => carried.flatten(),
        () = stands_still(silence, &wire, None) => {
            // To HTTP/1.0 an orderly end would be the body's.
            wire.cut.store(head.version == Version::Http10, Ordering::Relaxed);
            None
        }
    };
    match carried {
        Some(reused) => match reused.consume().0.into_any().downcast::<Conn>() {
            Ok(conn) if conn.is_between_messages() => Next::Keep(conn),
            Ok(conn) => Next::Close(conn),
            Err(_) => Next::Gone,
        },
        None if wire.is_for_reset() => {
            wire.reset();
            Next::Gone
        }
        None => {
            linger(wire.take_back(), worker).await;
            Next::Gone
        }
    }
}

/// Closes a connection so that its client gets to read the answer: a close with unread bytes would reset it.
async fn linger(returned: Option<(Transport, BytesMut)>, worker: &Worker) {
    let Some((transport, unsent)) = returned else { return };
    let read_on = async {
        let mut rest = [0; 1024];
        match transport {
            Transport::Plain(mut stream) => {
                stream.write_all(&unsent).await?;
                stream.shutdown().await?;
                while stream.read(&mut rest).await? > 0 {}
            }
            Transport::Tls(mut stream) => {
                stream.write_all(&unsent).await?;
                stream.shutdown().await?;
                while stream.read(&mut rest).await? > 0 {}
            }
        }
        std::io::Result::Ok(())
    };
    // In time or not, and whatever the client does: it is closed afterwards.
    let _ = timeout(worker.edge.limits.linger, read_on).await;
}
