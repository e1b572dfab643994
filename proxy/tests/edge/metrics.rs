//! What `/metrics` tells of everything that passes, and to whom.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use dormouse_link::{EnvironmentId, ObjectId, State};
use dormouse_proxy::{Share, Spans};
use rustls::version::TLS13;
use serde_json::Value;

use crate::world::client::Client;
use crate::world::http2::{self, Frames, GOAWAY};
use crate::world::origin::Origin;
use crate::world::scrape::{comes_to, sum, text};
use crate::world::tls::{Authority, visit};
use crate::world::{World, environment, ready, route};

/// Requests of an application.
const OF_HELLO: &str = "app=\"hello\",environment=\"test\"";

#[tokio::test]
async fn requests_are_counted_by_environment_protocol_status_and_who_ended_them() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    // Two environments of one name are one series, or Prometheus would take none.
    world.serve("a.example", &[&origin]).await;
    world.serve("b.example", &[&origin]).await;
    let mut client = world.client().await;
    for host in ["a.example", "a.example", "b.example", "unknown.example"] {
        client.get(host, "/").await;
    }
    client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello").await;
    client.response().await;
    client.send("no request\r\n\r\n").await;
    client.response().await;
    let admin = world.admin();
    let served = [OF_HELLO, "protocol=\"HTTP/1.1\"", "status=\"2xx\"", "ended_by=\"instance\""];
    comes_to(admin, 4.0, ("dormouse_requests_total", &served)).await;
    comes_to(admin, 6.0, ("dormouse_requests_total", &[])).await;
    comes_to(admin, 0.0, ("dormouse_requests_in_flight", &[])).await;
    let text = text(admin).await;
    assert_eq!(
        text.lines().filter(|line| line.contains(OF_HELLO) && line.starts_with("dormouse_requests_total")).count(),
        1
    );
    let nobodys = ["app=\"\"", "status=\"4xx\"", "ended_by=\"proxy\""];
    assert_eq!(sum(&text, "dormouse_requests_total", &nobodys), 2.0, "{text}");
    assert_eq!(sum(&text, "dormouse_requests_total", &["protocol=\"none\""]), 1.0);
    assert_eq!(sum(&text, "dormouse_requests_refused_total", &["reason=\"unknown_host\""]), 1.0);
    assert_eq!(sum(&text, "dormouse_requests_refused_total", &["reason=\"bad_request\""]), 1.0);
    for histogram in ["dormouse_request_duration_seconds", "dormouse_request_first_byte_seconds"] {
        assert_eq!(sum(&text, &format!("{histogram}_count"), &[OF_HELLO]), 4.0);
        assert_eq!(sum(&text, &format!("{histogram}_bucket"), &[OF_HELLO, "le=\"+Inf\""]), 4.0);
    }
    assert!(sum(&text, "dormouse_request_received_bytes_total", &[OF_HELLO]) > 100.0);
    assert!(sum(&text, "dormouse_request_sent_bytes_total", &[OF_HELLO]) > 100.0);
    assert_eq!(sum(&text, "dormouse_connections_accepted_total", &["listener=\"http\""]), 1.0);
    assert_eq!(sum(&text, "dormouse_workers_alive", &[]), 2.0);
    assert_eq!(sum(&text, "dormouse_table_generation", &[]), world.generation().0 as f64);
    assert_eq!(sum(&text, "dormouse_table_objects", &["kind=\"route\""]), 2.0);
    world.stop().await;
}

#[tokio::test]
async fn a_request_that_is_held_is_seen_and_so_is_its_wake() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.publish([route("a.example"), environment("a.example", 1, State::Asleep, &[])]).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let admin = world.admin();
    comes_to(admin, 1.0, ("dormouse_requests_held", &[])).await;
    let during = text(admin).await;
    assert_eq!(sum(&during, "dormouse_requests_in_flight", &[]), 1.0);
    assert_eq!(sum(&during, "dormouse_wakes_total", &[]), 1.0);
    assert!(sum(&during, "dormouse_requests_held_bytes", &[]) > 0.0);
    world.publish([ready("a.example", 2, &[&origin])]).await;
    assert_eq!(client.response().await.status, 200);
    comes_to(admin, 1.0, ("dormouse_request_held_seconds_count", &[OF_HELLO])).await;
    comes_to(admin, 0.0, ("dormouse_requests_held", &[])).await;
    comes_to(admin, 0.0, ("dormouse_requests_held_bytes", &[])).await;
    world.stop().await;
}

#[tokio::test]
async fn an_environment_that_is_gone_is_not_told_any_more() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    assert_eq!(world.get("a.example", "/").await.status, 200);
    let admin = world.admin();
    comes_to(admin, 1.0, ("dormouse_requests_total", &[OF_HELLO])).await;
    world
        .remove([ObjectId::Route("a.example".parse().unwrap()), ObjectId::Environment(EnvironmentId::new("a.example"))])
        .await;
    comes_to(admin, 0.0, ("dormouse_requests_total", &[OF_HELLO])).await;
    assert!(!text(admin).await.contains("hello"));
    world.stop().await;
}

