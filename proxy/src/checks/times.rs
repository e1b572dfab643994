//! How long a request's parts may take: what its environment's policy says, and else what the edge does.

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
    pub(crate) stream_idle: Duration,
    /// Of all of it.
    pub(crate) total: Option<Duration>,
}

impl Times {
    pub(crate) fn new(said: Option<&policy::Limits>, limits: &Limits) -> Self {
        let time = |of: fn(&policy::Limits) -> Option<NonZeroU32>| {
            said.and_then(of).map(|millis| Duration::from_millis(millis.get().into()))
        };
        Self {
            // How often the lane tries within it is settled at its start.
            connect: time(|said| said.connect_ms).map_or(limits.connect, |connect| connect.min(limits.connect)),
            connect_total: time(|said| said.connect_total_ms).unwrap_or(limits.connect_total),
            send: time(|said| said.send_ms).unwrap_or(limits.send),
            answer: time(|said| said.answer_ms).unwrap_or(limits.response_gap),
            stream_idle: time(|said| said.stream_idle_ms).unwrap_or(limits.stream_idle),
            total: time(|said| said.total_ms),
        }
    }
}
