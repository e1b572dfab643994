//! How long a request's parts may take: what its rule says, else its environment's policy, and else the edge.

use std::num::NonZeroU32;
use std::time::Duration;

use dormouse_link::policy;

use crate::config::Limits;

/// See [`Limits`] and [`policy::Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) connect: Duration,
    pub(crate) connect_total: Duration,
    pub(crate) send: Duration,
    pub(crate) answer: Duration,
    /// Between two pieces of an answer, where that is shorter.
    pub(crate) gap: Option<Duration>,
    pub(crate) stream_idle: Duration,
    /// Of all of it.
    pub(crate) total: Option<Duration>,
}

impl Times {
    /// By whoever of `said` says it first.
    pub(crate) fn new(said: [Option<&policy::Limits>; 2], limits: &Limits) -> Self {
        let time = |of: fn(&policy::Limits) -> Option<NonZeroU32>| {
            let millis = said.into_iter().flatten().find_map(of)?;
            Some(Duration::from_millis(millis.get().into()))
        };
        let answer = time(|said| said.answer_ms).unwrap_or(limits.response_gap);
        Self {
            // How often the lane tries within it is settled at its start.
            connect: time(|said| said.connect_ms).map_or(limits.connect, |connect| connect.min(limits.connect)),
            connect_total: time(|said| said.connect_total_ms).unwrap_or(limits.connect_total),
            send: time(|said| said.send_ms).unwrap_or(limits.send),
            answer,
            gap: time(|said| said.gap_ms).filter(|gap| *gap < answer),
            stream_idle: time(|said| said.stream_idle_ms).unwrap_or(limits.stream_idle),
            total: time(|said| said.total_ms),
        }
    }
}
