use std::net::SocketAddr;

use super::*;
use crate::live::sticky::StickySecret;

fn offer(version: u64, names: &[&str]) -> Offer {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let endpoint = |name: &&str| Endpoint::new(InstanceId::new(*name), address);
    let environment = Environment {
        id: EnvironmentId::new("e"),
        app: "a".parse().expect("a label"),
        name: "test".parse().expect("a label"),
        deployment: 1,
        state: State::Ready,
        epoch: Epoch(version),
        endpoints: names.iter().map(endpoint).collect(),
        policy: dormouse_link::Policy::default(),
    };
    let instances = names.iter().map(|name| Arc::new(Instance::new(InstanceId::new(*name)))).collect();
    Offer::new(Generation(version), environment, instances, &StickyKey::new(&StickySecret::new([0; 32])))
}

fn choose(cell: &Arc<Cell>, signals: &Arc<Signals>, tried: &Tried) -> Choice {
    cell.choose(signals, &Dice::default(), tried)
}

#[test]
fn a_swap_is_quiet_only_when_whoever_saw_the_old_version_has_boarded() {
    let (signals, _heard) = Signals::new();
    let cell = Arc::new(Cell::new(EnvironmentId::new("e")));
    cell.swap(offer(1, &["old"]));
    let old = cell.offer();
    for _ in 0..2 {
        let choosing = cell.begin();
        cell.swap(offer(2, &["new"]));
        let sides = [cell.turn(), cell.turn()];
        assert!(!sides.iter().all(|side| cell.is_quiet(side)), "somebody still chooses by the old version");
        let Choice::Endpoint(flight) = choosing.board(&cell, &signals, &Dice::default(), &Tried::new(3)) else {
            panic!("there was an endpoint");
        };
        assert!(sides.iter().all(|side| cell.is_quiet(side)));
        assert_eq!(flight.endpoint().instance, InstanceId::new("old"));
        assert_eq!(old.instances[0].in_flight.load(Ordering::SeqCst), 1, "and is counted there by now");
        drop(flight);
        cell.swap(Offer { instances: old.instances.clone(), ..offer(1, &["old"]) });
        // The second round begins on the other side.
        cell.turn();
    }
}

#[test]
fn constant_traffic_does_not_keep_a_swap_from_becoming_quiet() {
    let cell = Cell::new(EnvironmentId::new("e"));
    let earlier = cell.begin();
    let side = cell.turn();
    let _later = cell.begin();
    assert!(!cell.is_quiet(&side));
    drop(earlier);
    assert!(cell.is_quiet(&side), "those who came later count on the other side");
}

#[test]
fn what_was_tried_is_not_tried_again_until_there_is_a_newer_version() {
    let (signals, _heard) = Signals::new();
    let cell = Arc::new(Cell::new(EnvironmentId::new("e")));
    cell.swap(offer(1, &["a", "b", "c"]));
    let mut tried = Tried::new(2);
    let mut names = Vec::new();
    while let Choice::Endpoint(flight) = choose(&cell, &signals, &tried) {
        names.push(flight.endpoint().instance.clone());
        tried.note(&flight);
    }
    assert_eq!(names.len(), 2, "no more than the limit");
    assert_ne!(names[0], names[1]);
    cell.swap(offer(2, &["a"]));
    assert!(matches!(choose(&cell, &signals, &tried), Choice::Endpoint(_)));
}

#[test]
fn the_less_busy_of_two_is_chosen() {
    let (signals, _heard) = Signals::new();
    let cell = Arc::new(Cell::new(EnvironmentId::new("e")));
    cell.swap(offer(1, &["a", "b"]));
    let flights: Vec<_> = (0..10).map(|_| choose(&cell, &signals, &Tried::new(3))).collect();
    let offer = cell.offer();
    let busy = |index: usize| offer.instances[index].in_flight.load(Ordering::SeqCst);
    assert_eq!((busy(0), busy(1)), (5, 5));
    drop(flights);
    assert_eq!((busy(0), busy(1), cell.in_flight.load(Ordering::SeqCst)), (0, 0, 0));
}
