use std::net::SocketAddr;

use super::*;

fn offer(version: u64, names: &[&str]) -> Offer {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let endpoint = |name: &&str| Endpoint { instance: InstanceId::new(*name), address };
    let environment = Environment {
        id: EnvironmentId::new("e"),
        app: "a".parse().expect("a label"),
        name: "test".parse().expect("a label"),
        deployment: 1,
        state: State::Ready,
        epoch: Epoch(version),
        endpoints: names.iter().map(endpoint).collect(),
    };
    let instances = names.iter().map(|name| Arc::new(Instance::new(InstanceId::new(*name)))).collect();
    Offer { version: Generation(version), environment: Some(environment), instances }
}

fn choose(cell: &Arc<Cell>, signals: &Arc<Signals>, tried: &Tried) -> Choice {
    cell.choose(signals, &Dice::default(), tried)
}

#[test]
fn once_quiet_after_a_swap_nobody_boards_the_old_instances() {
    let (signals, _heard) = Signals::new();
    let cell = Arc::new(Cell::new(EnvironmentId::new("e")));
    cell.swap(offer(0, &["0"]));
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) {
                    // Never let go, so that each boarding shows for good.
                    std::mem::forget(choose(&cell, &signals, &Tried::new(3)));
                }
            });
        }
        for version in 1..3000 {
            let old = cell.offer();
            cell.swap(offer(version, &["x"]));
            while !cell.quiet() {
                std::thread::yield_now();
            }
            let boarded = || old.instances[0].in_flight.load(Ordering::SeqCst);
            let before = boarded();
            for _ in 0..20 {
                std::thread::yield_now();
            }
            assert_eq!(boarded(), before, "somebody boarded after the swap was quiet");
        }
        running.store(false, Ordering::Relaxed);
    });
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
