//! WebSockets: what passes, what counts as activity, and how they end.

use std::time::Duration;

use dormouse_link::{Report, State};
use dormouse_proxy::Config;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::world::client::Client;
use crate::world::hand::ByHand;
use crate::world::{soon, until};

/// "Going away", as a server says it, and as a client does.
const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe9];
const TEXT: &[u8] = &[0x81, 2, b'h', b'i'];
const MASKED_TEXT: &[u8] = &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
const PING: &[u8] = &[0x89, 0];
const MASKED_PING: &[u8] = &[0x89, 0x80, 1, 2, 3, 4];

/// Silent for longer than an edge gives notice, and then some.
const WHILE: Duration = Duration::from_secs(3);

/// Who asks, and the instance that was asked and has not answered.
async fn asked(by_hand: &ByHand) -> (Client, Client) {
    let mut client = by_hand.world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let instance = by_hand.asked().await;
    (client, instance)
}

/// Both ends of a tunnel.
async fn opened(by_hand: &ByHand) -> (Client, Client) {
    let (mut client, mut instance) = asked(by_hand).await;
    instance.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response().await.status, 101);
    (client, instance)
}

async fn gets(to: &mut Client, bytes: &[u8]) {
    assert_eq!(soon("a frame", to.take(bytes.len())).await.as_deref(), Some(bytes));
}

/// A Close as a client says it: the edge chose the mask.
async fn gets_masked_close(instance: &mut Client) {
    let bytes = soon("a Close", instance.take(8)).await.expect("a frame");
    assert_eq!(bytes[..2], [0x88, 0x82]);
    assert_eq!([bytes[6] ^ bytes[2], bytes[7] ^ bytes[3]], CLOSE[2..]);
}

/// Both sides are told, answer, and see the end of their connection.
async fn end_with_notice(client: &mut Client, instance: &mut Client) {
    gets(client, &CLOSE).await;
    gets_masked_close(instance).await;
    client.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).await;
    instance.send(CLOSE).await;
    instance.finish().await;
    assert!(client.closed().await, "nothing comes after the Close");
    assert!(instance.closed().await);
}

#[tokio::test]
async fn frames_pass_both_ways_from_the_first_byte_after_the_head() {
    let by_hand = ByHand::start().await;
    let (mut client, mut instance) = asked(&by_hand).await;
    // Before it is answered.
    client.send(MASKED_TEXT).await;
    let heads = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                 HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    instance.send([heads.as_bytes(), TEXT].concat()).await;
    assert_eq!(client.response().await.status, 101);
    gets(&mut client, TEXT).await;
    gets(&mut instance, MASKED_TEXT).await;
    // Neither is what any endpoint would take.
    client.send([0xff; 3]).await;
    gets(&mut instance, &[0xff; 3]).await;
    instance.send([0xb3, 0xff, 1]).await;
    gets(&mut client, &[0xb3, 0xff, 1]).await;
    by_hand.world.stop().await;
}

