//! One request on its way, from its head to its record.
//!
//! The front makes it, and hands it to the lane with the connection; so what was decided travels with the request, and is
//! not decided again. Its drop frees its place in flight and queues its record, whichever way the request ended.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::access::{EndedBy, HOST_MAX_BYTES, METHOD_MAX_BYTES, PATH_MAX_BYTES, Record, cut};
use crate::checks::{self, Checks, Pass, RuleLimits, Times};
use crate::config::Limits;
use crate::decide::Rewritten;
use crate::decide::headers::{Facts, Scheme};
use crate::decide::refuse::Reason;
use crate::decide::trace::{Part, Trace};
use crate::edge::Edge;
use crate::front::Visit;
use crate::front::conn::Wire;
use crate::front::head::{Head, Kind, Reader, Version};
use crate::front::http2::taking::Taking;
use crate::front::silence::Silence;
use crate::lane::compress::Compressing;
use crate::lane::lasting::Events;
use crate::live::cell::{Cell, Flight, Tried};
use crate::live::terms::Terms;
use crate::metrics::Outcome;
use crate::spans::Span;
use crate::wake::Admitted;

/// See the module.
pub(crate) struct Exchange {
    pub(crate) edge: Arc<Edge>,
    /// Of its listener.
    pub(crate) limits: Arc<Limits>,
    pub(crate) facts: Facts,
    pub(crate) wire: Arc<Wire>,
    pub(crate) reader: Reader,
    pub(crate) kind: Kind,
    /// What the client speaks.
    pub(crate) version: Version,
    pub(crate) began: Instant,
    /// What the instance gets instead of what the client sent.
    pub(crate) rewritten: Option<Box<Rewritten>>,
    /// Where the client is sent, if it is.
    pub(crate) location: Option<String>,
    /// `Strict-Transport-Security`, whoever answers.
    pub(crate) hsts: Option<HeaderValue>,
    /// Where the request goes; none where it is answered here.
    pub(crate) cell: Option<Arc<Cell>>,
    /// What the rule says that it was decided by; none where that says nothing.
    pub(crate) terms: Option<Arc<Terms>>,
    /// What it has to pass, of the policy that it was decided by; none where that asks for nothing.
    pub(crate) checks: Option<Arc<Checks>>,
    /// What passing gave it.
    pub(crate) pass: Option<Box<Pass>>,
    pub(crate) flight: Option<Flight>,
    pub(crate) tried: Tried,
    pub(crate) attempt: Attempt,
    pub(crate) body_bytes: u64,
    /// How its client takes the answer, where nothing else says it: of HTTP/2 streams, calls excepted.
    pub(crate) taking: Option<Arc<Taking>>,
    /// How the answer comes, where it may not stand still for as long as its begin may take.
    pub(crate) silence: Option<Arc<Silence>>,
    /// The event stream that its answer is.
    pub(crate) events: Option<Box<Events>>,
    pub(crate) held: Option<Duration>,
    /// Until when it may be held, and what it is told then.
    pub(crate) patience: (Instant, Reason),
    /// What it may have in memory while it is held.
    pub(crate) held_bytes: usize,
    pub(crate) refused: Option<Reason>,
    /// What its client takes, where answers of its environment are compressed.
    pub(crate) accepts: Option<Box<HeaderMap>>,
    /// Its answer, if that is compressed.
    pub(crate) compressing: Option<Box<Compressing>>,
    /// When the instance's answer began.
    pub(crate) first_byte: Option<Duration>,
    /// The trace that it is part of.
    pub(crate) part: Part,
    pub(crate) record: Record,
}

/// An exchange on its way to the lane with the head of its stream: HTTP/2 streams have no other place for it.
#[derive(Clone)]
pub(crate) struct Carried(Arc<Mutex<Option<Box<Exchange>>>>);

impl Carried {
    pub(crate) fn new(exchange: Box<Exchange>) -> Self {
        Self(Arc::new(Mutex::new(Some(exchange))))
    }

    /// The exchange, once.
    pub(crate) fn take(&self) -> Option<Box<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How far the lane is in connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The endpoint that the front chose was not tried yet.
    Fresh,
    /// Since then: when the first try began, and when this one did.
    Began { first: Instant, this: Instant },
}

