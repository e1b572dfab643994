//! One request on its way, from its head to its record.
//!
//! The front makes it, and hands it to the lane with the connection; so what was decided travels with the request, and is
//! not decided again. Its drop frees its place in flight and queues its record, whichever way the request ended.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::access::{EndedBy, Record};
use crate::checks::{Checks, Pass, Times};
use crate::decide::headers::{Facts, Scheme};
use crate::decide::refuse::Reason;
use crate::edge::Edge;
use crate::front::conn::Wire;
use crate::front::head::{Form, Head, Kind, Reader, Version};
use crate::live::cell::{Cell, Flight, Tried};
use crate::wake::Admitted;

/// See the module.
pub(crate) struct Exchange {
    pub(crate) edge: Arc<Edge>,
    pub(crate) facts: Facts,
    pub(crate) wire: Arc<Wire>,
    pub(crate) reader: Reader,
    pub(crate) kind: Kind,
    pub(crate) form: Form,
    /// What the client speaks.
    pub(crate) version: Version,
    pub(crate) target: String,
    pub(crate) began: Instant,
    /// Where the request goes; none where it is answered here.
    pub(crate) cell: Option<Arc<Cell>>,
    /// What it has to pass, of the policy that it was decided by; none where that asks for nothing.
    pub(crate) checks: Option<Arc<Checks>>,
    /// What passing gave it.
    pub(crate) pass: Option<Box<Pass>>,
    pub(crate) flight: Option<Flight>,
    pub(crate) tried: Tried,
    pub(crate) attempt: Attempt,
    pub(crate) body_bytes: u64,
    pub(crate) held: Option<Duration>,
    /// Until when it may be held, and what it is told then.
    pub(crate) patience: (Instant, Reason),
    /// What it may have in memory while it is held.
    pub(crate) held_bytes: usize,
    pub(crate) refused: Option<Reason>,
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
    pub(crate) fn new(edge: &Arc<Edge>, facts: Facts, wire: &Arc<Wire>, head: Option<&Head>) -> Self {
        let text = |of: fn(&Head) -> String| head.map(of).unwrap_or_default();
        // Only the host and the id are needed where no record is kept.
        let kept = |of: fn(&Head) -> String| if edge.access.is_kept() { text(of) } else { String::new() };
        let record = Record {
            time: SystemTime::now(),
            request_id: edge.dice.request_id(),
            method: kept(|head| head.method.to_string()),
            host: text(|head| head.host.clone()),
            path: kept(|head| head.path().to_owned()),
            protocol: head.map_or("", |head| head.version.as_str()),
            tls: facts.scheme == Scheme::Https,
            client: if edge.access.is_kept() { facts.client_name() } else { String::new() },
            ..Record::empty()
        };
        Self {
            edge: Arc::clone(edge),
            facts,
            wire: Arc::clone(wire),
            reader: head.map_or(Reader::Program, |head| head.reader),
            kind: head.map_or(Kind::Plain, |head| head.kind),
            form: head.map_or(Form::Origin, |head| head.form),
            version: head.map_or(Version::Http11, |head| head.version),
            target: text(|head| head.target.clone()),
            began: Instant::now(),
            cell: None,
            checks: None,
            pass: None,
            flight: None,
            tried: Tried::new(edge.limits.retries + 1),
            attempt: Attempt::Fresh,
            body_bytes: 0,
            held: None,
            held_bytes: head.map_or(0, |head| head.held_bytes(&edge.limits)),
            patience: patience(edge, head.map_or(Reader::Program, |head| head.reader)),
            refused: None,
            record,
        }
    }

    /// Takes the endpoint that it was given.
    pub(crate) fn board(&mut self, admitted: Admitted) {
        if let Some(since) = admitted.held_since {
            self.held = Some(self.held.unwrap_or_default() + since.elapsed());
        }
        let flight = admitted.flight;
        if self.edge.access.is_kept() {
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
        match &self.checks {
            None => Times::new(None, &self.edge.limits),
            Some(checks) => checks.times(&self.edge.limits),
        }
    }

    /// The largest body that it may have.
    pub(crate) fn body_max(&self) -> u64 {
        self.checks.as_ref().and_then(|checks| checks.body_bytes()).unwrap_or(self.edge.limits.body_bytes)
    }

    /// What is left of the time for all of it, if there is a limit. What may be silent for long may take long.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let total = self.checks.as_ref()?.times(&self.edge.limits).total.filter(|_| self.kind == Kind::Plain)?;
        let streams = self.wire.streams.load(Ordering::Relaxed);
        (!streams).then(|| total.saturating_sub(self.began.elapsed()))
    }

    /// Milliseconds since it began.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.edge.access.is_kept() {
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
        if self.refused.is_none() && self.wire.slow.load(Ordering::Relaxed) {
            self.refuse(Reason::BodyTimeout);
        }
        self.flight = None;
        self.record.total_ms = self.elapsed_ms();
        self.record.held_ms = self.held.map(millis).unwrap_or_default();
        self.record.woke = self.held.is_some();
        self.record.bytes_in = self.wire.received.load(Ordering::Relaxed);
        self.record.bytes_out = self.wire.sent.load(Ordering::Relaxed);
        self.edge.access.say(std::mem::replace(&mut self.record, Record::empty()));
    }
}

/// A browser that opens a page is shown soon that it has to wait; everybody else just waits.
fn patience(edge: &Edge, reader: Reader) -> (Instant, Reason) {
    let now = Instant::now();
    match reader {
        Reader::Navigation => (now + edge.limits.hold_navigation, Reason::Waking),
        Reader::Html | Reader::Program => (now + edge.limits.hold, Reason::WakeTimeout),
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
