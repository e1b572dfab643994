//! How a proxy comes to its end: what is told, what is closed when, and who may go on until when.
//!
//! First `/readyz` fails, and nothing else changes. Then nothing is accepted any more: idle connections are closed, requests
//! that run finish, and what may last for ever (upgraded connections, event streams, gRPC streams) is closed one by one over a
//! window, so that not all come again in one moment.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::dice::Dice;

/// How long a connection that was accepted and said nothing yet may take for its request, however fast the rest ends: its
/// request may be on the way.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How a proxy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// What still runs then is cut off.
    deadline: Duration,
    /// Idle connections are closed between these two, one by one; each has one more request until its turn comes.
    idle: (Duration, Duration),
    /// Upgraded connections are closed between these two, one by one.
    upgraded: (Duration, Duration),
    /// Streams the same. Some end by themselves, so each has its half of the time.
    streams: (Duration, Duration),
    successor: Successor,
}

/// Whether somebody comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Successor {
    None,
    /// It accepts on the same sockets.
    Serves,
}

impl Drain {
    /// Nobody comes after: idle connections are closed at once, upgraded ones over the first half of `deadline`.
    pub(crate) fn stop(deadline: Duration) -> Self {
        let upgraded = (Duration::ZERO, deadline / 2);
        let (idle, streams) = ((Duration::ZERO, Duration::ZERO), late(deadline));
        Self { deadline, idle, upgraded, streams, successor: Successor::None }
    }

    /// Another process accepts on the same sockets, so there is no hurry: idle connections have a quarter of `deadline` for
    /// one more request, and are closed until its half; upgraded ones stay as long, and are closed until shortly before it.
    pub(crate) fn handed_over(deadline: Duration) -> Self {
        let (idle, late) = ((deadline / 4, deadline / 2), late(deadline));
        Self { deadline, idle, upgraded: late, streams: late, successor: Successor::Serves }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// The second half of a time, with an end that comes before what is cut off.
fn late(deadline: Duration) -> (Duration, Duration) {
    (deadline / 2, deadline - deadline / 10)
}

/// How far a proxy's life has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Serving,
    /// It will end, and says so; all is served.
    Announced,
    /// Since then.
    Ending(Instant, Drain),
}

/// What a connection had before it became idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    Answers,
}

impl Phase {
    fn ending(&self) -> Option<(Instant, Drain)> {
        match self {
            Self::Ending(since, drain) => Some((*since, *drain)),
            Self::Serving | Self::Announced => None,
        }
    }

    /// Whether another process serves in its place.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.ending().is_some_and(|(_, drain)| drain.successor == Successor::Serves)
    }
}

/// Resolves when it is the turn of an idle connection to be closed, or of a held request to be sent away. Cancel-safe.
pub(crate) async fn idle(phase: &watch::Receiver<Phase>, dice: &Dice, before: Before) {
    turn(phase, dice, |drain| match before {
        Before::Answers => drain.idle,
        Before::Nothing => (drain.idle.0.max(FIRST_REQUEST), drain.idle.1.max(FIRST_REQUEST * 2)),
    })
    .await;
}

/// Resolves when it is an upgraded connection's turn to be closed. Cancel-safe.
pub(crate) async fn upgraded(phase: &watch::Receiver<Phase>, dice: &Dice) {
    turn(phase, dice, |drain| drain.upgraded).await;
}

/// Resolves when it is the turn of an answer that may last for ever to be closed. Cancel-safe.
pub(crate) async fn streams(phase: &watch::Receiver<Phase>, dice: &Dice) {
    turn(phase, dice, |drain| drain.streams).await;
}

/// How long what is told to end now has for that: `most`, or half of what is left until it is cut off.
pub(crate) fn farewell(phase: &watch::Receiver<Phase>, most: Duration) -> Duration {
    match phase.borrow().ending() {
        Some((since, drain)) => most.min((since + drain.deadline).saturating_duration_since(Instant::now()) / 2),
        None => most,
    }
}

