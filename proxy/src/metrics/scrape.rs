//! The text of `/metrics`: everything that is counted, added up, in Prometheus' exposition format.
//!
//! Called on the feed's thread. docs/observability.md lists the names; they are stable.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::count::{BOUNDS, Count, Durations};
use super::site::Sum;
use super::tally::{GOAWAYS, NO_HANDSHAKES, Tally, VERSIONS};
use super::{BEYOND, NOBODY, OTHER};
use crate::edge::Edge;
use crate::spans::Spans;

/// Microseconds in a second.
const MICROS: f64 = 1e6;

/// What this edge believes: of its table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Believed {
    pub(crate) term: u64,
    pub(crate) generation: u64,
    pub(crate) routes: u64,
    pub(crate) environments: u64,
    pub(crate) certificates: u64,
}

/// The whole text.
pub(crate) fn scrape(edge: &Edge, process: &ProcessCollector, believed: &Believed) -> String {
    let mut page = Page(process.collect());
    requests(&mut page, edge);
    connections(&mut page, edge);
    table(&mut page, edge, believed);
    edge_itself(&mut page, edge);
    let mut text = String::new();
    for family in page.0.iter().filter(|family| !family.get_metric().is_empty()) {
        // Each is sound by itself; were one not, the others are told all the same.
        let _ = TextEncoder::new().encode_utf8(std::slice::from_ref(family), &mut text);
    }
    text
}

/// App and environment, and what was counted of them by all workers.
fn by_environment(edge: &Edge) -> BTreeMap<(String, String), Sum> {
    let places = edge.metrics.places.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sums = BTreeMap::<_, Sum>::new();
    for (place, site) in edge.metrics.tallies.iter().flat_map(|tally| tally.sites()) {
        let named = || places.names.get(place.checked_sub(super::FIRST)? as usize)?.clone();
        let name = match place {
            NOBODY => Some((String::new(), String::new())),
            BEYOND => Some((OTHER.to_owned(), OTHER.to_owned())),
            _ => named(),
        };
        // Without a name it is nobody's any more, and empty.
        if let Some(name) = name {
            site.add_to(sums.entry(name).or_default());
        }
    }
    sums
}

fn requests(page: &mut Page, edge: &Edge) {
    let sums = by_environment(edge);
    let labels = |of: &(String, String)| [("app", of.0.clone()), ("environment", of.1.clone())];
    let mut requests = Family::counter("dormouse_requests_total", "Requests that ended.");
    let mut refused = Family::counter("dormouse_requests_refused_total", "Requests answered by the edge itself.");
    for (of, sum) in &sums {
        for ([protocol, status, ended_by], count) in sum.requests() {
            let kind = [("protocol", protocol.into()), ("status", status.into()), ("ended_by", ended_by.into())];
            requests.add(labels(of).into_iter().chain(kind), count as f64);
        }
        for (reason, count) in &sum.refused {
            refused.add(labels(of).into_iter().chain([("reason", (*reason).to_owned())]), *count as f64);
        }
    }
    page.0.extend([requests.0, refused.0]);
    let histogram = |name: &str, help: &str, of: fn(&Sum) -> &Durations| {
        let mut family = Family::new(MetricType::HISTOGRAM, name, help);
        sums.iter().for_each(|(labelled, sum)| family.histogram(labels(labelled), of(sum)));
        family.0
    };
    page.0.extend([
        histogram("dormouse_request_duration_seconds", "From a request's head to its end.", |sum| &sum.total),
        histogram(
            "dormouse_request_first_byte_seconds",
            "From a request's head to the head of the instance's answer.",
            |sum| &sum.first_byte,
        ),
        histogram("dormouse_request_held_seconds", "How long requests waited for an environment to wake.", |sum| {
            &sum.held
        }),
    ]);
    let counter = |name: &str, help: &str, of: fn(&Sum) -> u64| {
        let mut family = Family::counter(name, help);
        sums.iter().for_each(|(labelled, sum)| family.add(labels(labelled), of(sum) as f64));
        family.0
    };
    page.0.extend([
        counter("dormouse_request_received_bytes_total", "Bytes received of requests.", |sum| sum.received),
        counter("dormouse_request_sent_bytes_total", "Bytes sent of answers.", |sum| sum.sent),
        counter("dormouse_request_retries_total", "Further tries at an instance.", |sum| sum.retries),
    ]);
    let ended = total(edge, |tally| &tally.ended);
    let begun = total(edge, |tally| &tally.begun);
    page.gauge("dormouse_requests_in_flight", "Requests that run now.", begun.saturating_sub(ended) as f64);
    let waiters = edge.signals.waiters.load(Ordering::Relaxed);
    page.gauge("dormouse_requests_held", "Requests that wait for an instance now.", waiters.into());
    let held = edge.signals.held_bytes.load(Ordering::Relaxed);
    page.gauge("dormouse_requests_held_bytes", "What requests that wait may have in memory.", held as f64);
    let wakes = edge.signals.wakes.load(Ordering::Relaxed);
    page.counter("dormouse_wakes_total", "Times that an environment was begun to be waited for.", wakes as f64);
}

