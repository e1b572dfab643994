//! Which endpoint gets a request: by policy, through the whole edge.

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_link::{Body, InstanceId};
use dormouse_proxy::Http2;

use crate::world::client::{Client, Response};
use crate::world::origin::Origin;
use crate::world::{World, http2, ready, route, soon, until};

/// An environment with a policy.
pub(crate) fn balanced(id: &str, epoch: u64, origins: &[&Origin], policy: &str) -> Body {
    let Body::Environment(mut environment) = ready(id, epoch, origins) else { unreachable!() };
    environment.policy = serde_json::from_str(policy).expect("a policy");
    Body::Environment(environment)
}

async fn origins() -> (Origin, Origin, Origin) {
    (Origin::start("one").await, Origin::start("two").await, Origin::start("three").await)
}

async fn get(world: &World, host: &str, fields: &str) -> Response {
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await;
    client.response().await
}

/// Who answers so many requests with these fields.
async fn who(world: &World, host: &str, fields: &str, count: usize) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for _ in 0..count {
        *names.entry(get(world, host, fields).await.text()).or_default() += 1;
    }
    names
}

fn only(names: &BTreeMap<String, usize>) -> &str {
    assert_eq!(names.len(), 1, "{names:?}");
    names.keys().next().expect("one")
}

/// What a browser sends after an answer that set a cookie.
fn cookie(response: &Response) -> String {
    let set = response.field("set-cookie").expect("a cookie");
    format!("Cookie: a=b; {}\r\n", set.split(';').next().expect("a pair"))
}

/// What the admin listener says of retries.
async fn retries(world: &World) -> serde_json::Value {
    let answer = Client::connect(world.admin()).await.get("admin", "/connections").await;
    serde_json::from_slice::<serde_json::Value>(&answer.body).expect("JSON")["retries"].take()
}

#[tokio::test]
async fn round_robin_is_even_over_workers_and_connections() {
    let (mut world, (one, two, three)) = (World::start().await, origins().await);
    let policy = r#"{"balance":{"by":"round_robin"}}"#;
    world.publish([route("a.example"), balanced("a.example", 1, &[&one, &two, &three], policy)]).await;
    let names = who(&world, "a.example", "", 30).await;
    assert_eq!(names.values().collect::<Vec<_>>(), [&10, &10, &10], "{names:?}");
    world.stop().await;
}

#[tokio::test]
async fn the_same_user_gets_the_same_endpoint_in_every_protocol() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let (one, two, three) = origins().await;
    let policy = r#"{"balance":{"by":{"source_hash":{"header":"X-User"}}}}"#;
    world.publish([route("a.example"), balanced("a.example", 1, &[&one, &two, &three], policy)]).await;
    let mut all = BTreeMap::new();
    for user in 0..24 {
        let names = who(&world, "a.example", &format!("x-user: {user}\r\n"), 2).await;
        let mut client = http2::Client::connect(world.http()).await;
        let mut request = http2::request(http::Method::GET, "a.example", "/");
        request.headers_mut().insert("x-user", user.to_string().parse().expect("a value"));
        assert_eq!(client.send(request, b"").await.expect("an answer").text(), only(&names));
        *all.entry(only(&names).to_owned()).or_insert(0) += 1;
    }
    assert_eq!(all.len(), 3, "and different users get different ones: {all:?}");
    only(&who(&world, "a.example", "", 6).await);
    world.stop().await;
}

