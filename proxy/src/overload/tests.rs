use dormouse_link::EnvironmentId;

use super::*;

fn cell(id: &str, in_flight: u32) -> Arc<Cell> {
    let cell = Arc::new(Cell::new(EnvironmentId::new(id)));
    cell.in_flight.store(in_flight, Ordering::Relaxed);
    cell
}

/// With a limit of memory that is reached, or none.
fn overload(memory: u64) -> Arc<Overload> {
    let (signals, _heard) = Signals::new();
    Overload::new(&Limits { memory: Some(memory), ..Limits::default() }, 0, &signals)
}

#[test]
fn the_busiest_alone_is_refused_and_only_while_it_is_that_bad() {
    let cells = [cell("a", 3), cell("b", 7), cell("c", 0)];
    let overload = overload(1);
    assert!(cells.iter().all(|cell| !overload.refuses(cell)), "nobody has looked");
    let mut lookout = Lookout::new(Arc::clone(&overload));
    lookout.look(&cells);
    assert_eq!(cells.each_ref().map(|cell| overload.refuses(cell)), [false, true, false]);
    cells[1].in_flight.store(2, Ordering::Relaxed);
    lookout.look(&cells);
    assert_eq!(cells.each_ref().map(|cell| overload.refuses(cell)), [true, false, false], "others catch up");
    lookout.look(&[cell("d", 0)]);
    assert!(cells.iter().all(|cell| !overload.refuses(cell)), "nobody is busy");
    assert_eq!(overload.shown()["shed"]["requests"], 2);
}

#[test]
fn each_handshake_counts_until_its_end() {
    let overload = overload(u64::MAX);
    let under_way = [overload.handshake(), overload.handshake()];
    assert_eq!(overload.figures().handshakes.used, 2);
    drop(under_way);
    assert_eq!(overload.figures().handshakes.used, 0);
}

#[tokio::test(start_paused = true)]
async fn held_requests_are_sent_away_over_a_while_and_no_more_of_them_once_there_is_room() {
    let (overload, dice) = (overload(u64::MAX), Dice::default());
    let sent = async |within| tokio::time::timeout(within, overload.sends_away(&dice)).await.is_ok();
    assert!(!sent(Duration::from_secs(60)).await, "there is room");
    overload.published.send_replace(Level::Handshakes);
    assert!(!sent(Duration::from_secs(60)).await, "handshakes go first");
    overload.published.send_replace(Level::Held);
    let mut early = 0;
    for _ in 0..100 {
        early += usize::from(sent(SEND_AWAY / 2).await);
    }
    assert!((20..80).contains(&early), "half of them in half of the time: {early}");
    assert!(sent(SEND_AWAY * 2).await, "all in the end");
    let relieved = async {
        sleep(Duration::from_nanos(1)).await;
        overload.published.send_replace(Level::Calm);
    };
    let (sent, ()) = tokio::join!(sent(Duration::from_secs(60)), relieved);
    assert!(!sent, "there is room again");
}
