//! Until when a request of HTTP/1 is carried: to its end, or, where it became what may last for ever, until the edge ends that.
//!
//! A WebSocket is ended when it is its turn at the end of the proxy, when its environment is to sleep, and when nothing of it
//! moved for too long; both sides are told, and have a while to answer. What it became is known by the answer's head, which only
//! the lane gets to see; so it is looked at after each of its steps, and other requests pay nothing for it. Cancelled there,
//! whatever the connection carries ends with it.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use super::conn::Wire;
use crate::checks::Times;
use crate::drain;
use crate::edge::Edge;

/// How long both sides of a tunnel that is ended have to end the frame that they are in, and to answer; less shortly before all
/// is cut off.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a request is, as far as is known.
#[derive(Clone, Copy, PartialEq)]
enum Becomes {
    /// One with an answer.
    Plain,
    /// One that asks for an upgrade, at its instance.
    Asks,
    Stream,
    Tunnel,
}

/// Carries a request; `times` are those of one that asks for an upgrade.
pub(super) async fn until_closed<T>(
    edge: &Edge,
    wire: &Wire,
    times: Option<Times>,
    carried: impl Future<Output = T>,
) -> Option<T> {
    let mut carried = pin!(carried);
    let (mut is, mut end) = (Becomes::Plain, None::<Pin<Box<dyn Future<Output = ()> + '_>>>);
    poll_fn(|context| {
        if let Poll::Ready(carried) = carried.as_mut().poll(context) {
            return Poll::Ready(Some(carried));
        }
        let becomes = becomes(wire, times.as_ref());
        if becomes != is {
            is = becomes;
            end = match (becomes, &times) {
                (Becomes::Plain, _) => None,
                (Becomes::Stream, times) => Some(Box::pin(stream(edge, wire, times.map(|times| times.stream_idle)))),
                (_, None) => None,
                (Becomes::Asks, Some(times)) => Some(Box::pin(answered(wire, times.answer))),
                (Becomes::Tunnel, Some(times)) => Some(Box::pin(tunnel(edge, wire, times.stream_idle))),
            };
        }
        match &mut end {
            Some(end) => end.as_mut().poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

fn becomes(wire: &Wire, times: Option<&Times>) -> Becomes {
    let is = |said: &std::sync::atomic::AtomicBool| said.load(Ordering::Relaxed);
    if times.is_some() && is(&wire.websocket) {
        Becomes::Tunnel
    } else if is(&wire.streams) {
        Becomes::Stream
    } else if times.is_some() && is(&wire.connected) {
        Becomes::Asks
    } else {
        Becomes::Plain
    }
}

/// Has the lane hear of it when the instance says nothing for too long: it does not look itself, for the sake of tunnels.
async fn answered(wire: &Wire, gap: Duration) {
    loop {
        let before = wire.sent.load(Ordering::Relaxed);
        sleep(gap).await;
        // What waits for the client to read is not the instance's fault.
        if wire.sent.load(Ordering::Relaxed) == before && !wire.full.load(Ordering::Relaxed) {
            break;
        }
    }
    wire.late.store(true, Ordering::Relaxed);
    // It is polled once more, and then does what is to be done.
    yield_now().await;
    pending().await
}

/// The lane has no time of its own for what asked for an upgrade: `idle` is that.
async fn stream(edge: &Edge, wire: &Wire, idle: Option<Duration>) {
    tokio::select! {
        () = drain::streams(&edge.phase, &edge.dice) => {}
        () = sleeps(wire) => {}
        () = still(wire, idle) => {}
    }
}

async fn still(wire: &Wire, idle: Option<Duration>) {
    match (wire.lasting(), idle) {
        (Some(lasting), Some(idle)) => lasting.stands_still(idle).await,
        _ => pending().await,
    }
}

async fn tunnel(edge: &Edge, wire: &Wire, idle: Duration) {
    tokio::select! {
        () = drain::upgraded(&edge.phase, &edge.dice) => {}
        () = sleeps(wire) => {}
        () = still(wire, Some(idle)) => {}
    }
    wire.farewell.store(true, Ordering::Relaxed);
    // The connection is looked at once more, and says what is to be said.
    yield_now().await;
    sleep(drain::farewell(&edge.phase, FAREWELL)).await;
}

/// Resolves when the environment of what the answer has become is to sleep, and nobody is there.
pub(super) async fn sleeps(wire: &Wire) {
    match wire.lasting() {
        Some(lasting) => lasting.sleeps().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_late_only_where_its_client_takes_what_there_is() {
        let (wire, gap) = (Wire::default(), Duration::from_secs(30));
        let late = || wire.late.load(Ordering::Relaxed);
        wire.full.store(true, Ordering::Relaxed);
        let mut answered = pin!(answered(&wire, gap));
        assert!(timeout(gap * 10, answered.as_mut()).await.is_err() && !late(), "its client does not read");
        wire.full.store(false, Ordering::Relaxed);
        assert!(timeout(gap * 2, answered).await.is_err() && late());
    }
}
