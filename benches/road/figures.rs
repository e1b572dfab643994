//! Many measurements of one thing as the few figures that are told: median, 95th percentile, extremes. Pure.

use std::fmt;
use std::time::Duration;

/// Measurements, in one unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// In milliseconds.
    pub(crate) fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1_000.0);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that this share (0 to 1) of all do not exceed; 0 of none.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let mut all = self.0.clone();
        all.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list"
        )]
        let place = (share * all.len() as f64).ceil() as usize;
        all.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// As a row: median, p95, least, most, number.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p95, least, most) = (self.median(), self.at(0.95), self.at(0.0), self.at(1.0));
        write!(f, "{median:9.1} {p95:9.1} {least:9.1} {most:9.1} {:6}", self.len())
    }
}

/// A heading over rows of [`Samples`].
pub(crate) fn heading(title: &str) -> String {
    format!("{title:58} {:>9} {:>9} {:>9} {:>9} {:>6}", "median", "p95", "least", "most", "times")
}

/// A row of [`Samples`].
pub(crate) fn row(name: &str, samples: &Samples) -> String {
    format!("{name:58} {samples}")
}
