//! How streams and connections of HTTP/2 end: by their client, by the proxy's end, by idleness; and what is recorded of it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dormouse_link::{Report, State};
use h2::Reason;
use http::Method;
use tokio::task::JoinSet;

use crate::world::http2::{Client, DATA, Frames, GOAWAY, SETTINGS, frame, head_of, read, request, world};
use crate::world::origin::Origin;
use crate::world::{World, environment, ready, route, soon, until};

const MILLISECOND: Duration = Duration::from_millis(1);

async fn client(world: &World) -> Client {
    Client::connect(world.http()).await
}

#[tokio::test]
async fn a_shutdown_lets_running_streams_finish() {
    let (mut world, origin) = world(|_| {}).await;
    let mut client = client(&world).await;
    let (answer, mut body) = client.begin(request(Method::POST, "a.example", "/slow")).await;
    body.send_data(Bytes::new(), true).expect("an end");
    origin.got(1).await;
    let stopping = world.proxy.take().expect("running").shutdown(Duration::from_secs(20));
    let finishing = async {
        until("its goodbye", || client.is_over()).await;
        origin.go();
        assert_eq!(read(answer).await.expect("an answer").text(), "one");
        assert_eq!(client.ended().await, None, "it ends well");
    };
    soon("both", async { tokio::join!(stopping, finishing) }).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_stream_is_not() {
    let (world, origin) = world(|config| config.limits.keep_alive = 100 * MILLISECOND).await;
    let idle = Frames::connect(world.http()).await;
    let mut busy = client(&world).await;
    let (answer, mut body) = busy.begin(request(Method::POST, "a.example", "/slow")).await;
    body.send_data(Bytes::new(), true).expect("an end");
    origin.got(1).await;
    assert_eq!(idle.goaway().await, Some(0));
    origin.go();
    assert_eq!(soon("an answer", read(answer)).await.expect("an answer").text(), "one");
    assert_eq!(busy.ended().await, None);
    world.stop().await;
}

#[tokio::test]
async fn a_stream_that_its_client_gives_up_is_nobodys_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let (world, origin) = world(|config| config.access_log = Some(log.clone().into())).await;
    let mut client = client(&world).await;
    for path in ["/silent", "/events"] {
        let mut sender = client.ready().await.expect("it is open");
        let (answer, mut stream) =
            sender.send_request(request(Method::GET, "a.example", path), true).expect("a request");
        if path == "/events" {
            soon("a head", answer).await.expect("a head");
        } else {
            origin.got(1).await;
        }
        stream.send_reset(Reason::CANCEL);
    }
    // Goodbyes are said at once: the connection ends together with its last streams.
    world.stop().await;
    assert_eq!(ended_by(&log), ["client", "client"]);
}

/// By whom requests were ended.
fn ended_by(log: &Path) -> Vec<String> {
    let records = std::fs::read_to_string(log).expect("records");
    let record = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    // The last line may be in the midst of its way.
    let whole = records.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| record(line)["ended_by"].as_str().expect("a word").to_owned()).collect()
}

#[tokio::test]
async fn a_connection_that_its_client_ends_ends_its_streams_in_the_clients_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let (mut world, origin) = world(|config| config.access_log = Some(log.clone().into())).await;
    world.publish([route("b.example"), environment("b.example", 1, State::Asleep, &[])]).await;
    let (from, mut client) = (world.reports.count(), client(&world).await);
    let mut streams = Vec::new();
    for (method, host, path) in
        [(Method::GET, "a.example", "/silent"), (Method::POST, "a.example", "/silent"), (Method::GET, "b.example", "/")]
    {
        let is_whole = method == Method::GET;
        let mut sender = client.ready().await.expect("it is open");
        streams.push(sender.send_request(request(method, host, path), is_whole).expect("a request"));
    }
    until("both at the origin", || origin.connections() == 2).await;
    let wanted = |report: &Report| matches!(report, Report::Wanted(_));
    world.reports.find("a request that is held", from, wanted).await;
    client.leave().await;
    until("three records", || ended_by(&log).len() == 3).await;
    assert_eq!(ended_by(&log), ["client"; 3]);
    world.stop().await;
}