#[tokio::test]
async fn a_browser_comes_back_to_its_instance_while_it_is_there() {
    let (mut world, (one, two, three)) = (World::start().await, origins().await);
    let policy = r#"{"balance":{"by":{"sticky":{"cookie":"shop"}}}}"#;
    world.publish([route("a.example"), balanced("a.example", 1, &[&one, &two, &three], policy)]).await;
    let first = get(&world, "a.example", "").await;
    let (name, kept) = (first.text(), cookie(&first));
    let set = first.field("set-cookie").expect("a cookie");
    assert!(set.starts_with("shop=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
    for origin in [&one, &two, &three] {
        assert!(!set.contains(&origin.address.port().to_string()) && !set.contains(origin.name), "{set}");
    }
    assert_eq!(only(&who(&world, "a.example", &kept, 10).await), name);
    assert_eq!(get(&world, "a.example", &kept).await.field("set-cookie"), None, "it has it already");

    // Started again elsewhere, among fewer: it is the same instance.
    let other = if name == "one" { &two } else { &one };
    let again = Origin::start("again").await;
    let Body::Environment(mut environment) = balanced("a.example", 2, &[other, &again], policy) else { unreachable!() };
    environment.endpoints[1].instance = InstanceId::new(name.as_str());
    world.publish([Body::Environment(environment)]).await;
    assert_eq!(only(&who(&world, "a.example", &kept, 6).await), "again");

    // In another environment it is nothing, not even by the same name.
    world.publish([route("b.example"), balanced("b.example", 2, &[&one, &two, &three], policy)]).await;
    assert_ne!(cookie(&get(&world, "b.example", &kept).await), kept);

    // Gone for good: another one, from now on.
    world.publish([balanced("a.example", 3, &[other], policy)]).await;
    let moved = get(&world, "a.example", &kept).await;
    assert_eq!(moved.text(), other.name);
    assert_ne!(cookie(&moved), kept);
    world.stop().await;
}

#[tokio::test]
async fn edges_of_a_group_know_each_others_cookies() {
    let with = |secret: u8| {
        World::with(move |config| config.sticky_secret = Some(dormouse_proxy::StickySecret::new([secret; 32])))
    };
    let (one, two, three) = origins().await;
    let policy = r#"{"balance":{"by":{"sticky":{}}}}"#;
    let mut worlds = [with(1).await, with(1).await, with(2).await];
    for world in &mut worlds {
        world.publish([route("a.example"), balanced("a.example", 1, &[&one, &two, &three], policy)]).await;
    }
    let first = get(&worlds[0], "a.example", "").await;
    let kept = cookie(&first);
    assert_eq!(only(&who(&worlds[1], "a.example", &kept, 8).await), first.text());
    assert!(get(&worlds[2], "a.example", &kept).await.field("set-cookie").is_some(), "a stranger does not");
    for world in worlds {
        world.stop().await;
    }
}

#[tokio::test]
async fn a_canary_is_for_whoever_asks_for_it() {
    let (mut world, (one, two, three)) = (World::start().await, origins().await);
    let policy = r#"{"balance":{"canary":{"instances":["three"],"header":{"name":"x-next"},
        "cookie":{"name":"next","value":"on"}}}}"#;
    world.publish([route("a.example"), balanced("a.example", 1, &[&one, &two, &three], policy)]).await;
    assert!(!who(&world, "a.example", "Cookie: next=off\r\n", 20).await.contains_key("three"));
    assert_eq!(only(&who(&world, "a.example", "X-Next: 1\r\n", 6).await), "three");
    assert_eq!(only(&who(&world, "a.example", "Cookie: x=y; next=on\r\n", 6).await), "three");
    world.stop().await;
}

