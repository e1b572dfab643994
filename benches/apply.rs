//! Applying a change to the table costs what the change is, not what the table is: the times of the three sizes are to be
//! alike but for the depth of a tree.

use dormouse_link::{
    Base, Body, EnvironmentId, Epoch, Generation, Host, Object, OrganisationId, Route, State, Table, Term, Update,
};

/// Environments of a table; each has a route and a cell.
const SIZES: [u64; 3] = [100, 10_000, 1_000_000];

fn main() {
    divan::main();
}

fn route(number: u64) -> Object {
    let host: Host = format!("app-{number}.example.com").parse().expect("a host");
    let route = Route::new(host, EnvironmentId::new(number.to_string()));
    Object { version: Generation(1), organisation: OrganisationId::new("o"), body: Body::Route(route) }
}

fn cell(number: u64, version: u64) -> Object {
    let cell = dormouse_link::Environment {
        id: EnvironmentId::new(number.to_string()),
        app: "app".parse().expect("a label"),
        name: "test".parse().expect("a label"),
        deployment: version,
        state: State::Asleep,
        epoch: Epoch(version),
        endpoints: Vec::new(),
        policy: dormouse_link::Policy::default(),
    };
    Object {
        version: Generation(version),
        organisation: OrganisationId::new("o"),
        body: Body::Environment(Box::new(cell)),
    }
}

fn update(generation: u64, base: Base, put: Vec<Object>) -> Update {
    Update { term: Term(1), generation: Generation(generation), base, put, remove: Vec::new() }
}

/// One cell of a table changes.
#[divan::bench(args = SIZES)]
fn one_cell(bencher: divan::Bencher<'_, '_>, size: u64) {
    let mut table = Table::default();
    let all = (0..size).flat_map(|number| [route(number), cell(number, 1)]).collect();
    table.apply(update(1, Base::Snapshot, all)).expect("it follows");
    let mut generation = 1;
    let mut change = || {
        generation += 1;
        let put = vec![cell(generation * 7919 % size, generation)];
        update(generation, Base::Since(Generation(generation - 1)), put)
    };
    bencher.bench_local(|| table.apply(change()));
}
