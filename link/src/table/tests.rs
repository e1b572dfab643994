//! The laws of the table: what both halves rely on.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn object(version: u64, body: Body) -> Object {
    Object { version: Generation(version), organisation: OrganisationId::new("o"), body }
}

fn environment(id: &str, state: State, endpoints: Vec<Endpoint>) -> Environment {
    Environment {
        id: EnvironmentId::new(id),
        app: "app".parse().expect("a label"),
        name: "test".parse().expect("a label"),
        deployment: 1,
        state,
        epoch: Epoch(1),
        endpoints,
        policy: Policy::default(),
    }
}

fn endpoint(instance: &str, address: &str) -> Endpoint {
    Endpoint::new(InstanceId::new(instance), address.parse().expect("an address"))
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Closing),
        Just(State::Asleep),
        Just(State::Waking),
        Just(State::Empty),
        (0_u64..60_000).prop_map(|ms| State::Failed { retry_in: Duration::from_millis(ms) }),
    ]
}

/// A few names only, so that two tables share some.
fn any_table() -> impl Strategy<Value = Table> {
    let host =
        prop_oneof!["[ab]\\.localhost", "c\\.example"].prop_map(|host| host.parse::<crate::Host>().expect("a host"));
    let route = (host.clone(), "[xyz]")
        .prop_map(|(host, environment)| Body::Route(Route::new(host, EnvironmentId::new(environment))));
    let cell =
        ("[xyz]", any_state()).prop_map(|(id, state)| Body::Environment(Box::new(environment(&id, state, Vec::new()))));
    let certificate = (host, "[a-z]{3}").prop_map(|(host, key)| {
        Body::Certificate(Certificate { host: host.into(), chain: "c".into(), key: key.into() })
    });
    let objects = vec((1_u64..9, prop_oneof![route, cell, certificate]), 0..8);
    (1_u64..9, objects).prop_map(|(generation, objects)| Table {
        term: Term(1),
        generation: Generation(generation),
        objects: objects.into_iter().map(|(version, body)| object(version, body)).map(|o| (o.id(), o)).collect(),
    })
}

proptest! {
    #[test]
    fn applying_the_difference_of_two_tables_leads_from_one_to_the_other(a in any_table(), mut b in any_table()) {
        b.generation = Generation(a.generation.0 + b.generation.0);
        let update = a.diff(&b);
        let mut applied = a;
        prop_assert_eq!(applied.apply(update.clone()), Ok(Vec::new()));
        prop_assert_eq!(&applied, &b);
        // Repeating is harmless: objects are whole.
        prop_assert_eq!(applied.apply(update), Ok(Vec::new()));
        prop_assert_eq!(applied, b);
    }

    #[test]
    fn a_snapshot_leads_from_any_older_table_to_the_same_one(a in any_table(), mut b in any_table()) {
        b.generation = Generation(a.generation.0 + b.generation.0);
        let mut applied = a;
        prop_assert_eq!(applied.apply(b.snapshot()), Ok(Vec::new()));
        prop_assert_eq!(applied, b);
    }

    #[test]
    fn an_update_that_does_not_follow_changes_nothing(a in any_table(), b in any_table(), ahead in 1_u64..9) {
        let mut update = a.diff(&b);
        update.generation = Generation(a.generation.0 + ahead + 1);
        update.base = Base::Since(Generation(a.generation.0 + ahead));
        let mut applied = a.clone();
        let refused = matches!(applied.apply(update), Err(Gap::Missing { .. }));
        prop_assert!(refused);
        prop_assert_eq!(applied, a);
    }

    #[test]
    fn messages_survive_json(table in any_table(), removed in btree_map("[ab]\\.example", 0..3, 0..3)) {
        let mut update = table.snapshot();
        update.remove = removed.into_keys().map(|host| ObjectId::Route(host.parse().expect("a host"))).collect();
        let json = serde_json::to_string(&update).expect("an update is JSON");
        prop_assert_eq!(serde_json::from_str::<Update>(&json).expect("and back"), update);
    }
}

#[test]
fn an_older_term_or_generation_is_refused() {
    let table = Table { term: Term(2), generation: Generation(5), ..Table::default() };
    let update = |term, generation| Update { term: Term(term), generation: Generation(generation), ..table.snapshot() };
    assert!(matches!(table.clone().apply(update(1, 9)), Err(Gap::OldTerm { .. })));
    assert!(matches!(table.clone().apply(update(2, 4)), Err(Gap::Backwards { .. })));
    // A restored control plane begins a new term, whose generations may be lower.
    assert_eq!(table.clone().apply(update(3, 1)), Ok(Vec::new()));
}

#[test]
fn a_bad_object_is_refused_alone_and_its_previous_version_stays() {
    let good =
        object(1, Body::Environment(Box::new(environment("x", State::Ready, vec![endpoint("i", "10.0.0.2:80")]))));
    let mut table = Table::default();
    let update = |generation, put| Update { generation: Generation(generation), put, ..Table::default().snapshot() };
    assert_eq!(table.apply(update(1, vec![good.clone()])), Ok(Vec::new()));
    let bad = object(2, Body::Environment(Box::new(environment("x", State::Ready, Vec::new()))));
    let other = object(2, Body::Environment(Box::new(environment("y", State::Asleep, Vec::new()))));
    let rejected = table.apply(update(2, vec![bad, other.clone()])).expect("it follows");
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].id, good.id());
    assert_eq!(table.objects[&good.id()], good);
    assert_eq!(table.objects[&other.id()], other);
}

#[test]
fn endpoints_that_no_instance_can_have_are_refused() {
    for address in ["0.0.0.0:80", "10.0.0.1:0", "224.0.0.1:80", "[::]:80"] {
        let cell = environment("x", State::Ready, vec![endpoint("i", address)]);
        assert!(matches!(cell.check(), Err(Invalid::Address(_))), "{address}");
    }
    let twice = vec![endpoint("i", "10.0.0.2:80"), endpoint("i", "10.0.0.3:80")];
    assert!(matches!(environment("x", State::Ready, twice).check(), Err(Invalid::InstanceTwice(_))));
}

#[test]
fn a_certificate_never_shows_its_key() {
    let host = "a.localhost".parse().expect("a host");
    let certificate = Certificate { host, chain: "chain".into(), key: "canary".into() };
    assert!(!format!("{certificate:?}").contains("canary"));
}
