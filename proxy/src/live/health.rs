//! Whether an instance is left out for a while, because it failed again and again; one word, changed by atomics only.
//!
//! After some failures in a row an instance is *out*, for a time that doubles from one time to the next and is never the same
//! twice. When the time is over, one request goes to it on *trial*: an answer brings it back, a failure sends it out for
//! longer, and a trial that nobody hears of is followed by another. How many may be out at once is decided by who chooses
//! ([`super::balance`]); here is one instance alone, and time is an argument: milliseconds on the edge's clock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::Limits;

/// The most times that count for how long an instance is out.
const TIMES_MAX: u64 = 15;
/// So long a trial is waited for, in milliseconds, before there is another.
const TRIAL: u64 = 5_000;
/// Failures that are counted.
const FAILURES_MAX: u64 = 255;

/// What is known of an instance; the default is that nothing is.
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicU64);

/// The states, packed: 2 bits for which, 8 for failures, 4 for times, 50 for milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It gets requests. `failures` came in a row; it was out `times` times, until `since`.
    Fit { failures: u64, times: u64, since: u64 },
    /// It gets none until then.
    Out { times: u64, until: u64 },
    /// It got one, to see how it is; another one then.
    Trial { times: u64, until: u64 },
}

/// What may be done with an instance now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Fit,
    /// It may be tried, by one request.
    Due,
    /// Left out until then.
    Out(u64),
}

/// Whether a failure sent an instance out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stays,
    /// For so many milliseconds.
    Out(u64),
}

const MILLIS_BITS: u32 = 50;
const TIMES_SHIFT: u32 = MILLIS_BITS;
const FAILURES_SHIFT: u32 = TIMES_SHIFT + 4;
const KIND_SHIFT: u32 = FAILURES_SHIFT + 8;

impl State {
    fn unpack(word: u64) -> Self {
        let millis = word & ((1 << MILLIS_BITS) - 1);
        let times = (word >> TIMES_SHIFT) & TIMES_MAX;
        let failures = (word >> FAILURES_SHIFT) & FAILURES_MAX;
        match word >> KIND_SHIFT {
            0 => Self::Fit { failures, times, since: millis },
            1 => Self::Out { times, until: millis },
            _ => Self::Trial { times, until: millis },
        }
    }

    fn pack(self) -> u64 {
        let (kind, failures, times, millis) = match self {
            Self::Fit { failures, times, since } => (0, failures, times, since),
            Self::Out { times, until } => (1, 0, times, until),
            Self::Trial { times, until } => (2, 0, times, until),
        };
        let millis = millis.min((1 << MILLIS_BITS) - 1);
        (kind << KIND_SHIFT)
            | (failures.min(FAILURES_MAX) << FAILURES_SHIFT)
            | (times.min(TIMES_MAX) << TIMES_SHIFT)
            | millis
    }

    fn standing(self, now: u64) -> Standing {
        match self {
            Self::Fit { .. } => Standing::Fit,
            Self::Out { until, .. } | Self::Trial { until, .. } if until <= now => Standing::Due,
            Self::Out { until, .. } | Self::Trial { until, .. } => Standing::Out(until),
        }
    }

    /// After a failure; `may_go` is whether it may be out at all, and `dice` any number.
    fn failed(self, now: u64, may_go: bool, dice: u64, limits: &Limits) -> Self {
        let out = |times: u64| Self::Out { times: times + 1, until: now + duration(times, dice, limits) };
        match self {
            Self::Fit { failures, times, since } => {
                let failures = failures + 1;
                if failures < u64::from(limits.eject_after) || !may_go {
                    return Self::Fit { failures, times, since };
                }
                let forgotten = now.saturating_sub(since) > millis(limits.eject_max);
                out(if forgotten { 0 } else { times })
            }
            // Of a request that began before.
            Self::Out { .. } => self,
            Self::Trial { times, .. } => out(times),
        }
    }

    fn answered(self, now: u64) -> Self {
        match self {
            Self::Fit { times, since, .. } => Self::Fit { failures: 0, times, since },
            // Of a request that began before.
            Self::Out { .. } => self,
            Self::Trial { times, .. } => Self::Fit { failures: 0, times, since: now },
        }
    }
}