#[tokio::test]
async fn what_becomes_no_websocket_is_no_tunnel() {
    let by_hand = ByHand::start().await;
    for upgrade in ["", "Upgrade: h2c\r\n"] {
        let (mut client, mut instance) = asked(&by_hand).await;
        instance.send(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{upgrade}\r\n")).await;
        assert_eq!(client.response().await.status, 502);
    }
    by_hand.world.stop().await;
}

#[tokio::test]
async fn an_instance_that_does_not_answer_a_handshake_has_no_longer_than_for_another_answer() {
    let by_hand = ByHand::with("{}", |config| config.limits.response_gap = Duration::from_secs(1)).await;
    let (mut client, _instance) = asked(&by_hand).await;
    assert_eq!(client.response().await.status, 504);
    // Nor for the rest of an answer that it begins instead.
    let (mut client, mut instance) = asked(&by_hand).await;
    instance.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all").await;
    assert!(soon("the end", client.whole()).await.is_none());
    by_hand.world.stop().await;
}

#[tokio::test]
async fn p90_only_data_is_activity() {
    let by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    let silent = |in_flight, idle| in_flight == 1 && idle > Duration::from_millis(300);
    by_hand.seen(0, "an open tunnel to be idle", silent).await;
    for round in 0..2 {
        let from = by_hand.world.reports.count();
        client.send(MASKED_PING).await;
        gets(&mut instance, MASKED_PING).await;
        instance.send(PING).await;
        gets(&mut client, PING).await;
        until("some reports", || by_hand.world.reports.count() > from + 3).await;
        let idle = |report: &Report| matches!(report, Report::Seen(all) if all[0].idle > Duration::from_millis(300));
        assert!(by_hand.world.reports.since(from).iter().all(idle), "pings are none");
        let (sender, receiver, frame) =
            if round == 0 { (&mut client, &mut instance, MASKED_TEXT) } else { (&mut instance, &mut client, TEXT) };
        let from = by_hand.world.reports.count();
        sender.send(frame).await;
        gets(receiver, frame).await;
        by_hand.seen(from, "data", |_, idle| idle < Duration::from_millis(300)).await;
        let from = by_hand.world.reports.count();
        by_hand.seen(from, "silence again", silent).await;
    }
    let from = by_hand.world.reports.count();
    drop((client, instance));
    by_hand.seen(from, "its end, which is none", |in_flight, idle| in_flight == 0 && !idle.is_zero()).await;
    by_hand.world.stop().await;
}

#[tokio::test]
async fn p90_a_request_beside_a_silent_tunnel_is_activity() {
    let by_hand = ByHand::start().await;
    let (_client, _instance) = opened(&by_hand).await;
    by_hand.seen(0, "an idle tunnel", |in_flight, idle| in_flight == 1 && !idle.is_zero()).await;
    let _asked = asked(&by_hand).await;
    let from = by_hand.world.reports.count();
    by_hand.seen(from, "a running request", |in_flight, idle| in_flight == 2 && idle.is_zero()).await;
    by_hand.world.stop().await;
}

#[tokio::test]
async fn a_silent_tunnel_is_ended_with_notice_when_its_environment_is_to_sleep() {
    let mut by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    client.send(MASKED_PING).await;
    gets(&mut instance, MASKED_PING).await;
    let from = by_hand.world.reports.count();
    by_hand.publish(State::Closing).await;
    end_with_notice(&mut client, &mut instance).await;
    let drained = |report: &Report| matches!(report, Report::Drained { .. });
    by_hand.world.reports.find("it to be drained", from, drained).await;
    let wanted = |report: &Report| matches!(report, Report::Wanted(_));
    assert!(!by_hand.world.reports.since(from).iter().any(wanted));
    by_hand.world.stop().await;
}

#[tokio::test]
async fn p90_data_while_its_environment_is_to_sleep_makes_it_wanted_and_no_tunnel_ends() {
    let mut by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    let (mut other, mut other_instance) = opened(&by_hand).await;
    let from = by_hand.world.reports.count();
    by_hand.publish(State::Closing).await;
    client.send(MASKED_TEXT).await;
    gets(&mut instance, MASKED_TEXT).await;
    by_hand.wanted(from).await;
    assert!(timeout(WHILE, other.take(1)).await.is_err(), "somebody is there");
    let from = by_hand.world.reports.count();
    by_hand.wanted(from).await;
    by_hand.publish(State::Ready).await;
    for (sender, receiver) in [(&mut other, &mut other_instance), (&mut client, &mut instance)] {
        sender.send(MASKED_TEXT).await;
        gets(receiver, MASKED_TEXT).await;
    }
    assert!(timeout(WHILE, other.take(1)).await.is_err());
    by_hand.world.stop().await;
}

#[tokio::test]
async fn a_close_waits_for_the_end_of_a_frame_and_nothing_comes_behind_it() {
    let mut by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    // Both are in the middle of one.
    instance.send([0x89, 5, b'a']).await;
    gets(&mut client, &[0x89, 5, b'a']).await;
    client.send([0x8a, 0x85, 1, 2]).await;
    gets(&mut instance, &[0x8a, 0x85, 1, 2]).await;
    by_hand.publish(State::Closing).await;
    assert!(timeout(Duration::from_millis(1500), client.take(1)).await.is_err());
    instance.send([b"bcde", TEXT].concat()).await;
    gets(&mut client, b"bcde").await;
    gets(&mut client, &CLOSE).await;
    client.send([&[3, 4, b'v', b'w', b'x', b'y', b'z'], MASKED_TEXT].concat()).await;
    gets(&mut instance, &[3, 4, b'v', b'w', b'x', b'y', b'z']).await;
    gets_masked_close(&mut instance).await;
    instance.send(TEXT).await;
    instance.finish().await;
    assert!(client.closed().await);
    assert!(instance.closed().await);
    by_hand.world.stop().await;
}

#[tokio::test]
async fn whoever_does_not_end_a_frame_or_does_not_answer_is_ended_without() {
    let mut by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    let (mut deaf, mut mute) = opened(&by_hand).await;
    instance.send([0x89, 5, b'a']).await;
    gets(&mut client, &[0x89, 5, b'a']).await;
    by_hand.publish(State::Closing).await;
    assert!(client.closed().await, "in the middle of a frame nothing can be said");
    gets_masked_close(&mut instance).await;
    assert!(instance.closed().await);
    gets(&mut deaf, &CLOSE).await;
    gets_masked_close(&mut mute).await;
    assert!(deaf.closed().await && mute.closed().await);
    by_hand.world.stop().await;
}

#[tokio::test]
async fn a_client_is_told_even_if_its_instance_takes_nothing_any_more() {
    let mut by_hand = ByHand::start().await;
    let (mut client, instance) = opened(&by_hand).await;
    // Frames of no data, until the instance's side is full.
    let pings = MASKED_PING.repeat(10_000);
    let mut full = false;
    while !full {
        full = timeout(Duration::from_millis(500), client.stream.write_all(&pings)).await.is_err();
    }
    by_hand.publish(State::Closing).await;
    gets(&mut client, &CLOSE).await;
    drop(instance);
    by_hand.world.stop().await;
}

#[tokio::test]
async fn a_close_that_was_said_is_not_said_again() {
    let mut by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    let own = [0x88, 2, 0x03, 0xe8];
    instance.send(own).await;
    gets(&mut client, &own).await;
    by_hand.publish(State::Closing).await;
    gets_masked_close(&mut instance).await;
    instance.finish().await;
    assert!(client.closed().await);
    by_hand.world.stop().await;
}

#[tokio::test]
async fn at_the_end_of_the_proxy_each_tunnel_is_ended_with_notice() {
    let mut by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    let proxy = by_hand.world.proxy.take().expect("running");
    let ended = proxy.shutdown(Duration::from_secs(4));
    tokio::join!(soon("the shutdown", ended), end_with_notice(&mut client, &mut instance));
}

#[tokio::test]
async fn a_client_that_only_listens_is_not_cut_at_the_limit_for_bodies_nor_an_instance_that_does() {
    // The answer to the handshake has to come in that time.
    let gap = Duration::from_millis(700);
    let change = |config: &mut Config| {
        (config.limits.body_gap, config.limits.response_gap) = (gap, gap);
        config.limits.client_window = gap;
    };
    let by_hand = ByHand::with(r#"{"limits": {"stream_idle_ms": 2500}}"#, change).await;
    let (mut listener, mut speaker) = opened(&by_hand).await;
    let (mut talker, mut hearer) = opened(&by_hand).await;
    let began = Instant::now();
    let mut last = began;
    while began.elapsed() < Duration::from_secs(3) {
        speaker.send(PING).await;
        gets(&mut listener, PING).await;
        last = Instant::now();
        talker.send(MASKED_PING).await;
        gets(&mut hearer, MASKED_PING).await;
        tokio::time::sleep(gap + gap / 4).await;
    }
    end_with_notice(&mut listener, &mut speaker).await;
    assert!(last.elapsed() > Duration::from_millis(2400), "what shows that somebody is there renews the limit");
    end_with_notice(&mut talker, &mut hearer).await;
    by_hand.world.stop().await;
}

#[tokio::test]
async fn p63_a_client_that_sends_nothing_after_its_close_gets_the_answer_to_it() {
    let by_hand = ByHand::with("{}", |config| config.limits.half_closed = Duration::from_secs(20)).await;
    let (mut client, mut instance) = opened(&by_hand).await;
    let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    client.send(close).await;
    client.finish().await;
    gets(&mut instance, &close).await;
    assert!(timeout(Duration::from_millis(100), instance.take(1)).await.is_err());
    instance.send([0x88, 2, 0x03, 0xe8]).await;
    gets(&mut client, &[0x88, 2, 0x03, 0xe8]).await;
    instance.finish().await;
    assert!(client.closed().await && instance.closed().await);
    // Without one its end is the tunnel's, and so is the instance's.
    let (mut client, mut instance) = opened(&by_hand).await;
    client.finish().await;
    assert!(instance.closed().await && client.closed().await);
    let (mut client, mut instance) = opened(&by_hand).await;
    instance.send(TEXT).await;
    instance.finish().await;
    gets(&mut client, TEXT).await;
    assert!(client.closed().await && instance.closed().await);
    by_hand.world.stop().await;
}
