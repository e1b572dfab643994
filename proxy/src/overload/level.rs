//! From figures to what is let go: pure.

use std::fmt;

/// How far it has come. Each level lets go what it is called by, and all that the ones before it let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing is.
    Calm,
    /// New TLS handshakes.
    Handshakes,
    /// Held requests.
    Held,
    /// New requests to the environment that has most.
    Busiest,
}

impl Level {
    /// In `/connections`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Handshakes => "handshakes",
            Self::Held => "held",
            Self::Busiest => "busiest",
        }
    }

    /// In the log.
    pub(super) fn sheds(self) -> &'static str {
        match self {
            Self::Calm => "nothing",
            Self::Handshakes => "new TLS handshakes",
            Self::Held => "new TLS handshakes, held requests",
            Self::Busiest => "new TLS handshakes, held requests, new requests to the busiest environment",
        }
    }
}

/// What is used of something that there is only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

impl Share {
    fn reaches(self, percent: u64) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(percent)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.used, self.limit)
    }
}

/// What an edge uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Bytes.
    pub(crate) memory: Share,
    /// Of those that are for connections.
    pub(crate) descriptors: Share,
    /// TLS handshakes under way.
    pub(crate) handshakes: Share,
    /// Bytes that held requests may have in memory.
    pub(crate) held_bytes: Share,
}

/// From which percentage on a level is reached. Only what lets go of a thing is done for its sake: no visitor is sent away
/// because others shake hands.
type Steps = &'static [(Level, u64)];

/// Whatever is let go frees some.
const OF_ALL: Steps = &[(Level::Handshakes, 80), (Level::Held, 90), (Level::Busiest, 95)];
/// Requests that run hold none.
const OF_HELD: Steps = &[(Level::Handshakes, 80), (Level::Held, 90)];
/// They come in bursts, and are over in a moment: as many as there may be are fine.
const OF_HANDSHAKES: Steps = &[(Level::Handshakes, 100)];

/// A level that was reached is left so many percent lower, so that it does not come and go.
const HYSTERESIS: u64 = 5;

/// The level of these figures, after that one.
pub(crate) fn level(before: Level, figures: &Figures) -> Level {
    let Figures { memory, descriptors, handshakes, held_bytes } = *figures;
    let shares = [(memory, OF_ALL), (descriptors, OF_ALL), (handshakes, OF_HANDSHAKES), (held_bytes, OF_HELD)];
    let reached = |(share, steps): (Share, Steps)| {
        let from = |step: &&(Level, u64)| share.reaches(if step.0 <= before { step.1 - HYSTERESIS } else { step.1 });
        steps.iter().filter(from).map(|step| step.0).max().unwrap_or(Level::Calm)
    };
    shares.into_iter().map(reached).max().unwrap_or(Level::Calm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Level; 4] = [Level::Calm, Level::Handshakes, Level::Held, Level::Busiest];

    fn figures([memory, descriptors, handshakes, held]: [u64; 4]) -> Figures {
        let share = |used| Share { used, limit: 1000 };
        Figures {
            memory: share(memory),
            descriptors: share(descriptors),
            handshakes: share(handshakes),
            held_bytes: share(held),
        }
    }

    #[test]
    fn as_it_gets_tight_handshakes_go_first_then_held_requests_then_those_of_the_busiest() {
        for (permille, expected) in [
            (0, Level::Calm),
            (799, Level::Calm),
            (800, Level::Handshakes),
            (899, Level::Handshakes),
            (900, Level::Held),
            (949, Level::Held),
            (950, Level::Busiest),
            (5000, Level::Busiest),
        ] {
            assert_eq!(level(Level::Calm, &figures([permille, 0, 0, 0])), expected, "memory at {permille}");
            assert_eq!(level(Level::Calm, &figures([0, permille, 0, 0])), expected, "descriptors at {permille}");
        }
    }

    #[test]
    fn nobody_is_sent_away_for_what_that_would_not_free() {
        assert_eq!(level(Level::Calm, &figures([0, 0, 999, 0])), Level::Calm);
        assert_eq!(level(Level::Calm, &figures([0, 0, 9000, 0])), Level::Handshakes);
        assert_eq!(level(Level::Calm, &figures([0, 0, 0, 9000])), Level::Held);
    }

    #[test]
    fn what_was_reached_is_left_a_little_lower() {
        for (at, before, after) in [
            (949, Level::Busiest, Level::Busiest),
            (900, Level::Busiest, Level::Busiest),
            (899, Level::Busiest, Level::Held),
            (850, Level::Held, Level::Held),
            (849, Level::Held, Level::Handshakes),
            (750, Level::Handshakes, Level::Handshakes),
            (749, Level::Handshakes, Level::Calm),
            (0, Level::Busiest, Level::Calm),
        ] {
            assert_eq!(level(before, &figures([at, 0, 0, 0])), after, "at {at} after {before:?}");
        }
    }

    #[test]
    fn no_figure_is_too_large_or_too_small() {
        let most = Share { used: u64::MAX, limit: u64::MAX };
        let none = Share { used: u64::MAX, limit: 0 };
        for share in [most, none] {
            let figures = Figures { memory: share, descriptors: share, handshakes: share, held_bytes: share };
            assert_eq!(level(Level::Calm, &figures), Level::Busiest);
        }
    }

    proptest! {
        /// Using more of anything, or having let go of more before, never lets go of less.
        #[test]
        fn more_never_lets_go_of_less(
            used in prop::array::uniform4(0u64..1200),
            more in prop::array::uniform4(0u64..300),
            before in prop::sample::select(&LEVELS),
            worse in prop::sample::select(&LEVELS),
        ) {
            let larger = std::array::from_fn(|at| used[at] + more[at]);
            let least = level(before, &figures(used));
            prop_assert!(least <= level(before, &figures(larger)));
            prop_assert!(least <= level(before.max(worse), &figures(used)));
        }

        /// Figures that swing by less than the hysteresis change it once, and never again.
        #[test]
        fn it_does_not_come_and_go(
            used in prop::array::uniform4(0u64..1200),
            swing in prop::array::uniform4(0u64..50),
            before in prop::sample::select(&LEVELS),
        ) {
            let higher = std::array::from_fn(|at| used[at] + swing[at]);
            let settled = level(level(before, &figures(higher)), &figures(used));
            prop_assert_eq!(level(settled, &figures(higher)), settled);
            prop_assert_eq!(level(settled, &figures(used)), settled);
        }
    }
}
