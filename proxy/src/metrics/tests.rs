use std::time::Duration;

use super::site::Sum;
use super::*;
use crate::access::EndedBy;

fn outcome(status: u16) -> Outcome {
    Outcome {
        protocol: "HTTP/1.1",
        status,
        ended_by: EndedBy::Instance,
        refused: if status == 404 { "unknown_host" } else { "" },
        total: Duration::from_millis(3),
        first_byte: None,
        held: None,
        received: 10,
        sent: 20,
        retries: 0,
    }
}

/// What all workers counted at a place.
fn sum(metrics: &Metrics, place: u32) -> Sum {
    let mut sum = Sum::default();
    let sites = metrics.tallies.iter().flat_map(|tally| tally.sites());
    sites.filter(|(at, _)| *at == place).for_each(|(_, site)| site.add_to(&mut sum));
    sum
}

#[test]
fn what_workers_count_is_added_up_by_kind() {
    let metrics = Metrics::new(2, Vec::new());
    let place = Place::default();
    metrics.enter(&place, "shop", "live");
    for (worker, status) in [(0, 200), (0, 200), (1, 200), (1, 404), (1, 0), (0, 999)] {
        metrics.tally(worker).request(Some(&place), &outcome(status));
    }
    let sum = sum(&metrics, place.get());
    let requests: Vec<_> = sum.requests().collect();
    assert_eq!(
        requests,
        [
            (["HTTP/1.1", "none", "instance"], 2),
            (["HTTP/1.1", "2xx", "instance"], 3),
            (["HTTP/1.1", "4xx", "instance"], 1),
        ]
    );
    assert_eq!((sum.received, sum.sent, sum.refused), (60, 120, vec![("unknown_host", 1)]));
    assert_eq!((sum.total.counts.iter().sum::<u64>(), sum.total.sum_micros), (6, 18_000));
}

#[test]
fn a_duration_is_in_the_bucket_that_ends_with_it() {
    let histogram = count::Histogram::empty();
    let mut sum = count::Durations::default();
    for micros in [0, 500, 501, 60_000_000, 60_000_001] {
        histogram.observe(Duration::from_micros(micros));
    }
    histogram.add_to(&mut sum);
    let last = count::BOUNDS.len();
    assert_eq!((sum.counts[0], sum.counts[1], sum.counts[last - 1], sum.counts[last]), (2, 1, 1, 1));
}

#[test]
fn c26_environments_beyond_the_limit_are_counted_together_until_there_is_room() {
    let metrics = Metrics::new(1, Vec::new());
    let places: Vec<_> = (0..ENVIRONMENTS_MAX).map(|_| Place::default()).collect();
    for (number, place) in places.iter().enumerate() {
        metrics.enter(place, &format!("a{number}"), "test");
    }
    let late = Place::default();
    metrics.enter(&late, "late", "test");
    assert_eq!(late.get(), BEYOND);
    metrics.tally(0).request(Some(&late), &outcome(200));
    metrics.leave(&late);
    assert_eq!(sum(&metrics, BEYOND).requests().count(), 1, "what is counted together stays");
    metrics.leave(&places[7]);
    metrics.enter(&late, "late", "test");
    assert!(late.get() >= FIRST);
    assert_eq!(metrics.places.lock().expect("not poisoned").names.len(), ENVIRONMENTS_MAX);
}

#[test]
fn a_place_that_somebody_else_gets_is_empty() {
    let metrics = Metrics::new(2, Vec::new());
    let (old, new) = (Place::default(), Place::default());
    metrics.enter(&old, "old", "test");
    let at = old.get();
    metrics.tally(1).request(Some(&old), &outcome(404));
    metrics.leave(&old);
    metrics.tally(1).request(Some(&old), &outcome(200));
    metrics.enter(&new, "new", "test");
    assert_eq!(new.get(), at);
    let sum = sum(&metrics, at);
    assert_eq!(
        (sum.requests().count(), sum.refused.len(), sum.total, sum.sent),
        (0, 0, count::Durations::default(), 0)
    );
}