/// Leaves out after three failures, for longer than any test.
fn strict(config: &mut dormouse_proxy::Config) {
    config.limits.eject_after = 3;
    config.limits.eject = Duration::from_secs(3600);
    config.limits.eject_max = Duration::from_secs(3600);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_left_out_and_nobody_notices() {
    let (mut world, down, up) = (World::with(strict).await, Origin::down("down").await, Origin::start("up").await);
    world.serve("a.example", &[&down, &up]).await;
    for _ in 0..40 {
        assert_eq!(world.get("a.example", "/").await.text(), "up");
    }
    let retries = retries(&world).await;
    assert_eq!((&retries["done"], &retries["instances_left_out"]), (&3.into(), &1.into()));
    world.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_is_given_up_for_another() {
    let mut world = World::with(|config| {
        strict(config);
        config.limits.connect_look = Duration::from_millis(200);
    })
    .await;
    let (deaf, up) = (Origin::deaf("deaf").await, Origin::start("up").await);
    world.serve("a.example", &[&deaf, &up]).await;
    for _ in 0..20 {
        let mut client = world.client().await;
        client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(client.response().await.text(), "hello");
    }
    assert_eq!(up.requests().len(), 20);
    world.stop().await;
}

#[tokio::test]
async fn an_instance_that_answers_by_failures_is_left_out_but_never_all_are() {
    let (mut world, (one, two, _)) = (World::with(strict).await, origins().await);
    world.serve("a.example", &[&one, &two]).await;
    let failure = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    one.say(failure);
    two.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    until_failed(&world, 3).await;
    for _ in 0..30 {
        assert_eq!(world.get("a.example", "/raw").await.status, 200);
    }
    assert_eq!(one.requests().len(), 3);
    two.say(failure);
    for _ in 0..20 {
        assert_eq!(world.get("a.example", "/raw").await.status, 503, "the instance's own answer");
    }
    assert_eq!(retries(&world).await["instances_left_out"], 1);
    world.stop().await;
}

async fn until_failed(world: &World, count: usize) {
    let mut failed = 0;
    for _ in 0..1000 {
        failed += usize::from(world.get("a.example", "/raw").await.status == 503);
        if failed == count {
            return;
        }
    }
    panic!("it gets no requests");
}

#[tokio::test]
async fn who_was_left_out_comes_back_once_it_answers() {
    let briefly = |config: &mut dormouse_proxy::Config| {
        config.limits.eject_after = 3;
        config.limits.eject = Duration::from_millis(20);
        config.limits.eject_max = Duration::from_millis(20);
    };
    let (mut world, (one, two, _)) = (World::with(briefly).await, origins().await);
    world.serve("a.example", &[&one, &two]).await;
    two.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    one.say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    until_failed(&world, 3).await;
    one.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let before = one.requests().len();
    let mut sent = 0;
    // Many: one alone was its trial.
    while one.requests().len() < before + 10 {
        assert_eq!(world.get("a.example", "/raw").await.status, 200);
        sent += 1;
        assert!(sent < 10_000, "it never comes back");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_new_life_of_an_instance_begins_without_its_old_failures() {
    let (mut world, mut one, two) = (World::with(strict).await, Origin::start("one").await, Origin::start("two").await);
    let address = one.address;
    one.kill().await;
    world.serve("a.example", &[&one, &two]).await;
    for _ in 0..30 {
        assert_eq!(world.get("a.example", "/").await.text(), "two");
    }
    assert_eq!(retries(&world).await["instances_left_out"], 1);
    let one = Origin::on("one", tokio::net::TcpListener::bind(address).await.expect("its port"));
    let asleep = crate::world::environment("a.example", 1, dormouse_link::State::Waking, &[&one, &two]);
    world.publish([asleep]).await;
    world.publish([ready("a.example", 2, &[&one, &two])]).await;
    let mut sent = 0;
    while one.requests().is_empty() {
        assert_eq!(world.get("a.example", "/").await.status, 200);
        sent += 1;
        assert!(sent < 200, "it is still left out");
    }
    world.stop().await;
}

#[tokio::test]
async fn retries_end_with_their_budget() {
    let mut world = World::with(|config| {
        config.limits.eject_after = u32::MAX;
        config.limits.retry_percent = 0;
        config.limits.retries_per_second = 0;
    })
    .await;
    let (down, up) = (Origin::down("down").await, Origin::start("up").await);
    world.serve("a.example", &[&down, &up]).await;
    let mut failed = 0;
    for _ in 0..60 {
        failed += u64::from(world.get("a.example", "/").await.status == 502);
    }
    let retries = retries(&world).await;
    assert_eq!(retries["done"], 10, "what a quiet environment has saved");
    assert_eq!(retries["refused"], failed);
    assert!(failed > 0);
    world.stop().await;
}

#[tokio::test]
async fn what_an_instance_broke_off_is_asked_elsewhere_only_if_it_may_be_asked_twice() {
    let (mut world, (one, two, _)) =
        (World::with(|config| config.limits.eject_after = u32::MAX).await, origins().await);
    world.serve("a.example", &[&one, &two]).await;
    one.say("");
    two.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\ntwo");
    let ask = async |begin: &str, body: &str| {
        let mut client = world.client().await;
        client
            .send(format!(
                "{begin} /raw-end HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        client.response().await.status
    };
    for _ in 0..8 {
        assert_eq!(ask("GET", "").await, 200);
        assert_eq!(ask("DELETE", "").await, 200);
    }
    assert!(!one.requests().is_empty(), "both were asked");
    let before = one.requests().len() + two.requests().len();
    let mut statuses = BTreeMap::new();
    for _ in 0..12 {
        *statuses.entry(ask("POST", "").await).or_insert(0) += 1;
        *statuses.entry(ask("PUT", "body").await).or_insert(0) += 1;
    }
    assert_eq!(one.requests().len() + two.requests().len(), before + 24, "each of them once");
    assert!(statuses[&502] > 0 && statuses[&200] > 0, "{statuses:?}");
    world.stop().await;
}

#[tokio::test]
async fn an_upgraded_connection_that_breaks_is_not_begun_again_elsewhere() {
    let (mut world, one, two) = (World::start().await, Origin::start("one").await, Origin::start("two").await);
    world.serve("a.example", &[&one, &two]).await;
    let mut socket = world.client().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    socket.send(format!("GET /socket-reset HTTP/1.1\r\nHost: a.example\r\n{upgrade}\r\n")).await;
    assert_eq!(socket.response().await.status, 101);
    one.go();
    two.go();
    assert!(soon("its end", socket.take(1)).await.is_none());
    assert_eq!(one.requests().len() + two.requests().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_as_long_as_its_environment_says() {
    let (mut world, (one, two, three)) = (World::start().await, origins().await);
    world
        .publish([
            route("none.example"),
            balanced("none.example", 1, &[&one], r#"{"pool":{"idle_seconds":0}}"#),
            route("some.example"),
            balanced("some.example", 1, &[&two], r#"{"pool":{"idle_seconds":3600,"connections":1}}"#),
            route("usual.example"),
            ready("usual.example", 1, &[&three]),
        ])
        .await;
    let (mut client, mut other) = (world.client().await, world.client().await);
    for _ in 0..4 {
        for host in ["none.example", "some.example", "usual.example"] {
            client.get(host, "/").await;
        }
    }
    assert_eq!((one.connections(), two.connections(), three.connections()), (4, 1, 1));
    // Two at a time: one of them is kept.
    client.send("GET /slow HTTP/1.1\r\nHost: some.example\r\n\r\n").await;
    two.got(5).await;
    other.send("GET /slow HTTP/1.1\r\nHost: some.example\r\n\r\n").await;
    two.got(6).await;
    two.go();
    two.go();
    client.response().await;
    other.response().await;
    until("the end of one connection", || two.ended() == 1).await;
    world.stop().await;
}

#[tokio::test]
async fn p70_nothing_in_a_request_makes_an_address_of_an_endpoint() {
    let (mut world, (one, two, other)) = (World::start().await, origins().await);
    let policy =
        r#"{"balance":{"by":{"sticky":{"cookie":"shop"}},"canary":{"group":"next","header":{"name":"x-next"}}}}"#;
    world.publish([route("a.example"), balanced("a.example", 1, &[&one, &two], policy)]).await;
    let address = other.address;
    for fields in [
        format!("Cookie: shop={address}\r\n"),
        format!("Cookie: shop={}\r\n", "7f000001".repeat(4)),
        format!("X-Next: {address}\r\nX-Forwarded-Host: {address}\r\nForwarded: host=\"{address}\"\r\n"),
        format!("X-Forwarded-For: {address}\r\nX-Original-URL: http://{address}/\r\nX-Real-IP: {address}\r\n"),
    ] {
        assert_eq!(get(&world, "a.example", &fields).await.status, 200, "{fields}");
    }
    for begin in
        [format!("GET http://{address}/ HTTP/1.1\r\nHost: {address}"), format!("GET / HTTP/1.1\r\nHost: {address}")]
    {
        let mut client = world.client().await;
        client.send(format!("{begin}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, 404, "{begin}");
    }
    assert_eq!(other.connections(), 0);
    world.stop().await;
}