#[tokio::test]
async fn handshakes_streams_and_goodbyes_are_counted() {
    let (mut world, origin, mut authority) =
        (World::with_tls(|_| {}).await, Origin::start("one").await, Authority::default());
    world.serve("a.example", &[&origin]).await;
    world.publish([authority.issue("a.example")]).await;
    let config = Arc::new(authority.client(&[&TLS13], None));
    let admin = world.admin();
    for _ in 0..2 {
        visit(world.tls("https"), &config, "a.example").await.expect("a visit");
    }
    assert!(authority.connect(&world, "other.example").await.is_err());
    let name = "dormouse_tls_handshakes_total";
    comes_to(admin, 2.0, (name, &["version=\"TLSv1.3\"", "result=\"done\""])).await;
    comes_to(admin, 1.0, (name, &["version=\"TLSv1.3\"", "resumed=\"true\"", "result=\"done\""])).await;
    comes_to(admin, 1.0, (name, &["result=\"failed\""])).await;
    world.stop().await;

    let (world, _origin) = http2::world(|config| config.limits.keep_alive = std::time::Duration::from_millis(50)).await;
    let mut client = http2::Client::connect(world.http()).await;
    assert_eq!(client.get("a.example", "/").await.expect("an answer").status, 200);
    let mut frames = Frames::connect(world.http()).await;
    frames.until(GOAWAY).await;
    let admin = world.admin();
    comes_to(admin, 1.0, ("dormouse_http2_streams_total", &[])).await;
    comes_to(admin, 2.0, ("dormouse_http2_goaways_total", &["reason=\"graceful\""])).await;
    comes_to(admin, 1.0, ("dormouse_requests_total", &["protocol=\"HTTP/2\"", "status=\"2xx\""])).await;
    world.stop().await;
}

#[tokio::test]
async fn c26_metrics_are_for_the_admin_listener_alone_and_name_no_host_and_no_path() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    for path in ["/metrics", "/healthz", "/readyz", "/table", "/connections"] {
        assert_eq!(world.get("unknown.example", path).await.status, 404, "{path}");
        assert_eq!(world.get("a.example", path).await.text(), "one", "the application's own {path}");
        let bare = world.client().await.get("", path).await;
        assert!(!bare.text().contains("dormouse") && bare.status >= 400, "{path}: {bare:?}");
    }
    for number in 0..50 {
        world.get(&format!("h{number}.example"), &format!("/secret{number}")).await;
    }
    let admin = world.admin();
    comes_to(admin, 55.0, ("dormouse_requests_refused_total", &["reason=\"unknown_host\""])).await;
    let text = text(admin).await;
    assert!(!text.contains("example") && !text.contains("secret") && !text.contains("127.0.0.1"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("dormouse_requests_refused_total")).count(), 2, "{text}");
    world.stop().await;
}

#[tokio::test]
async fn metrics_are_only_read() {
    let world = World::start().await;
    let mut client = Client::connect(world.admin()).await;
    client.send("HEAD /metrics HTTP/1.1\r\nHost: admin\r\n\r\n").await;
    let answer = client.response_to("HEAD").await;
    assert!(answer.status == 200 && answer.body.is_empty());
    client.send("POST /metrics HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 405);
    world.stop().await;
}

/// A proxy of which each metric has something to say, and its text.
async fn everything() -> String {
    let (spans, _queued) = Spans::queue(Share::ALL);
    let mut world = World::with(|config| config.spans = Some(spans)).await;
    let origin = Origin::start("one").await;
    world.publish([route("a.example"), environment("a.example", 1, State::Asleep, &[])]).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    comes_to(world.admin(), 1.0, ("dormouse_requests_held", &[])).await;
    world.publish([ready("a.example", 2, &[&origin])]).await;
    assert_eq!(client.response().await.status, 200);
    world.get("unknown.example", "/").await;
    comes_to(world.admin(), 2.0, ("dormouse_requests_total", &[])).await;
    let text = text(world.admin()).await;
    world.stop().await;
    text
}

/// The names of metrics that a text has in it.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("dormouse_") && !matches!(*word, "dormouse_test" | "dormouse_proxy"))
}

/// Whether promtool takes a text.
fn promtool(words: &[&str], text: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("promtool, which scripts/tools.sh installs");
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let said = promtool.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    (said.status.success(), words)
}

#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let text = everything().await;
    for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
        let name = line.split(' ').nth(2).expect("a name");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    let (sound, words) = promtool(&["check", "metrics"], &text);
    assert!(sound && words.is_empty(), "{words}\n{text}");
}

const DOCUMENT: &str = include_str!("../../../docs/observability.md");
const ALERTS: &str = include_str!("../../../docs/alerts/dormouse.yml");
const DASHBOARD: &str = include_str!("../../../docs/grafana/dormouse.json");

#[tokio::test]
async fn the_document_the_alerts_and_the_dashboard_name_what_there_is() {
    let text = everything().await;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: HashMap<&str, &str> = types.collect();
    for (place, words) in [("document", DOCUMENT), ("alerts", ALERTS), ("dashboard", DASHBOARD)] {
        for name in names(words) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let histogram = base.is_some_and(|base| types.get(base) == Some(&"histogram"));
            assert!(histogram || types.contains_key(name), "{name} of the {place} is not there");
        }
    }
    for name in types.keys().filter(|name| name.starts_with("dormouse_")) {
        assert!(DOCUMENT.contains(&format!("`{name}`")), "{name} is not documented");
    }
    assert!(names(DASHBOARD).count() > 20 && names(ALERTS).count() > 10, "they are read");
}

#[test]
fn promtool_reads_each_expression_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    let mut count = 0;
    for target in targets {
        let expression = target["expr"].as_str().expect("an expression");
        let expression =
            expression.replace("$__rate_interval", "5m").replace("$app", ".*").replace("$environment", ".*");
        assert!(!expression.contains('$'), "{expression}");
        rules += &format!("  - record: panel:{count}\n    expr: {}\n", Value::from(expression));
        count += 1;
    }
    assert!(count > 20);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rules.yml");
    std::fs::write(&path, rules.replace("panel:", "panel:n")).expect("a file");
    let (sound, words) = promtool(&["check", "rules", path.to_str().expect("UTF-8")], "");
    assert!(sound, "{words}\n{rules}");
}