#[tokio::test]
async fn what_runs_beside_an_event_stream_is_finished_when_the_turn_of_that_has_come() {
    let (mut world, origin) = world(|_| {}).await;
    let watch = async || {
        let mut client = client(&world).await;
        let (answer, mut body) = client.begin(request(Method::GET, "a.example", "/events")).await;
        body.send_data(Bytes::new(), true).expect("an end");
        let events = soon("a head", answer).await.expect("a head");
        (client, events)
    };
    let (mut alone, mut beside) = (JoinSet::new(), Vec::new());
    for _ in 0..6 {
        let (client, events) = watch().await;
        alone.spawn(async move {
            let _events = events;
            client.ended().await
        });
        let (mut client, events) = watch().await;
        let (answer, mut body) = client.begin(request(Method::POST, "a.example", "/slow")).await;
        body.send_data(Bytes::new(), true).expect("an end");
        beside.push((client, events, answer));
    }
    origin.got(18).await;
    let stopping = world.proxy.take().expect("running").shutdown(Duration::from_secs(8));
    let finishing = async {
        // Each has a turn of its own: when it was that of three, it was that of some others, too.
        for _ in 0..3 {
            soon("an end", alone.join_next()).await.expect("there are more").expect("no panic");
        }
        origin.state.go.add_permits(18);
        for (client, _events, answer) in beside {
            assert_eq!(soon("an answer", read(answer)).await.expect("an answer").text(), "one");
            client.ended().await;
        }
    };
    soon("both", async { tokio::join!(stopping, finishing) }).await;
}

#[tokio::test]
async fn p81_a_stream_that_is_given_up_while_a_newer_cell_is_waited_for_frees_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let (mut world, origin) = world(|config| {
        config.access_log = Some(log.clone().into());
        config.limits.connect_total = Duration::from_secs(200);
        config.limits.waiters = 1;
    })
    .await;
    let down = Origin::down("down").await;
    world.serve("b.example", &[&down]).await;
    let mut client = client(&world).await;
    let waits = |report: &Report| matches!(report, Report::Wanted(wanted) if wanted[0].waiters == 1);
    for (count, method) in [(1, Method::GET), (2, Method::POST)] {
        let (from, mut sender) = (world.reports.count(), client.ready().await.expect("it is open"));
        // Without a body, and with one that is not at its end.
        let is_whole = method == Method::GET;
        let (_answer, mut stream) =
            sender.send_request(request(method, "b.example", "/"), is_whole).expect("a request");
        world.reports.find("it to wait", from, waits).await;
        let full = client.get("b.example", "/").await.expect("an answer");
        assert_eq!(full.status, 503, "there is room for no other");
        stream.send_reset(Reason::CANCEL);
        until("its record", || ended_by(&log).iter().filter(|by| *by == "client").count() == count).await;
    }
    let from = world.reports.count();
    let (held, mut body) = client.begin(request(Method::POST, "b.example", "/")).await;
    body.send_data(Bytes::new(), true).expect("an end");
    world.reports.find("it to wait", from, waits).await;
    world.publish([ready("b.example", 2, &[&origin])]).await;
    assert_eq!(soon("an answer", read(held)).await.expect("an answer").text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p38_a_client_that_is_too_slow_is_recorded_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let (world, origin) = world(|config| {
        config.access_log = Some(log.clone().into());
        config.limits.client_rate = 1 << 30;
        config.limits.client_window = 50 * MILLISECOND;
    })
    .await;
    let large = "x".repeat(1 << 20);
    origin.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
    let mut client = client(&world).await;
    let (sent_slowly, mut body) = client.begin(request(Method::POST, "a.example", "/echo")).await;
    body.send_data(Bytes::from_static(b"x"), false).expect("open");
    soon("the stream's end", read(sent_slowly)).await.expect_err("no answer");
    let (taken_slowly, mut body) = client.begin(request(Method::POST, "a.example", "/raw")).await;
    body.send_data(Bytes::new(), true).expect("an end");
    let mut untaken = soon("a head", taken_slowly).await.expect("a head").into_body();
    soon("the stream's end", async { while let Some(Ok(_)) = untaken.data().await {} }).await;
    world.stop().await;
    assert_eq!(ended_by(&log), ["proxy", "client"]);
    let records = std::fs::read_to_string(&log).expect("records");
    let first = records.lines().next().expect("a record");
    assert!(first.contains(r#""refused":"body_timeout""#), "{first}");
}

#[tokio::test]
async fn a_request_that_crosses_the_goodbye_of_an_idle_connection_is_served() {
    let (world, origin) = world(|config| {
        config.limits.keep_alive = 50 * MILLISECOND;
        config.limits.linger = 200 * MILLISECOND;
    })
    .await;
    let mut frames = Frames::connect(world.http()).await;
    frames.until(GOAWAY).await;
    frames.send(&frame(1, 5, 1, &head_of("a.example", "/slow"))).await.expect("it still reads");
    origin.got(1).await;
    // Longer than a connection without a stream would be kept.
    tokio::time::sleep(400 * MILLISECOND).await;
    origin.go();
    frames.until(DATA).await;
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_confirms_nothing_does_not_hold_up_the_end() {
    let (mut world, _origin) = world(|config| config.limits.linger = 100 * MILLISECOND).await;
    let mut silent = Frames::connect(world.http()).await;
    silent.until(SETTINGS).await;
    let hour = Duration::from_secs(3600);
    soon("the end", world.proxy.take().expect("running").shutdown(hour)).await;
}