fn connections(page: &mut Page, edge: &Edge) {
    let mut accepted = Family::counter("dormouse_connections_accepted_total", "Connections of visitors.");
    let mut refused = Family::counter("dormouse_connections_refused_total", "Connections closed at once for a limit.");
    let mut open = Family::gauge("dormouse_connections_open", "Connections of visitors now.");
    for door in &edge.metrics.doors {
        let listener = || ("listener", door.name.clone());
        accepted.add([listener()], door.accepted() as f64);
        open.add([listener()], door.open() as f64);
        for (reason, count) in door.refused() {
            refused.add([listener(), ("reason", reason.to_owned())], count as f64);
        }
    }
    let mut handshakes = Family::counter("dormouse_tls_handshakes_total", "TLS handshakes with visitors.");
    for (version, name) in VERSIONS.iter().enumerate() {
        for (resumed, word) in ["false", "true"].into_iter().enumerate() {
            let count = total(edge, |tally| &tally.handshakes[version][resumed]);
            let labels = [("version", (*name).to_owned()), ("resumed", word.to_owned()), ("result", "done".to_owned())];
            handshakes.add(labels, count as f64);
        }
    }
    for (at, result) in NO_HANDSHAKES.iter().enumerate() {
        let count = total(edge, |tally| &tally.no_handshakes[at]);
        let labels = [("version", String::new()), ("resumed", String::new()), ("result", (*result).to_owned())];
        handshakes.add(labels, count as f64);
    }
    let mut goaways = Family::counter("dormouse_http2_goaways_total", "HTTP/2 connections that were told to end.");
    for (at, reason) in GOAWAYS.iter().enumerate() {
        goaways.add([("reason", (*reason).to_owned())], total(edge, |tally| &tally.goaways[at]) as f64);
    }
    page.0.extend([accepted.0, refused.0, open.0, handshakes.0, goaways.0]);
    let streams = total(edge, |tally| &tally.streams);
    page.counter("dormouse_http2_streams_total", "Streams of HTTP/2 that were begun.", streams as f64);
    let malformed = total(edge, |tally| &tally.malformed);
    page.counter("dormouse_http2_streams_malformed_total", "Streams of HTTP/2 that were malformed.", malformed as f64);
}