/// How long an instance is out that was out `times` times: between three quarters and five quarters of what doubles each
/// time, so that those which failed together do not come back together.
fn duration(times: u64, dice: u64, limits: &Limits) -> u64 {
    let whole = millis(limits.eject).saturating_mul(1 << times.min(TIMES_MAX)).min(millis(limits.eject_max));
    whole - whole / 4 + dice % (whole / 2 + 1)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Health {
    /// Whether nothing speaks against it; costs a load.
    pub(crate) fn is_fit(&self) -> bool {
        self.0.load(Ordering::Relaxed) >> KIND_SHIFT == 0
    }

    pub(crate) fn standing(&self, now: u64) -> Standing {
        self.state().standing(now)
    }

    /// Takes the one place of a trial; whether it was to be had.
    pub(crate) fn try_out(&self, now: u64) -> bool {
        let until = now + TRIAL;
        self.change(|state| match state {
            State::Out { times, .. } | State::Trial { times, .. } if state.standing(now) == Standing::Due => {
                State::Trial { times, until }
            }
            _ => state,
        })
        .is_some()
    }

    /// It could not be connected to, or failed at its answer.
    pub(crate) fn failed(&self, now: u64, may_go: impl FnOnce() -> bool, dice: u64, limits: &Limits) -> Verdict {
        let may_go = match self.state() {
            State::Fit { failures, .. } => failures + 1 >= u64::from(limits.eject_after) && may_go(),
            State::Out { .. } | State::Trial { .. } => true,
        };
        match self.change(|state| state.failed(now, may_go, dice, limits)) {
            Some(State::Out { until, .. }) => Verdict::Out(until.saturating_sub(now)),
            _ => Verdict::Stays,
        }
    }

    /// It answered; whether that brought it back.
    pub(crate) fn answered(&self, now: impl FnOnce() -> u64) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        let clean = matches!(State::unpack(word), State::Fit { failures: 0, .. } | State::Out { .. });
        if clean {
            return false;
        }
        let now = now();
        let was_fit = self.is_fit();
        self.change(|state| state.answered(now)).is_some() && !was_fit
    }

    /// Nothing that was known counts any more.
    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn state(&self) -> State {
        State::unpack(self.0.load(Ordering::Relaxed))
    }

    /// The new state, if it is another.
    fn change(&self, change: impl Fn(State) -> State) -> Option<State> {
        let changed = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let new = change(State::unpack(word)).pack();
            (new != word).then_some(new)
        });
        changed.ok().map(|word| change(State::unpack(word)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn limits() -> Limits {
        Limits {
            eject_after: 3,
            eject: Duration::from_secs(10),
            eject_max: Duration::from_secs(100),
            ..Limits::default()
        }
    }

    /// Fails it at `now` until it is out; for how long.
    fn out(health: &Health, now: u64, limits: &Limits) -> u64 {
        for _ in 0..limits.eject_after {
            if let Verdict::Out(millis) = health.failed(now, || true, 7, limits) {
                return millis;
            }
        }
        panic!("it stays");
    }

    #[test]
    fn only_failures_in_a_row_send_an_instance_out() {
        let (health, limits) = (Health::default(), limits());
        for now in 0..100 {
            for _ in 1..limits.eject_after {
                assert_eq!(health.failed(now, || true, 0, &limits), Verdict::Stays);
            }
            assert!(!health.answered(|| now));
            assert!(health.is_fit());
        }
        assert!(matches!(Health::standing(&health, 100), Standing::Fit));
        out(&health, 100, &limits);
        assert!(!health.is_fit());
    }

    #[test]
    fn one_request_at_a_time_tries_it_and_its_answer_brings_it_back() {
        let (health, limits) = (Health::default(), limits());
        let back = 1000 + out(&health, 1000, &limits);
        assert_eq!(health.standing(back - 1), Standing::Out(back));
        assert!(!health.try_out(back - 1));
        assert!(!health.answered(|| back - 1), "an answer of before says nothing");
        assert_eq!(health.standing(back), Standing::Due);
        assert!(health.try_out(back));
        assert!(!health.try_out(back), "one is enough");
        assert_eq!(health.standing(back), Standing::Out(back + TRIAL), "and the next only if nobody hears of it");
        assert!(health.try_out(back + TRIAL));
        assert!(health.answered(|| back + TRIAL + 1));
        assert_eq!(health.standing(back + TRIAL + 1), Standing::Fit);
    }

    #[test]
    fn whoever_fails_again_is_out_for_longer_and_in_the_end_forgiven() {
        let (health, limits) = (Health::default(), limits());
        let (mut now, mut last) = (0, out(&health, 0, &limits));
        for _ in 0..3 {
            now += last;
            assert!(health.try_out(now));
            let Verdict::Out(longer) = health.failed(now, || true, 7, &limits) else { panic!("it stays") };
            assert!(longer > last, "{longer} is no longer than {last}");
            last = longer;
        }
        now += last;
        assert!(health.try_out(now));
        assert!(health.answered(|| now));
        assert!(out(&health, now + 1, &limits) >= last, "soon after it is where it was");
        now += 200_000;
        assert!(health.try_out(now));
        assert!(health.answered(|| now));
        assert!(out(&health, now + 100_001, &limits) <= 12_500, "much later it begins anew");
    }

    #[test]
    fn who_may_not_go_stays() {
        let (health, limits) = (Health::default(), limits());
        for now in 0..1000 {
            assert_eq!(health.failed(now, || false, 0, &limits), Verdict::Stays);
        }
        assert!(health.is_fit());
    }

    proptest! {
        #[test]
        fn a_time_out_is_bounded_whatever_was_before(steps in prop::collection::vec((0u8..4, 0u64..400_000, any::<u64>()), 0..60)) {
            let (health, limits) = (Health::default(), limits());
            let mut now = 0;
            for (step, pass, dice) in steps {
                now += pass;
                match step {
                    0 | 1 => if let Verdict::Out(millis) = health.failed(now, || true, dice, &limits) {
                        prop_assert!((7_500..=125_000).contains(&millis), "{millis}");
                    },
                    2 => { health.answered(|| now); },
                    _ => { health.try_out(now); },
                }
                if let Standing::Out(until) = health.standing(now) {
                    prop_assert!(until <= now + 125_000);
                }
                prop_assert_eq!(health.is_fit(), health.standing(now) == Standing::Fit);
                prop_assert_eq!(State::unpack(health.state().pack()), health.state());
            }
        }
    }
}