impl Exchange {
    /// Of a request with that head; of something that is no request without one.
    pub(crate) fn new(
        edge: &Arc<Edge>,
        limits: &Arc<Limits>,
        facts: Facts,
        wire: &Arc<Wire>,
        head: Option<&Head>,
    ) -> Self {
        edge.tally.begun.add(1);
        let began = Instant::now();
        let text = |of: fn(&Head) -> String| head.map(of).unwrap_or_default();
        // Only the host and the id are needed where no record is kept.
        let kept = |of: fn(&Head) -> String| if edge.tells() { text(of) } else { String::new() };
        let record = Record {
            time: SystemTime::now(),
            request_id: edge.dice.request_id(),
            method: kept(|head| cut(head.method.as_str(), METHOD_MAX_BYTES).to_owned()),
            host: text(|head| head.host.clone()),
            path: kept(|head| cut(head.path(), PATH_MAX_BYTES).to_owned()),
            protocol: head.map_or("", |head| head.version.as_str()),
            tls: facts.scheme == Scheme::Https,
            client: if edge.tells() { facts.client_name() } else { String::new() },
            ..Record::empty()
        };
        Self {
            edge: Arc::clone(edge),
            limits: Arc::clone(limits),
            facts,
            wire: Arc::clone(wire),
            reader: head.map_or(Reader::Program, |head| head.reader),
            kind: head.map_or(Kind::Plain, |head| head.kind),
            version: head.map_or(Version::Http11, |head| head.version),
            began,
            rewritten: None,
            location: None,
            hsts: None,
            cell: None,
            terms: None,
            checks: None,
            pass: None,
            flight: None,
            tried: Tried::new(edge.limits.retries + 1),
            attempt: Attempt::Fresh,
            body_bytes: 0,
            taking: None,
            silence: None,
            events: None,
            held: None,
            held_bytes: head.map_or(0, |head| head.held_bytes(limits)),
            patience: patience(edge, head.map_or(Reader::Program, |head| head.reader), began),
            refused: None,
            accepts: None,
            compressing: None,
            first_byte: None,
            part: part(edge),
            record,
        }
    }

    /// Notes what its connection and its head say beside where it goes. An id is believed from trusted proxies only.
    pub(crate) fn came_by(&mut self, visit: &Visit, head: Option<&Head>) {
        if let Some(agreed) = visit.agreed {
            self.record.tls_version = agreed.version;
            self.record.tls_cipher = agreed.cipher;
            self.record.tls_resumed = agreed.resumed;
        }
        if let (Some(id), true) = (head.and_then(|head| head.request_id.as_deref()), visit.trusted.is_some()) {
            id.clone_into(&mut self.record.request_id);
        }
        if let Some(trace) = head.and_then(|head| head.trace) {
            self.part = if self.edge.spans.is_some() && trace.is_sampled() {
                Part::Within(trace.at_span(self.edge.dice.roll()), trace.parent)
            } else {
                Part::Clients(trace)
            };
        }
    }

    /// Takes the endpoint that it was given.
    pub(crate) fn board(&mut self, admitted: Admitted) {
        if let Some(since) = admitted.held_since {
            self.held = Some(self.held.unwrap_or_default() + since.elapsed());
        }
        let flight = admitted.flight;
        if self.edge.tells() {
            self.record.instance = flight.endpoint().instance.to_string();
        }
        self.flight = Some(flight);
    }

    /// Notes that it is answered here.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        self.refused = Some(reason);
        self.record.refused = reason.refusal().label;
        self.record.ended_by = EndedBy::Proxy;
    }

    /// Takes the cell that it was decided for.
    pub(crate) fn route(&mut self, cell: Arc<Cell>) {
        self.checks = cell.checks();
        self.cell = Some(cell);
    }

    /// How long its parts may take.
    pub(crate) fn times(&self) -> Times {
        checks::times(self.rule_limits(), self.checks.as_deref(), &self.limits)
    }

    /// The limits of its own that its rule has.
    pub(crate) fn rule_limits(&self) -> Option<&RuleLimits> {
        self.terms.as_ref()?.limits.as_ref()
    }

    /// Whether it has to pass anything.
    pub(crate) fn is_checked(&self) -> bool {
        self.checks.is_some() || self.rule_limits().is_some()
    }

    /// Watches how the answer comes, if that is to be watched; what may be silent for long is not.
    pub(crate) fn watch(&mut self) -> Option<Arc<Silence>> {
        if self.is_checked() && self.kind == Kind::Plain {
            self.silence = self.times().gap.map(Silence::new);
        }
        self.silence.clone()
    }

    /// The largest body that it may have.
    pub(crate) fn body_max(&self) -> u64 {
        let own = self.rule_limits().and_then(RuleLimits::body_bytes);
        own.unwrap_or_else(|| self.environments_body_max())
    }

    fn environments_body_max(&self) -> u64 {
        self.checks.as_ref().and_then(|checks| checks.body_bytes()).unwrap_or(self.limits.body_bytes)
    }

    /// What is left of the time for all of it, if there is a limit. What may be silent for long may take long.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        if !self.is_checked() {
            return None;
        }
        let total = self.times().total.filter(|_| self.kind == Kind::Plain)?;
        let streams = self.wire.streams.load(Ordering::Relaxed);
        (!streams).then(|| total.saturating_sub(self.began.elapsed()))
    }
}