fn table(page: &mut Page, edge: &Edge, believed: &Believed) {
    let metrics = &edge.metrics;
    page.gauge("dormouse_table_generation", "Generation of the table that is served.", believed.generation as f64);
    page.gauge("dormouse_table_term", "Term of the table that is served.", believed.term as f64);
    let mut objects = Family::gauge("dormouse_table_objects", "Objects of the table that is served.");
    let kinds =
        [("route", believed.routes), ("environment", believed.environments), ("certificate", believed.certificates)];
    for (kind, count) in kinds {
        objects.add([("kind", kind.to_owned())], count as f64);
    }
    page.0.push(objects.0);
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
    page.counter("dormouse_table_updates_total", "Updates of the table that were applied.", load(&metrics.updates));
    page.counter("dormouse_table_gaps_total", "Updates of the table that did not follow.", load(&metrics.gaps));
    page.counter("dormouse_table_rejected_total", "Objects of updates that were refused.", load(&metrics.rejected));
    if metrics.updates.load(Ordering::Relaxed) > 0 {
        let age = edge.signals.now().saturating_sub(metrics.updated.load(Ordering::Relaxed));
        page.gauge("dormouse_table_age_seconds", "Time since the table was last changed.", age as f64 / 1000.0);
    }
}

fn edge_itself(page: &mut Page, edge: &Edge) {
    let metrics = &edge.metrics;
    page.gauge("dormouse_ready", "Whether /readyz says so.", if edge.is_ready() { 1.0 } else { 0.0 });
    page.gauge("dormouse_workers", "Worker threads that there should be.", metrics.tallies.len() as f64);
    page.gauge("dormouse_workers_alive", "Worker threads that serve.", metrics.alive.load(Ordering::Relaxed) as f64);
    let [_, refused, left_out] = edge.signals.tally.counts();
    page.counter("dormouse_retries_refused_total", "Requests not tried again, since too many were.", refused as f64);
    page.counter(
        "dormouse_instances_left_out_total",
        "Times that an instance was left out for a while.",
        left_out as f64,
    );
    let starts = metrics.starts.load(Ordering::Relaxed) as f64;
    page.counter("dormouse_worker_starts_total", "Times that a worker began, after a panic too.", starts);
    let lost = edge.access.lost_total() as f64;
    page.counter("dormouse_access_records_lost_total", "Access records that could not be written.", lost);
    if let Some((exported, lost)) = edge.spans.as_ref().map(Spans::counts) {
        page.counter("dormouse_spans_exported_total", "Spans that a collector took.", exported as f64);
        page.counter("dormouse_spans_lost_total", "Spans that no collector took.", lost as f64);
    }
    let mut build = Family::gauge("dormouse_build_info", "The program; always 1.");
    build.add([("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0);
    page.0.push(build.0);
}

fn total(edge: &Edge, of: impl Fn(&Tally) -> &Count) -> u64 {
    edge.metrics.tallies.iter().map(|tally| of(tally).get()).sum()
}

/// What there is to be told.
struct Page(Vec<MetricFamily>);

impl Page {
    fn counter(&mut self, name: &str, help: &str, value: f64) {
        let mut family = Family::counter(name, help);
        family.add([], value);
        self.0.push(family.0);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let mut family = Family::gauge(name, help);
        family.add([], value);
        self.0.push(family.0);
    }
}

/// One name, and all that it has of labels.
struct Family(MetricFamily);

impl Family {
    fn new(kind: MetricType, name: &str, help: &str) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self(family)
    }

    fn counter(name: &str, help: &str) -> Self {
        Self::new(MetricType::COUNTER, name, help)
    }

    fn gauge(name: &str, help: &str) -> Self {
        Self::new(MetricType::GAUGE, name, help)
    }

    fn add(&mut self, labels: impl IntoIterator<Item = (&'static str, String)>, value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        if self.0.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0.mut_metric().push(metric);
    }

    /// One of which nothing was observed is left away.
    fn histogram(&mut self, labels: impl IntoIterator<Item = (&'static str, String)>, of: &Durations) {
        let count = of.counts.iter().sum();
        if count == 0 {
            return;
        }
        let mut below = 0;
        let bucket = |(bound, count): (&u64, &u64)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / MICROS);
            bucket.set_cumulative_count(below);
            bucket
        };
        let buckets = BOUNDS.iter().zip(&of.counts).map(bucket).collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(of.sum_micros as f64 / MICROS);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
    }
}

fn pairs(labels: impl IntoIterator<Item = (&'static str, String)>) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}
