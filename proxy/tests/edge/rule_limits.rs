//! Limits of one rule: sizes and times in the place of its environment's, rates and concurrency beside them.

use dormouse_link::{Body, Report, State};

use crate::policy_limits::{of_path, world};
use crate::world::origin::Origin;
use crate::world::{World, environment, http2, ready, until};

const HOST: &str = "a.example";

/// Two rules of the host of [`world`]: `/x` with these limits, and the rest.
fn rules(limits: &str, rest: &str) -> Body {
    let route = format!(
        r#"{{"kind":"route","host":"{HOST}","rules":[{{"environment":"{HOST}"{rest}}},
            {{"path":"/x","environment":"{HOST}","replace_prefix":"/","limits":{limits}}}]}}"#
    );
    serde_json::from_str(&route).expect(&route)
}

async fn limited(policy: &str, limits: &str) -> (World, Origin) {
    let (mut world, origin) = world(policy).await;
    world.publish([rules(limits, "")]).await;
    (world, origin)
}

#[tokio::test]
async fn p39_a_rule_may_allow_larger_or_smaller_bodies_than_its_environment() {
    for (policy, own) in [(r#"{"limits":{"body_bytes":10}}"#, 20), (r#"{"limits":{"body_bytes":20}}"#, 10), ("{}", 10)]
    {
        let (world, origin) = limited(policy, &format!(r#"{{"body_bytes":{own}}}"#)).await;
        for (length, status) in [(own, 200), (own + 1, 413)] {
            let bytes = "x".repeat(length);
            for body in [
                format!("Content-Length: {length}\r\n\r\n{bytes}"),
                format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{bytes}\r\n0\r\n\r\n"),
            ] {
                let mut client = world.client().await;
                client.send(format!("POST /x/echo HTTP/1.1\r\nHost: {HOST}\r\n{body}")).await;
                assert_eq!(client.response().await.status, status, "{policy} {own} {body}");
            }
            let request = http2::request(http::Method::POST, HOST, "/x/echo");
            let answer = http2::Client::connect(world.http()).await.send(request, bytes.as_bytes()).await;
            assert_eq!(answer.expect("an answer").status, status, "{policy} {own}");
        }
        let mut client = world.client().await;
        client
            .send(format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 15\r\n\r\n{}", "x".repeat(15)))
            .await;
        assert_eq!(client.response().await.status, if policy.contains(":10") { 413 } else { 200 }, "the other rule");
        assert!(origin.requests().iter().all(|request| request.body.len() <= 20));
        world.stop().await;
    }
}

#[tokio::test]
async fn a_rules_times_take_the_place_of_its_environments() {
    let (world, _origin) = limited(r#"{"limits":{"answer_ms":60000}}"#, r#"{"answer_ms":50}"#).await;
    assert_eq!(world.get(HOST, "/x/silent").await.status, 504);
    let answer = http2::Client::connect(world.http()).await.get(HOST, "/x/silent").await.expect("an answer");
    assert_eq!(answer.status, 504);
    world.stop().await;
    let (world, _origin) = limited("{}", r#"{"total_ms":50}"#).await;
    assert_eq!(world.get(HOST, "/x/silent").await.status, 504);
    world.stop().await;
    let (world, origin) = limited(r#"{"limits":{"answer_ms":50}}"#, r#"{"answer_ms":60000}"#).await;
    let mut patient = world.client().await;
    patient.send(format!("GET /x/slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    origin.got(1).await;
    assert_eq!(world.get(HOST, "/silent").await.status, 504, "the environment's is over by now");
    origin.go();
    assert_eq!(patient.response().await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_rules_rate_counts_beside_its_environments_and_outlives_changes_of_others() {
    let rate = |requests: u32| format!(r#"{{"rate":{{"requests":{requests},"per_seconds":3600}}}}"#);
    let policy = r#"{"limits":{"rate":{"requests":6,"per_seconds":3600}}}"#;
    let (mut world, origin) = limited(policy, &rate(2)).await;
    let of = async |world: &World, path: &str| of_path(world, "192.0.2.1", path).await;
    assert_eq!([of(&world, "/x").await, of(&world, "/x").await, of(&world, "/x").await], [200, 200, 429]);
    assert_eq!(of(&world, "/").await, 200, "the other rule");
    // Another rule, another endpoint: neither is this one's limit.
    world.publish([rules(&rate(2), r#","rewrite_host":"b.example""#)]).await;
    assert_eq!(of(&world, "/x").await, 429);
    world.publish([crate::world::under(policy, ready(HOST, 2, &[&origin]))]).await;
    assert_eq!(of(&world, "/x").await, 429);
    world.publish([rules(&rate(9), "")]).await;
    let last = [of(&world, "/x").await, of(&world, "/x").await, of(&world, "/x").await, of(&world, "/x").await];
    assert_eq!(last, [200, 200, 200, 429], "what the rule allows, its environment may not");
    assert_eq!(origin.requests().len(), 6);
    world.stop().await;
}

#[tokio::test]
async fn a_rules_rate_without_any_policy_counts_each_client_in_both_lanes() {
    let (world, origin) = limited("{}", r#"{"rate_per_client":{"requests":1,"per_seconds":3600}}"#).await;
    let mut statuses = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
        statuses.push(of_path(&world, client, "/x").await);
    }
    assert_eq!(statuses, [200, 429, 200]);
    let mut request = http2::request(http::Method::GET, HOST, "/x");
    request.headers_mut().insert("x-forwarded-for", http::HeaderValue::from_static("192.0.2.1"));
    let answer = http2::Client::connect(world.http()).await.send(request, b"").await.expect("an answer");
    assert_eq!(answer.status, 429);
    assert_eq!(of_path(&world, "192.0.2.1", "/").await, 200);
    assert_eq!(origin.requests().len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_rules_concurrency_is_its_own_and_places_are_free_again() {
    let (world, origin) = limited("{}", r#"{"concurrency":1}"#).await;
    let mut running = world.client().await;
    running.send(format!("GET /x/slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    origin.got(1).await;
    assert_eq!(of_path(&world, "192.0.2.1", "/x").await, 503);
    assert_eq!(of_path(&world, "192.0.2.1", "/").await, 200);
    origin.go();
    assert_eq!(running.response().await.status, 200);
    crate::world::soon("a place", async { while of_path(&world, "192.0.2.1", "/x").await != 200 {} }).await;
    world.stop().await;
}

/// Its rule is the one that it was decided by; the policy is the newest.
#[tokio::test]
async fn a_held_request_keeps_its_rule_and_counts_once() {
    let (mut world, origin) = world("{}").await;
    let rate = r#"{"rate":{"requests":1,"per_seconds":3600},"concurrency":1}"#;
    world.publish([rules(rate, ""), environment(HOST, 1, State::Asleep, &[&origin])]).await;
    let mut held = world.client().await;
    held.send(format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    world.reports.find("it to be wanted", 0, |report| matches!(report, Report::Wanted(_))).await;
    let policy = r#"{"access":{"deny":["192.0.2.1"]}}"#;
    world.publish([rules(rate, ""), crate::world::under(policy, ready(HOST, 2, &[&origin]))]).await;
    assert_eq!(held.response().await.status, 200);
    assert_eq!(of_path(&world, "192.0.2.2", "/x").await, 429, "it was counted");
    until("its request", || origin.requests().len() == 1).await;
    world.stop().await;
}