impl Exchange {
    /// The request as a span, when its record is complete.
    fn span(&self, trace: &Trace, took: Duration) -> Span {
        let record = &self.record;
        Span {
            trace: trace.id,
            parent: if let Part::Within(_, asked_by) = self.part { Some(asked_by) } else { None },
            id: trace.parent,
            began: record.time,
            took,
            method: record.method.clone(),
            host: cut(&record.host, HOST_MAX_BYTES).to_owned(),
            path: record.path.clone(),
            tls: record.tls,
            protocol: record.protocol,
            status: record.status,
            refused: record.refused,
            ended_by: record.ended_by.as_str(),
            request_id: record.request_id.clone(),
            app: record.app.clone(),
            environment: record.environment.clone(),
            deployment: record.deployment,
            instance: record.instance.clone(),
            held_ms: record.held_ms,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.refused.is_none() && self.wire.slow.load(Ordering::Relaxed) {
            self.refuse(Reason::BodyTimeout);
        }
        if self.refused.is_none() && self.wire.silent.load(Ordering::Relaxed) {
            self.refuse(Reason::ResponseTimeout);
        }
        if self.refused.is_none() && self.wire.given_up.load(Ordering::Relaxed) {
            self.record.ended_by = EndedBy::Client;
        }
        if self.refused.is_none() && self.wire.unwanted.load(Ordering::Relaxed) {
            self.record.ended_by = EndedBy::Instance;
        }
        let total = self.began.elapsed();
        self.record.bytes_in = self.wire.received.load(Ordering::Relaxed);
        self.record.bytes_out = self.wire.sent.load(Ordering::Relaxed);
        self.edge.tally.request(
            self.cell.as_ref().map(|cell| &cell.counted),
            &Outcome {
                protocol: self.record.protocol,
                status: self.record.status,
                ended_by: self.record.ended_by,
                refused: self.record.refused,
                total,
                first_byte: self.first_byte,
                held: self.held,
                received: self.record.bytes_in,
                sent: self.record.bytes_out,
                retries: self.record.retries,
            },
        );
        if !self.edge.tells() {
            return;
        }
        let offer = self.cell.as_ref().map(|cell| cell.offer());
        if let Some(environment) = offer.as_ref().and_then(|offer| offer.environment.as_ref()) {
            self.record.app = environment.app.to_string();
            self.record.environment = environment.name.to_string();
            self.record.deployment = environment.deployment;
        }
        if let Some(environment) = self.flight.as_ref().and_then(|flight| flight.offer.environment.as_ref()) {
            self.record.deployment = environment.deployment;
        }
        self.flight = None;
        self.record.trace_id = self.part.trace().map(Trace::id_text).unwrap_or_default();
        self.record.first_byte_ms = self.first_byte.map(millis);
        self.record.total_ms = millis(total);
        self.record.held_ms = self.held.map(millis).unwrap_or_default();
        self.record.woke = self.held.is_some();
        if let (Some(spans), Part::New(trace) | Part::Within(trace, _)) = (&self.edge.spans, self.part)
            && trace.is_sampled()
        {
            spans.say(self.span(&trace, total));
        }
        self.edge.access.say(std::mem::replace(&mut self.record, Record::empty()));
    }
}

/// A trace that begins here, where somebody collects it.
fn part(edge: &Edge) -> Part {
    let Some(spans) = &edge.spans else { return Part::Nothing };
    let roll = || edge.dice.roll();
    let trace = Trace::begin((roll(), roll()), roll());
    Part::New(if spans.share().has(trace.id) { trace } else { trace.unsampled() })
}

/// A browser that opens a page is shown soon that it has to wait; everybody else just waits.
fn patience(edge: &Edge, reader: Reader, began: Instant) -> (Instant, Reason) {
    match reader {
        Reader::Navigation => (began + edge.limits.hold_navigation, Reason::Waking),
        Reader::Html | Reader::Program => (began + edge.limits.hold, Reason::WakeTimeout),
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
