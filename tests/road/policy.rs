//! How an environment's requests are treated, as its developer says it to the control plane.

use std::time::Duration;

use reqwest::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::source::Source;
use crate::world::{SOON, World};

const TEST: &str = "/apps/shop/environments/test/policy";
const HOST: &str = "shop-test.localhost";
/// What is not held is answered long before.
const NOT_AT_ONCE: Duration = Duration::from_millis(300);

/// Of `open sesame`.
fn hash() -> String {
    dormouse_proxy::hash_password("open sesame").expect("randomness")
}

impl World {
    /// Changes a policy, and every edge has taken it.
    async fn policy(&self, method: &str, path: &str, policy: Option<Value>) -> Value {
        let (status, answer) = self.api(method, path, policy).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn with_password(&self, password: &str) -> u16 {
        self.visitor().get_as(HOST, "ann", password).await.expect("an answer").status
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_is_served_as_soon_as_it_is_said_and_no_longer() {
    let world = World::with_shop().await;
    assert_eq!(world.environment("shop", "test").await["policy"]["maintenance"], false);
    for _ in 0..3 {
        world.set("shop", "test", json!({ "maintenance": true })).await;
        let answer = world.get(HOST).await;
        assert_eq!((answer.status, &answer.headers["retry-after"]), (503, &"60".parse().expect("a value")));
        assert_eq!(world.environment("shop", "test").await["policy"]["maintenance"], true);
        world.set("shop", "test", json!({ "maintenance": false })).await;
        assert_eq!(world.get(HOST).await.status, 200);
    }
    let said = json!({ "maintenance": { "retry_after_seconds": 7 } });
    assert_eq!(world.policy("PUT", TEST, Some(said)).await["maintenance"]["retry_after_seconds"], 7);
    world.set("shop", "test", json!({ "maintenance": true })).await;
    assert_eq!(world.get(HOST).await.headers["retry-after"], "7", "what is on stays as it is");
    assert_eq!(world.policy("DELETE", TEST, None).await, json!({}));
    assert_eq!(world.get(HOST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_protects_test_and_who_has_none_does_not_wake_it() {
    let world = World::with_shop().await;
    world.set("shop", "test", json!({ "passwords": { "ann": hash() } })).await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let answer = world.get(HOST).await;
    assert_eq!(answer.status, 401);
    assert!(answer.headers[WWW_AUTHENTICATE].to_str().expect("text").starts_with("Basic"), "{answer:?}");
    assert_eq!(world.with_password("wrong").await, 401);
    assert_eq!(world.environment("shop", "test").await["state"], "asleep");
    assert_eq!(world.with_password("open sesame").await, 200, "and who has it wakes it");
    let view = world.environment("shop", "test").await["policy"].clone();
    assert_eq!((&view["protected_by"], &view["users"]), (&json!(["password"]), &json!(["ann"])));
    let (_, all) = world.api("GET", "/apps", None).await;
    assert!(!all.to_string().contains("argon2id"), "a list shows no hash: {all}");
    world.set("shop", "test", json!({ "passwords": { "ann": null } })).await;
    assert_eq!(world.get(HOST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_requests_and_its_end_lets_them_go_on() {
    let world = World::with_shop().await;
    world.set("shop", "test", json!({ "pause": true })).await;
    let (visitor, mut held) = (world.visitor(), JoinSet::new());
    held.spawn(async move { visitor.get(HOST, "/").await });
    assert!(timeout(NOT_AT_ONCE, held.join_next()).await.is_err(), "nothing was answered");
    assert_eq!(world.environment("shop", "test").await["policy"]["paused"], true);
    world.set("shop", "test", json!({ "pause": false })).await;
    let answer = held.join_next().await.expect("one").expect("it ends");
    assert_eq!(answer.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_nobody_can_serve_by_is_refused_with_its_place_and_the_one_before_stays() {
    let world = World::with_shop().await;
    let before = world.policy("PUT", TEST, Some(json!({ "limits": { "concurrency": 7 } }))).await;
    let users = |hash: &str| json!({ "access": { "basic": { "users": [{ "name": "ann", "hash": hash }] } } });
    for (bad, place) in [
        (json!({ "maintenence": {} }), "maintenence"),
        (json!({ "limits": { "concurrency": 0 } }), "limits.concurrency"),
        (json!({ "access": { "allow": ["10.0.0.0/8", "nowhere"] } }), "access.allow[1]"),
        (json!({ "limits": { "send_ms": 86_400_001 } }), "policy.limits: send_ms"),
        (json!({ "pause": { "requests": 1001 } }), "policy.pause: requests"),
        (json!({ "balance": { "canary": { "percent": 5 } } }), "policy.balance"),
        (users("secret"), "policy.access: basic.users: the hash of \"ann\""),
    ] {
        let (status, answer) = world.api("PUT", TEST, Some(bad.clone())).await;
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert_eq!(status, 422, "{bad}: {answer}");
        assert!(detail.contains(place) && !detail.contains("secret"), "{bad}: {detail}");
    }
    let words = json!({ "passwords": { "ann": "secret" }, "sleep_after_ms": 5000 });
    let (status, answer) = world.api("PATCH", "/apps/shop/environments/test", Some(words)).await;
    assert!(status == 422 && answer["detail"].as_str().is_some_and(|detail| detail.contains("\"ann\"")), "{answer}");
    assert_eq!(world.environment("shop", "test").await["sleep_after_ms"], 900_000, "all of it or nothing");
    let names = ["waking", "failed", "maintenance", "bad_gateway", "unavailable", "denied", "too_many"];
    // Each is as large as it may be, and twice that as JSON.
    let pages: serde_json::Map<_, _> =
        names.map(|name| (name.to_owned(), json!("\"".repeat(64 << 10)))).into_iter().collect();
    let large = json!({ "pages": pages });
    let (status, answer) = world.api("PUT", TEST, Some(large)).await;
    assert!(status == 422 && answer["detail"].as_str().is_some_and(|detail| detail.contains("bytes")), "{answer}");
    assert_eq!(world.policy("GET", TEST, None).await, before);
}

/// It has the outline of a certificate, of a version that there is not: what only an edge's TLS can judge.
const NEARLY_A_CERTIFICATE: &str =
    "-----BEGIN CERTIFICATE-----\nMBkwEqADAgEFAgEBMAAwADAAMAAwADAAAwEA\n-----END CERTIFICATE-----\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_an_edge_refuses_is_kept_and_not_said_to_be_served() {
    let world = World::with_shop().await;
    let ask = json!({ "url": "https://127.0.0.1:1/", "ca": NEARLY_A_CERTIFICATE });
    let (status, answer) = world.api("PUT", TEST, Some(json!({ "access": { "forward_auth": ask } }))).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(world.get(HOST).await.status, 200, "the version before serves");
    let said = world.policy("PUT", TEST, Some(json!({}))).await;
    assert_eq!(said, json!({}), "a later one is served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_outlives_restarts_and_deployments_and_is_of_its_environment_alone() {
    let mut world = World::with_shop().await;
    assert!(world.deploy("shop", "live").await.ok);
    let users = json!([{ "name": "ann", "hash": hash() }]);
    let said = world.policy("PUT", TEST, Some(json!({ "access": { "basic": { "users": users } } }))).await;
    world.restart().await;
    assert_eq!(world.policy("GET", TEST, None).await, said);
    assert_eq!((world.get(HOST).await.status, world.get("shop.localhost").await.status), (401, 200));
    assert!(world.put_to_sleep("shop", "test").await.ok);
    world.restart().await;
    assert_eq!(world.get(HOST).await.status, 401);
    assert_eq!(world.environment("shop", "test").await["state"], "asleep");
    world.pushed("shop", &Source::says("the next")).await;
    assert_eq!((world.get(HOST).await.status, world.with_password("open sesame").await), (401, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_goes_with_its_application() {
    let world = World::with_shop().await;
    world.set("shop", "test", json!({ "maintenance": true })).await;
    assert!(world.follow("DELETE", "/apps/shop").await.ok);
    assert_eq!(world.api("GET", TEST, None).await.0, 404);
    world.deployed("shop", "another").await;
    assert_eq!(world.policy("GET", TEST, None).await, json!({}));
    assert_eq!(world.get(HOST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_engines_are_for_live_unless_the_policy_says_otherwise() {
    let world = World::with_shop().await;
    let robots = async || world.get(HOST).await.headers.get("x-robots-tag").is_some();
    assert!(robots().await);
    world.policy("PUT", TEST, Some(json!({ "limits": { "concurrency": 7 } }))).await;
    assert!(robots().await, "another section says nothing of it");
    world.set("shop", "test", json!({ "indexed": true })).await;
    assert!(!robots().await);
    world.policy("DELETE", TEST, None).await;
    assert!(robots().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_comes_while_it_falls_asleep_keeps_nobody_awake() {
    let world = World::with_shop().await;
    let (sleep, set) = tokio::join!(world.put_to_sleep("shop", "test"), async {
        let deadline = Instant::now() + SOON;
        for turn in 0_u64.. {
            world.set("shop", "test", json!({ "maintenance": turn.is_multiple_of(2) })).await;
            let state = world.environment("shop", "test").await["state"].clone();
            if state == "asleep" || Instant::now() > deadline {
                return state;
            }
        }
        Value::Null
    });
    assert!(sleep.ok, "{sleep:?}");
    assert_eq!(set, "asleep");
}
