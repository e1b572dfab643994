//! Bad input: a clear message with what to do, the right status, and nothing half made.

use serde_json::json;

use crate::source::Source;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_invalid_reserved_or_taken_make_nothing() {
    let world = World::fake().await;
    for bad in ["", "A", "a_b", "-a", "a-", "a.b", "../x", "--upload-pack=x", "a b", "é", &"a".repeat(41)] {
        let (status, answer) = world.api("POST", "/apps", Some(json!({ "name": bad }))).await;
        assert_eq!(status, 400, "{bad:?}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("a name")), "{answer}");
    }
    for reserved in ["api", "git", "www", "admin", "panel"] {
        let (status, answer) = world.api("POST", "/apps", Some(json!({ "name": reserved }))).await;
        assert_eq!((status, answer["detail"].as_str()), (409, Some(&*format!("the name {reserved} is reserved"))));
    }
    for body in [json!({}), json!({ "name": 1 }), json!({ "name": "a", "more": 1 }), json!([])] {
        let (status, answer) = world.api("POST", "/apps", Some(body)).await;
        assert!((400..423).contains(&status), "{status} {answer}");
    }
    world.create("shop").await;
    let (status, _) = world.api("POST", "/apps", Some(json!({ "name": "shop" }))).await;
    assert_eq!(status, 409);
    // Its Live host would be shop's Test host.
    let (status, answer) = world.api("POST", "/apps", Some(json!({ "name": "shop-test" }))).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("shop-test.localhost")), "{answer}");
    let (_, all) = world.api("GET", "/apps", None).await;
    assert_eq!(all["apps"].as_array().map(Vec::len), Some(1));
    assert_eq!(std::fs::read_dir(world.data().join("git")).expect("a folder").count(), 1, "no repository is left over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_applications_and_environments_are_told_what_to_do() {
    let world = World::fake().await;
    world.create("shop").await;
    for path in ["/apps/other", "/apps/Not%20A%20Name", "/apps/shop/environments/other/logs", "/apps/shop/nothing"] {
        let (status, answer) = world.api("GET", path, None).await;
        assert_eq!(status, 404, "{path}: {answer}");
    }
    let (_, answer) = world.api("GET", "/apps/other", None).await;
    assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("dormouse app create")), "{answer}");
    let (status, answer) = world.api("POST", "/apps/shop/environments/test/deploy", None).await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("nothing was pushed")), "{answer}");
    let (status, answer) = world.api("GET", "/apps/shop/environments/test/logs", None).await;
    assert_eq!(status, 404, "{answer}");
    let (status, answer) = world.api("PUT", "/apps", None).await;
    assert_eq!(status, 405, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_be_are_refused_and_the_rest_is_kept() {
    let world = World::fake().await;
    world.create("shop").await;
    for bad in [
        json!({ "sleep_after_ms": 10 }),
        json!({ "sleep_after_ms": -1 }),
        json!({ "ready_within_ms": 0 }),
        json!({ "ready_within_ms": 99_999_999 }),
        json!({ "memory_bytes": 1_000_000 }),
        json!({ "memory_bytes": -1 }),
        json!({ "memory_bytes": u64::MAX }),
        json!({ "cpus_milli": 0 }),
        json!({ "cpus_milli": 0.5 }),
        json!({ "processes": 3 }),
        json!({ "processes": null, "memory_bytes": "512m" }),
        json!({ "variables": { "1A": "x" } }),
        json!({ "variables": { "A=B": "x" } }),
        json!({ "variables": { "A": "x\u{0}y" } }),
        json!({ "unknown": 1 }),
    ] {
        let (status, answer) = world.api("PATCH", "/apps/shop/environments/test", Some(bad.clone())).await;
        assert!(status == 400 || status == 422, "{bad}: {status} {answer}");
    }
    world.set("shop", "test", json!({ "sleep_after_ms": 5000 })).await;
    world.set("shop", "test", json!({ "ready_within_ms": 5000, "variables": { "A": "b" } })).await;
    let environment = world.environment("shop", "test").await;
    assert_eq!((&environment["sleep_after_ms"], &environment["ready_within_ms"]), (&json!(5000), &json!(5000)));
    assert!(!environment.to_string().contains("\"b\""), "variables are secrets: {environment}");
    world.set("shop", "test", json!({ "sleep_after_ms": null })).await;
    assert_eq!(world.environment("shop", "test").await["sleep_after_ms"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_opens_nothing() {
    let world = World::fake().await;
    world.create("shop").await;
    for token in ["", "wrong"] {
        for (method, path) in [("GET", "/apps"), ("POST", "/apps"), ("DELETE", "/apps/shop")] {
            let (status, answer) = world.api_as(token, method, path, None).await;
            assert_eq!(status, 401, "{method} {path}: {answer}");
        }
    }
    let push = world.push_as("wrong", "shop", &Source::says("x")).await;
    assert!(!push.ok && push.said.contains("uthentication failed"), "{}", push.said);
    assert_eq!(world.environment("shop", "test").await["latest"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_to_nobody_is_told_how_to_make_one() {
    let world = World::fake().await;
    let push = world.push("nobody", &Source::says("x")).await;
    assert!(!push.ok && push.said.contains("dormouse app create nobody"), "{}", push.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p20_a_host_that_nobody_serves_is_404_without_a_word_of_who_is_there() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    for host in ["other.localhost", "localhost", "127.0.0.1", "shop.localhost.evil.example"] {
        let answer = world.get(host).await;
        assert_eq!(answer.status, 404, "{host}");
        assert!(!answer.body.contains("shop-test"), "{}", answer.body);
    }
    for same in ["SHOP-TEST.localhost", "shop-test.localhost.", "shop-test.localhost:8080"] {
        assert_eq!(world.get(same).await.status, 200, "{same}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_is_served_with_a_certificate_of_the_local_authority() {
    let mut world = World::fake().await;
    world.deployed("shop", "the version").await;
    let answer = crate::http::over_tls(world.https(), &world.data().join("ca.pem"), "shop-test.localhost").await;
    let answer = answer.expect("a handshake and an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("the version"), "{answer}");
    let refused = crate::http::over_tls(world.https(), &world.data().join("ca.pem"), "other.localhost").await;
    assert!(refused.is_err(), "nobody's name gets nobody's certificate: {refused:?}");
    // Somebody wants another authority: every host is certified anew.
    world.stop().await;
    for file in ["ca.pem", "ca.key"] {
        std::fs::remove_file(world.data().join(file)).expect("it is there");
    }
    world.start().await;
    let answer = crate::http::over_tls(world.https(), &world.data().join("ca.pem"), "shop-test.localhost").await;
    assert!(answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
}
