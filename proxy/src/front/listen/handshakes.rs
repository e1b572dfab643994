//! The TLS handshakes that one worker has under way: a bounded number, so that half ones cannot take all memory.
//!
//! When there is no room, or too much to do altogether, the oldest is given up, for it will hardly end well. While even that is
//! young, handshakes come faster than they can be made: then the new one goes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// A handshake of that age may be given up for a new one; on any usual way it has ended long before.
const YOUNG: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Handshakes {
    most: usize,
    next: Cell<u64>,
    under_way: RefCell<VecDeque<Begun>>,
}

/// Whether there may be one more than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// As far as there are not too many.
    Some,
    /// The edge has too much to do.
    None,
}

struct Begun {
    id: u64,
    at: Instant,
    /// Its drop gives the handshake up.
    _go_on: oneshot::Sender<()>,
}

/// A handshake's place; freed with its drop.
pub(super) struct Place {
    handshakes: Rc<Handshakes>,
    id: u64,
    go_on: oneshot::Receiver<()>,
}

impl Handshakes {
    pub(super) fn new(most: usize) -> Rc<Self> {
        Rc::new(Self { most: most.max(1), next: Cell::new(0), under_way: RefCell::default() })
    }

    /// A place for one that begins now; none where there is no room.
    pub(super) fn begin(self: &Rc<Self>, now: Instant, room: Room) -> Option<Place> {
        let mut under_way = self.under_way.borrow_mut();
        if room == Room::None || under_way.len() >= self.most {
            under_way.pop_front_if(|oldest| now.saturating_duration_since(oldest.at) >= YOUNG)?;
        }
        let id = self.next.replace(self.next.get() + 1);
        let (sender, go_on) = oneshot::channel();
        under_way.push_back(Begun { id, at: now, _go_on: sender });
        Some(Place { handshakes: Rc::clone(self), id, go_on })
    }
}

impl Place {
    /// Resolves when the handshake is given up.
    pub(super) async fn given_up(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.go_on).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.handshakes.under_way.borrow_mut();
        if let Ok(at) = under_way.binary_search_by_key(&self.id, |begun| begun.id) {
            under_way.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn for_a_new_handshake_the_oldest_is_given_up_and_of_young_ones_none() {
        let (handshakes, start) = (Handshakes::new(2), Instant::now());
        let begin = |at| handshakes.begin(at, Room::Some);
        let mut first = begin(start).expect("room");
        let second = begin(start + YOUNG / 2).expect("room");
        assert!(begin(start + YOUNG / 2).is_none(), "all are young");
        let third = begin(start + YOUNG).expect("the first is given up");
        first.given_up().await;
        assert!(begin(start + YOUNG).is_none(), "the second is young");
        drop(first);
        assert_eq!(handshakes.under_way.borrow().len(), 2, "the first freed nobody else's place");
        drop(second);
        assert!(begin(start + YOUNG).is_some());
        drop(third);
        assert!(handshakes.under_way.borrow().is_empty());
    }

    #[tokio::test]
    async fn when_there_is_too_much_to_do_their_number_does_not_rise() {
        let (handshakes, start) = (Handshakes::new(100), Instant::now());
        assert!(handshakes.begin(start, Room::None).is_none());
        let mut old = handshakes.begin(start, Room::Some).expect("room");
        assert!(handshakes.begin(start, Room::None).is_none(), "it is young");
        let new = handshakes.begin(start + YOUNG, Room::None).expect("one that hardly ends well goes for it");
        old.given_up().await;
        drop(old);
        assert_eq!(handshakes.under_way.borrow().len(), 1);
        drop(new);
    }
}
