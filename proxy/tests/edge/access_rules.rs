//! Who is let in: networks, passwords, somebody else's word; and what search engines are told.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dormouse_link::{Report, State};
use tokio::task::JoinSet;

use crate::policy_limits::{of, world};
use crate::world::client::{Client, Response};
use crate::world::origin::Origin;
use crate::world::scrape::comes_to;
use crate::world::{World, environment, http2, ready, soon, under, until};

const HOST: &str = "a.example";

/// Of a password; verifying it takes so many KiB.
fn hash(password: &str, memory: u32) -> String {
    let params = Params::new(memory, 1, 1, None).expect("parameters");
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_with_salt(password.as_bytes(), b"saltsalt").expect("a hash").to_string()
}

fn basic(memory: u32, more: &str) -> String {
    let users = format!(
        r#"[{{"name": "ann", "hash": "{}"}}, {{"name": "bob", "hash": "{}"}}]"#,
        hash("right", memory),
        hash("other", memory)
    );
    format!(r#"{{"access": {{"basic": {{"realm": "Shop", "users": {users}{more}}}}}}}"#)
}

fn authorization(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
}

async fn ask(client: &mut Client, path: &str, fields: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await;
    client.response().await
}

fn wanted(world: &World) -> bool {
    world.reports.since(0).iter().any(|report| matches!(report, Report::Wanted(_)))
}

#[tokio::test]
async fn only_clients_of_the_networks_are_let_in() {
    let policy = r#"{"access": {"allow": ["192.0.2.0/24", "2001:db8::/32"], "deny": ["192.0.2.128/25"]}}"#;
    let (world, origin) = world(policy).await;
    let mut statuses = Vec::new();
    for client in ["192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::7", "2001:db9::7", "::ffff:192.0.2.1"] {
        statuses.push(of(&world, client).await);
    }
    assert_eq!(statuses, [200, 403, 403, 200, 403, 200]);
    let mut stream = http2::Client::connect(world.http()).await;
    assert_eq!(stream.get(HOST, "/").await.expect("an answer").status, 403);
    assert_eq!(origin.requests().len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn whoever_is_not_let_in_wakes_nobody() {
    let (mut world, origin) = world("{}").await;
    for policy in [
        r#"{"access": {"deny": ["0.0.0.0/0"]}}"#.to_owned(),
        basic(64, ""),
        r#"{"access": {"forward_auth": {"url": "http://127.0.0.1:9/"}}}"#.to_owned(),
    ] {
        world.publish([under(&policy, environment(HOST, 1, State::Asleep, &[&origin]))]).await;
        let mut client = world.client().await;
        let status = ask(&mut client, "/", &authorization("ann", "wrong")).await.status;
        assert!([401, 403, 503].contains(&status), "{policy}: {status}");
    }
    world.publish([environment(HOST, 1, State::Asleep, &[&origin])]).await;
    assert!(!wanted(&world));
    assert_eq!(origin.requests().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn who_knows_a_password_is_let_in_and_the_application_does_not_get_it() {
    let (world, origin) = world(&basic(64, "")).await;
    let mut client = world.client().await;
    let bare = ask(&mut client, "/", "").await;
    assert_eq!(bare.status, 401);
    assert_eq!(bare.field("www-authenticate").as_deref(), Some(r#"Basic realm="Shop", charset="UTF-8""#));
    let twice = format!("{}{}", authorization("ann", "right"), authorization("ann", "right"));
    let encoded = STANDARD.encode("ann:right");
    for bad in [
        authorization("ann", "wrong"),
        authorization("ann", ""),
        authorization("bob", "right"),
        authorization("eve", "right"),
        authorization("", ""),
        "Authorization: Basic\r\n".to_owned(),
        "Authorization: Basic !!!\r\n".to_owned(),
        "Authorization: Bearer x\r\n".to_owned(),
        format!("Authorization: Basic {}\r\n", STANDARD.encode("ann")),
        format!("Authorization: Basic {}\r\n", "A".repeat(2000)),
        format!("Authorization: Basi\u{e7} {encoded}\r\n"),
        twice,
    ] {
        assert_eq!(ask(&mut client, "/", &bad).await.status, 401, "{bad}");
    }
    assert_eq!(origin.requests().len(), 0);
    for good in
        [authorization("ann", "right"), authorization("bob", "other"), format!("authorization: bAsIc   {encoded} \r\n")]
    {
        assert_eq!(ask(&mut client, "/", &format!("{good}X_Authorization: mine\r\n")).await.status, 200, "{good}");
    }
    let mut streams = http2::Client::connect(world.http()).await;
    let mut request = http2::request(http::Method::GET, HOST, "/");
    request.headers_mut().insert("authorization", format!("Basic {encoded}").parse().expect("a value"));
    assert_eq!(streams.send(request, b"").await.expect("an answer").status, 200);
    assert_eq!(origin.requests().len(), 4);
    for request in origin.requests() {
        assert_eq!(request.field("authorization"), Vec::<String>::new());
    }
    world.stop().await;
}

#[tokio::test]
async fn a_password_goes_on_where_the_policy_keeps_it() {
    let (world, origin) = world(&basic(64, r#", "authorization": "keep""#)).await;
    let mut client = world.client().await;
    assert_eq!(ask(&mut client, "/", &authorization("ann", "right")).await.status, 200);
    assert_eq!(origin.requests()[0].field("authorization").len(), 1);
    world.stop().await;
}

/// Each guess takes tens of milliseconds at the very least, and there are more than wait for their turns.
#[tokio::test]
async fn a_flood_of_wrong_passwords_stalls_neither_the_worker_nor_those_who_know_theirs() {
    let (world, origin) = world(&basic(32 << 10, "")).await;
    let mut known = world.client().await;
    let right = authorization("ann", "right");
    assert_eq!(ask(&mut known, "/", &right).await.status, 200);
    let mut guesses = JoinSet::new();
    for guesser in 0..150 {
        let mut client = world.client().await;
        let fields = format!("{}X-Forwarded-For: 198.51.100.{guesser}\r\n", authorization("ann", &guesser.to_string()));
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await;
        guesses.spawn(async move { client.response().await.status });
    }
    let mut refused = vec![guesses.join_next().await.expect("there are some").expect("no panic")];
    // On both workers, so that no request is served only because the guesses are another worker's.
    let mut fresh = Vec::new();
    for _ in 0..8 {
        fresh.push(world.client().await);
    }
    for _ in 0..25 {
        for client in &mut fresh {
            assert_eq!(ask(client, "/", &right).await.status, 200);
        }
    }
    let answered = std::iter::from_fn(|| guesses.try_join_next()).map(|status| status.expect("no panic"));
    refused.extend(answered);
    // Each guess takes a hundred times as long as a request: were one behind the other, there would be as many of both.
    let verified = refused.iter().filter(|status| **status == 401).count();
    assert!(verified < 20, "{verified} guesses were verified while 200 requests were served");
    assert!(!guesses.is_empty(), "who is known was served while others waited to be verified");
    while let Some(status) = guesses.join_next().await {
        refused.push(status.expect("no panic"));
    }
    assert!(refused.iter().all(|status| [401, 503].contains(status)), "{refused:?}");
    assert!(refused.contains(&401) && refused.contains(&503), "the queue was full: {refused:?}");
    assert_eq!(origin.requests().len(), 201, "no guess reached it");
    world.stop().await;
}

#[tokio::test]
async fn one_client_guesses_only_so_much_at_a_time() {
    let (world, _origin) = world(&basic(4 << 10, "")).await;
    let address = world.http();
    let mut guesses = JoinSet::new();
    for guess in 0..30 {
        guesses.spawn(async move {
            let mut client = Client::connect(address).await;
            ask(&mut client, "/", &authorization("ann", &guess.to_string())).await.status
        });
    }
    let mut statuses = Vec::new();
    while let Some(status) = guesses.join_next().await {
        statuses.push(status.expect("no panic"));
    }
    assert!(statuses.contains(&429) && statuses.contains(&401), "{statuses:?}");
    world.stop().await;
}

#[tokio::test]
async fn many_requests_with_one_password_are_one_verification() {
    let (world, origin) = world(&basic(4 << 10, "")).await;
    let address = world.http();
    let mut requests = JoinSet::new();
    for _ in 0..50 {
        requests.spawn(async move {
            let mut client = Client::connect(address).await;
            ask(&mut client, "/", &authorization("ann", "right")).await.status
        });
    }
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.expect("no panic"), 200, "more than a client's guesses at a time, if each were one");
    }
    assert_eq!(origin.requests().len(), 50);
    world.stop().await;
}

#[tokio::test]
async fn a_changed_password_counts_from_the_acknowledgement_on() {
    let (mut world, origin) = world(&basic(64, "")).await;
    let mut client = world.client().await;
    assert_eq!(ask(&mut client, "/", &authorization("ann", "right")).await.status, 200);
    let policy = basic(64, "").replace(&hash("right", 64), &hash("newer", 64));
    world.publish([under(&policy, ready(HOST, 1, &[&origin]))]).await;
    assert_eq!(ask(&mut client, "/", &authorization("ann", "right")).await.status, 401);
    assert_eq!(ask(&mut client, "/", &authorization("ann", "newer")).await.status, 200);
    world.stop().await;
}

/// An environment whose visitors another origin lets in.
async fn forwarded(more: &str) -> (World, Origin, Origin) {
    let authority = Origin::start("authority").await;
    let policy =
        format!(r#"{{"access": {{"forward_auth": {{"url": "http://{}/raw?x=1"{more}}}}}}}"#, authority.address);
    let (world, origin) = world(&policy).await;
    (world, origin, authority)
}

#[tokio::test]
async fn whom_the_authority_lets_in_is_served_with_its_words() {
    let (world, origin, authority) = forwarded(r#", "copy": ["X-User", "X-Groups"]"#).await;
    authority.say("HTTP/1.1 204 No Content\r\nX-User: ann\r\nX-Other: no\r\n\r\n");
    let fields =
        "X-Forwarded-For: 192.0.2.7\r\nCookie: session=1\r\nX-User: root\r\nX_Groups: wheel\r\nContent-Length: 4\r\n";
    let mut client = world.client().await;
    client.send(format!("POST /echo?q=%2f HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\nbody")).await;
    assert_eq!(client.response().await.text(), "body");
    let asked = authority.requests().remove(0);
    assert!(asked.head.starts_with("GET /raw?x=1 HTTP/1.1\r\n") && asked.is_well_framed(), "{}", asked.head);
    for (name, value) in [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", HOST),
        ("x-forwarded-uri", "/echo?q=%2f"),
        ("x-forwarded-for", "192.0.2.7"),
        ("cookie", "session=1"),
    ] {
        assert_eq!(asked.field(name), [value], "{name}");
    }
    assert_eq!(asked.field("x-user"), Vec::<String>::new());
    let served = origin.requests().remove(0);
    assert_eq!(served.field("x-user"), ["ann"]);
    for name in ["x_groups", "x-groups", "x-other"] {
        assert_eq!(served.field(name), Vec::<String>::new(), "{name}");
    }
    let mut streams = http2::Client::connect(world.http()).await;
    let mut request = http2::request(http::Method::GET, HOST, "/");
    request.headers_mut().insert("x-user", http::HeaderValue::from_static("root"));
    assert_eq!(streams.send(request, b"").await.expect("an answer").status, 200);
    assert_eq!(origin.requests()[1].field("x-user"), ["ann"]);
    world.stop().await;
}

#[tokio::test]
async fn whom_the_authority_refuses_gets_its_answer() {
    let (world, origin, authority) = forwarded("").await;
    authority.say(
        "HTTP/1.1 302 Found\r\nLocation: https://auth.example/login\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
         Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: 5\r\n\r\nlogin",
    );
    let mut client = world.client().await;
    let answer = ask(&mut client, "/", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (302, "login"));
    assert_eq!(answer.field("location").as_deref(), Some("https://auth.example/login"));
    assert_eq!(crate::world::client::field(&answer.head, "set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.field("x-hop"), None);
    assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    assert_eq!(ask(&mut client, "/", "").await.status, 302, "the connection goes on");
    let mut streams = http2::Client::connect(world.http()).await;
    let answer = streams.get(HOST, "/").await.expect("an answer");
    assert_eq!((answer.status, answer.headers.get_all("set-cookie").iter().count()), (302, 2));
    assert_eq!(origin.requests().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn p41_an_authoritys_answer_is_relayed_as_it_is_encoded() {
    let (world, _origin, authority) = forwarded("").await;
    let encoded = [0x1f, 0x8b, 8, 0, 0, 0xff, 0, 3];
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", encoded.len());
    authority.say([head.as_bytes(), &encoded].concat());
    let answer = world.get(HOST, "/").await;
    assert_eq!((answer.field("content-encoding").as_deref(), &answer.body[..]), (Some("gzip"), &encoded[..]));
    assert_eq!(authority.requests()[0].field("accept-encoding"), Vec::<String>::new());
    world.stop().await;
}

#[tokio::test]
async fn nobody_passes_because_the_authority_is_away_or_odd() {
    let (mut world, origin, authority) = forwarded(r#", "timeout_ms": 100"#).await;
    let large = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: 70000\r\n\r\n{}", "x".repeat(70_000));
    for odd in [
        "no HTTP\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\n",
        &large,
        "",
    ] {
        authority.say(odd);
        assert_eq!(world.get(HOST, "/").await.status, 503, "{odd:?}");
    }
    let nobody = Origin::down("nobody").await;
    let policy = format!(r#"{{"access": {{"forward_auth": {{"url": "http://{}/"}}}}}}"#, nobody.address);
    world.publish([under(&policy, ready(HOST, 1, &[&origin]))]).await;
    let answer = world.get(HOST, "/").await;
    assert_eq!((answer.status, answer.field("retry-after").as_deref()), (503, Some("5")));
    assert_eq!(origin.requests().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn the_authority_itself_is_not_asked_about() {
    let (mut world, origin) = world("{}").await;
    let policy = format!(r#"{{"access": {{"forward_auth": {{"url": "http://{HOST}:9/check"}}}}}}"#);
    world.publish([under(&policy, ready(HOST, 1, &[&origin]))]).await;
    assert_eq!(world.get(HOST, "/login").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_authority_thinks_frees_its_place() {
    let (world, origin, authority) = forwarded("").await;
    let mut left = world.client().await;
    left.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    authority.got(1).await;
    drop(left);
    until("the question to be taken back", || authority.ended() == 1).await;
    assert_eq!(origin.requests().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_site_that_is_not_to_be_indexed_says_so_and_answers_robots_itself() {
    let (mut world, origin) = world(r#"{"access": {"indexed": false}}"#).await;
    let answer = world.get(HOST, "/").await;
    assert_eq!((answer.status, answer.field("x-robots-tag").as_deref()), (200, Some("noindex")));
    let robots = world.get(HOST, "/robots.txt?x").await;
    assert_eq!((robots.status, robots.text().as_str()), (200, "User-agent: *\nDisallow: /\n"));
    assert_eq!(world.get(HOST, "/favicon.ico").await.text(), "one", "one that is awake has it");
    let mut streams = http2::Client::connect(world.http()).await;
    let answer = streams.get(HOST, "/").await.expect("an answer");
    assert_eq!(answer.field("x-robots-tag"), Some("noindex"));
    world.publish([under(r#"{"access": {"indexed": false}}"#, environment(HOST, 1, State::Asleep, &[&origin]))]).await;
    assert_eq!(world.get(HOST, "/robots.txt").await.status, 200);
    assert_eq!(world.get(HOST, "/favicon.ico").await.status, 404);
    assert_eq!(streams.get(HOST, "/favicon.ico").await.expect("an answer").status, 404);
    world.publish([under(r#"{"access": {"indexed": false}}"#, environment(HOST, 1, State::Asleep, &[&origin]))]).await;
    assert!(!wanted(&world));
    world.publish([ready(HOST, 1, &[&origin])]).await;
    assert_eq!(world.get(HOST, "/robots.txt").await.text(), "one");
    assert_eq!(world.get(HOST, "/").await.field("x-robots-tag"), None);
    world.stop().await;
}

#[tokio::test]
async fn hashes_of_passwords_are_not_shown() {
    let (world, _origin) = world(&basic(64, "")).await;
    let mut admin = Client::connect(world.admin()).await;
    let table = soon("the table", admin.get("admin", "/table")).await.text();
    assert!(table.contains("ann") && !table.contains("argon2"), "{table}");
    world.stop().await;
}

#[tokio::test]
async fn a_policy_is_asked_of_what_a_route_leads_to_and_its_instance_gets_what_the_route_rewrites() {
    let mut world = World::with(|config| {
        config.listeners[0].trust_forwarded_from = vec!["127.0.0.1".parse().expect("a network")];
        config.listeners[0].http2 = dormouse_proxy::Http2::On;
    })
    .await;
    let (open, inner) = (Origin::start("open").await, Origin::start("inner").await);
    let rules = r#"{"kind":"route","host":"a.example","https":{"hsts":{"max_age":60}},"rules":[
        {"environment":"open"},
        {"path":"/old","redirect":{"path":"/"}},
        {"path":"/robots.txt","match":"exact","environment":"inner"},
        {"path":"/admin","environment":"inner","replace_prefix":"/","rewrite_host":"inner.internal"}]}"#;
    let policy = basic(64, "").replacen(r#"{"access": {"#, r#"{"access": {"indexed": false, "#, 1);
    let inner_one = under(&policy, ready("inner", 1, &[&inner]));
    world.publish([serde_json::from_str(rules).expect(rules), ready("open", 1, &[&open]), inner_one]).await;
    let mut client = world.client().await;
    let mut streams = http2::Client::connect(world.http()).await;
    // Whoever answers, and by whatever spelling: over HTTPS it is to be remembered.
    let remembered = Some("max-age=60");
    for (path, status) in [("/", 200), ("/old", 302), ("/admin", 401), ("/x/%2e%2e/admin/y", 401), ("/robots.txt", 200)]
    {
        let answer = ask(&mut client, path, "X-Forwarded-Proto: https\r\n").await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.field("strict-transport-security").as_deref(), remembered, "{path}");
        let mut request = http2::request(http::Method::GET, HOST, path);
        request.headers_mut().insert("x-forwarded-proto", http::HeaderValue::from_static("https"));
        let answer = streams.send(request, b"").await.expect("an answer");
        assert_eq!((answer.status, answer.field("strict-transport-security")), (status, remembered), "{path}");
    }
    assert_eq!(inner.requests().len(), 0);
    let credentials = authorization("ann", "right");
    let fields = format!("X_Forwarded_For: 1\r\n{credentials}");
    assert_eq!(ask(&mut client, "/admin/a%2Fb?q", &fields).await.text(), "inner");
    let mut request = http2::request(http::Method::GET, HOST, "/admin/a%2Fb?q");
    let value = credentials.trim_end().split_once(": ").expect("a field").1.parse().expect("a value");
    request.headers_mut().insert(http::header::AUTHORIZATION, value);
    assert_eq!(streams.send(request, b"").await.expect("an answer").text(), "inner");
    for request in inner.requests() {
        assert_eq!(request.path(), "/a%2Fb?q");
        assert_eq!(request.field("host"), ["inner.internal"]);
        assert_eq!(request.field("x-forwarded-host"), [HOST]);
        assert_eq!(request.field("authorization"), Vec::<String>::new());
    }
    let refused = ("dormouse_requests_refused_total", ["reason=\"unauthorized\""]);
    comes_to(world.admin(), 4.0, (refused.0, &refused.1)).await;
    comes_to(world.admin(), 2.0, (refused.0, &["reason=\"robots\""])).await;
    world.stop().await;
}