fn turn<'a>(
    phase: &watch::Receiver<Phase>,
    dice: &'a Dice,
    window: impl FnOnce(&Drain) -> (Duration, Duration) + 'a,
) -> impl Future<Output = ()> + 'a {
    let mut phase = phase.clone();
    async move {
        let ending = match phase.wait_for(|phase| phase.ending().is_some()).await {
            Ok(phase) => phase.ending(),
            Err(_) => None,
        };
        // A proxy that is dropped says so, too.
        let Some((since, drain)) = ending else { return std::future::pending().await };
        let (from, to) = window(&drain);
        sleep_until(since + from + part(to.saturating_sub(from), dice.roll())).await;
    }
}

/// A part of a window that nobody else is likely to get.
pub(crate) fn part(window: Duration, roll: u64) -> Duration {
    window.mul_f64((roll >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn turns(drain: Drain, of: impl AsyncFn(&watch::Receiver<Phase>, &Dice)) -> Vec<Duration> {
        let dice = Dice::default();
        let mut turns = Vec::new();
        for _ in 0..200 {
            let (_told, phase) = watch::channel(Phase::Ending(Instant::now(), drain));
            let began = Instant::now();
            of(&phase, &dice).await;
            turns.push(began.elapsed());
        }
        turns.sort();
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_last_for_ever_is_closed_over_the_window_and_not_at_its_end() {
        let drains = [(Drain::stop(MINUTE), 0, 30), (Drain::handed_over(MINUTE), 30, 54)];
        let upgraded = drains.map(|(drain, from, to)| (drain, from, to, false));
        let streams = drains.map(|(drain, ..)| (drain, 30, 54, true));
        for (drain, from, to, of_streams) in upgraded.into_iter().chain(streams) {
            let turns = turns(drain, async |phase, dice| match of_streams {
                true => super::streams(phase, dice).await,
                false => super::upgraded(phase, dice).await,
            })
            .await;
            let seconds = |count| Duration::from_secs(count);
            assert!(turns[0] >= seconds(from) && turns[199] <= seconds(to) + Duration::from_millis(2), "{turns:?}");
            for tenth in turns.chunks(20) {
                assert!(tenth[19] - tenth[0] < seconds(to - from) / 3, "they are spread: {turns:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_at_once_unless_there_is_time() {
        let turns_of = async |drain, before| turns(drain, async |phase, dice| idle(phase, dice, before).await).await;
        let answered = turns_of(Drain::stop(MINUTE), Before::Answers).await;
        assert!(answered[199] <= Duration::from_millis(2));
        let silent = turns_of(Drain::stop(MINUTE), Before::Nothing).await;
        assert!(silent[0] >= FIRST_REQUEST && silent[199] <= FIRST_REQUEST * 2, "a first request may be on its way");
        let relaxed = turns_of(Drain::handed_over(MINUTE), Before::Answers).await;
        assert!(relaxed[0] >= Duration::from_secs(15) && relaxed[199] <= Duration::from_secs(31));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_told_to_end_has_no_longer_than_until_it_would_be_cut_off() {
        let three = Duration::from_secs(3);
        let (_told, phase) = watch::channel(Phase::Ending(Instant::now(), Drain::stop(MINUTE)));
        assert_eq!(farewell(&phase, three), three);
        tokio::time::sleep(Duration::from_secs(58)).await;
        assert_eq!(farewell(&phase, three), Duration::from_secs(1));
        tokio::time::sleep(MINUTE).await;
        assert_eq!(farewell(&phase, three), Duration::ZERO);
        assert_eq!(farewell(&watch::channel(Phase::Serving).1, three), three);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_closed_before_the_end_begins() {
        let (told, phase) = watch::channel(Phase::Serving);
        let dice = Dice::default();
        let waited = async |phase| tokio::time::timeout(MINUTE, idle(phase, &dice, Before::Answers)).await.is_ok();
        assert!(!waited(&phase).await);
        told.send_replace(Phase::Announced);
        assert!(!waited(&phase).await);
        told.send_replace(Phase::Ending(Instant::now(), Drain::stop(MINUTE)));
        assert!(waited(&phase).await);
    }
}
