//! Another process takes over, and no visitor notices.

use std::fs;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::{Answer, GOING_AWAY, HELLO, Load, UPGRADE, ask, head};
use crate::program::{Edge, command, folder, get, origin, refused, signal, soon};
use crate::upgrade_fails::double;

const ANY: &str = "127.0.0.1:0";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

pub(crate) fn run(edge: &tempfile::TempDir) -> String {
    edge.path().join("run").to_str().unwrap().to_owned()
}

#[tokio::test]
async fn p95_ten_upgrades_at_load_fail_no_request_refuse_no_connection_and_lose_no_record() {
    upgrades(&["1", "4", "1", "3", "2", "1", "4", "2", "3", "1"], [4, 4, 8, 4]).await;
}

/// The long form.
mod soak {
    #[tokio::test]
    async fn p95_a_hundred_upgrades_at_load_fail_no_request() {
        let workers: Vec<_> = ["1", "4", "2", "8", "3"].into_iter().cycle().take(100).collect();
        super::upgrades(&workers, [16, 8, 64, 16]).await;
    }
}

/// How much longer first answers may take over upgrades than beside as many starts of programs that take nothing over, in the
/// middle and at the 99th percentile. Nobody waits for the switch, as both accept while it is made: what upgrades cost is what a
/// start costs. So much more is for machines with other work.
const SLACK: [(u32, Duration); 2] = [(3, Duration::from_millis(50)), (3, Duration::from_millis(250))];

/// Answers between two of them.
const BETWEEN: usize = 300;

/// Upgrades at load, each to a number of workers.
#[expect(clippy::print_stdout, reason = "what was measured, for whoever asks for it")]
async fn upgrades(workers: &[&str], visitors: [usize; 4]) {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let (run, log) = (run(&folder), folder.path().join("access.log").to_str().unwrap().to_owned());
    let words = |workers, more: &[&'static str]| {
        let words = ["--http", ANY, "--http2-prior-knowledge", "--admin", ANY, "--run", &run];
        let words = words.into_iter().chain(["--access-log", &log, "--drain", "12s", "--workers", workers]);
        words.chain(more.iter().copied()).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = words("2", &[]);
    let mut edges = vec![Edge::with(folder, &first.iter().map(String::as_str).collect::<Vec<_>>()).await];
    let at = edges[0].address("http");
    let load = Load::begin(at, visitors);
    // What it costs to start a program, whatever it does.
    load.more(BETWEEN).await;
    load.first_answers();
    for _ in workers {
        edges[0].another(&["--http", ANY]).await;
        load.more(BETWEEN).await;
    }
    let beside = load.first_answers();
    for workers in workers {
        let words = words(workers, &["--upgrade"]);
        let next = edges[0].another(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(next.address("http"), at, "any port is the port that it had");
        assert_eq!(next.address("admin"), edges[0].address("admin"));
        edges.push(next);
        load.more(BETWEEN).await;
    }
    let over = load.first_answers();
    let sorted = |answers: Vec<(Instant, Duration)>| {
        let mut took: Vec<_> = answers.into_iter().map(|(_, took)| took).collect();
        took.sort();
        took
    };
    let (beside, over) = (sorted(beside), sorted(over));
    // Those before end while the last one serves; their connections move over.
    let mut last = edges.pop().unwrap();
    for edge in &mut edges {
        assert!(edge.ended().await.success());
    }
    load.more(50).await;
    let tally = load.end().await;
    last.signal("TERM").await;
    assert!(last.ended().await.success());
    let count = |counted: &std::sync::atomic::AtomicUsize| counted.load(Ordering::SeqCst);
    let at = |answers: &[Duration], percent: usize| answers[answers.len() * percent / 100];
    let of = |answers: &[Duration]| {
        format!(
            "{}: p50 {:?}, p99 {:?}, {:?}",
            answers.len(),
            at(answers, 50),
            at(answers, 99),
            answers.last().unwrap()
        )
    };
    println!(
        "{} answers, first ones beside starts {}, over upgrades {}; {} GOAWAYs, {} echoes over {} sockets, {} asked again",
        count(&tally.answered),
        of(&beside),
        of(&over),
        count(&tally.goaways),
        count(&tally.echoed),
        count(&tally.sockets),
        count(&tally.asked_again),
    );
    assert_eq!(*tally.failures.lock().unwrap(), Vec::<String>::new());
    assert_eq!(count(&tally.asked_again), 0, "there was time for a last answer");
    assert!(count(&tally.goaways) >= visitors[3], "each connection of HTTP/2 was told to move");
    assert!(count(&tally.sockets) > visitors[2], "upgraded connections were closed and came again");
    for (percent, (times, more)) in [50, 99].into_iter().zip(SLACK) {
        let (over, beside) = (at(&over, percent), at(&beside, percent));
        assert!(over <= beside * times + more, "p{percent}: {over:?} over upgrades, {beside:?} beside starts");
    }
    let records = fs::read_dir(last.folder())
        .unwrap()
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("access.log"));
    let lines = records.map(|file| fs::read_to_string(file.path()).unwrap());
    let answered: usize = lines.map(|text| text.lines().filter(|line| line.contains(r#""status":200"#)).count()).sum();
    assert_eq!(answered, count(&tally.answered), "each request has its record");
}

#[tokio::test]
async fn who_waits_in_the_queues_is_served_by_the_successor() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let listener = std::net::TcpListener::bind(ANY).unwrap();
    let at = listener.local_addr().unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        waiting.spawn(async move { ask(&mut stream, REQUEST).await });
    }
    // The one before never accepted anybody. It ends when it was told that the other serves.
    let old = double::Old::open(&run);
    let offered = tokio::task::spawn_blocking(move || {
        let mut line = old.knocked();
        line.greeted();
        line.offer(1);
        line.sockets(&[("http", at)], &[listener.as_fd()]);
        assert_eq!(line.hear()["message"], "ready");
        line.say(r#"{"message":"released"}"#);
    });
    let words = ["--http", &at.to_string(), "--run", &run, "--upgrade", "--workers", "2"];
    let edge = Edge::with(folder, &words).await;
    offered.await.unwrap();
    while let Some(answer) = soon("an answer", waiting.join_next()).await {
        assert!(matches!(answer.unwrap(), Ok(Answer::Whole { .. })));
    }
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
}

#[tokio::test]
async fn who_waits_while_the_old_one_stands_still_is_served() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let mut old = Edge::with(folder, &["--http", ANY, "--run", &run, "--workers", "2"]).await;
    let at = old.address("http");
    old.signal("STOP").await;
    let mut waiting = JoinSet::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        waiting.spawn(async move { ask(&mut stream, REQUEST).await });
    }
    let words = ["--http", &at.to_string(), "--run", &run, "--workers", "3", "--upgrade"];
    let (new, ()) = tokio::join!(old.another(&words), async {
        tokio::task::yield_now().await;
        old.signal("CONT").await;
    });
    while let Some(answer) = soon("an answer", waiting.join_next()).await {
        assert!(matches!(answer.unwrap(), Ok(Answer::Whole { .. })));
    }
    assert!(old.ended().await.success());
    assert_eq!(new.get("a.example").await, Ok("one".to_owned()));
}

#[tokio::test]
async fn upgraded_connections_stay_with_the_old_one_until_their_turns_come_one_by_one() {
    const SOCKETS: usize = 24;
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let mut old = Edge::with(folder, &["--http", ANY, "--run", &run, "--drain", "6s"]).await;
    let mut sockets = JoinSet::new();
    for _ in 0..SOCKETS {
        let mut socket = TcpStream::connect(old.address("http")).await.unwrap();
        socket.write_all(UPGRADE.as_bytes()).await.unwrap();
        assert!(head(&mut socket).await.unwrap().starts_with("HTTP/1.1 101"));
        sockets.spawn(async move {
            loop {
                let mut back = [0; HELLO.len()];
                // Echoed, or told that it ends in between: never reset, and never half.
                if let Err(error) = socket.write_all(&HELLO).await {
                    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
                    return Instant::now();
                }
                match soon("an echo", socket.read_exact(&mut back)).await {
                    Ok(_) => assert_eq!(back, HELLO),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "closed, and not reset");
                        assert_eq!(back[..4], GOING_AWAY);
                        return Instant::now();
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    let began = Instant::now();
    let new = old.another(&["--http", ANY, "--run", &run, "--upgrade"]).await;
    old.says("another process serves in place of this one").await;
    let mut ends = Vec::new();
    while let Some(end) = soon("their ends", sockets.join_next()).await {
        ends.push(end.unwrap());
    }
    assert!(ends[0] - began >= Duration::from_secs(3), "not before half of the time");
    let over = ends[SOCKETS - 1] - ends[0];
    assert!(over > Duration::from_secs(1), "they were closed within {over:?}");
    assert!(old.ended().await.success());
    assert_eq!(new.get("a.example").await, Ok("one".to_owned()));
}

#[tokio::test]
async fn a_signal_has_it_start_its_successor_and_the_service_manager_hears_all() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let (run, path) = (run(&folder), folder.path().join("notify"));
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut start = command(folder.path(), &["--http", ANY, "--run", &run, "--drain", "2s"]);
    start.env("NOTIFY_SOCKET", &path);
    let mut old = Edge::spawn(folder.into(), start).await;
    let hears = async |words: &str| {
        let mut bytes = [0; 1024];
        let count = soon(words, manager.recv(&mut bytes)).await.unwrap();
        let said = String::from_utf8_lossy(&bytes[..count]).into_owned();
        assert!(said.starts_with(words), "{said:?} is not {words:?}");
        said
    };
    hears("READY=1").await;
    old.signal("HUP").await;
    let said = hears("RELOADING=1\nMONOTONIC_USEC=").await;
    assert!(said.split('=').next_back().unwrap().parse::<u64>().unwrap() > 0);
    hears("READY=1").await;
    let at = old.address("http");
    old.signal("QUIT").await;
    hears("RELOADING=1").await;
    let said = hears("MAINPID=").await;
    let new: u32 = said.lines().next().unwrap().strip_prefix("MAINPID=").unwrap().parse().unwrap();
    assert!(new != old.id() && said.ends_with("READY=1"), "{said}");
    hears("READY=1").await;
    assert!(old.line().await.contains(&at.to_string()), "the successor is where the old one was");
    assert!(old.ended().await.success());
    assert_eq!(get(TcpStream::connect(at).await.unwrap(), "a.example").await, Ok("one".to_owned()));
    signal(new, "TERM").await;
    hears("STOPPING=1").await;
    // The last one that holds its output.
    assert_eq!(old.line().await, "");
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn a_service_manager_with_an_abstract_address_hears_it_too() {
    use std::os::linux::net::SocketAddrExt;
    let folder = folder(&[]);
    let name = format!("dormouse-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap();
    manager.set_nonblocking(true).unwrap();
    let manager = UnixDatagram::from_std(manager).unwrap();
    let mut start = command(folder.path(), &["--http", ANY]);
    start.env("NOTIFY_SOCKET", format!("@{name}"));
    let _edge = Edge::spawn(folder.into(), start).await;
    let mut bytes = [0; 64];
    let count = soon("its word", manager.recv(&mut bytes)).await.unwrap();
    assert_eq!(&bytes[..count], b"READY=1");
}

#[tokio::test]
async fn a_successor_listens_where_it_was_told_and_not_where_the_old_one_did() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let mut old = Edge::with(folder, &["--http", ANY, "--admin", ANY, "--run", &run]).await;
    let words = ["--http", "127.0.0.2:0", "--admin", ANY, "--run", &run, "--upgrade"];
    let new = old.another(&words).await;
    assert!(old.ended().await.success());
    assert_eq!(new.address("admin"), old.address("admin"));
    assert!(new.address("http").ip().to_string() == "127.0.0.2");
    assert_eq!(new.get("a.example").await, Ok("one".to_owned()));
    assert!(TcpStream::connect(old.address("http")).await.is_err(), "nobody listens where nobody was told to");
}

#[tokio::test]
async fn more_sockets_than_one_message_takes_are_handed_over_and_each_is_served() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let mut old = Edge::with(folder, &["--http", ANY, "--run", &run, "--workers", "150"]).await;
    let new = old.another(&["--http", ANY, "--run", &run, "--workers", "1", "--upgrade"]).await;
    assert!(old.ended().await.success());
    // The kernel spreads them over the sockets.
    for _ in 0..500 {
        assert_eq!(new.get("a.example").await, Ok("one".to_owned()));
    }
}

#[tokio::test]
async fn a_unix_socket_stays_where_it_is_and_goes_with_the_last_one() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let (run, path) = (run(&folder), folder.path().join("http.sock"));
    let listener = format!("unix:{}", path.display());
    let mut old = Edge::with(folder, &["--http", &listener, "--run", &run]).await;
    let mut new = old.another(&["--http", &listener, "--run", &run, "--upgrade"]).await;
    assert!(old.ended().await.success());
    assert_eq!(get(UnixStream::connect(&path).await.unwrap(), "a.example").await, Ok("one".to_owned()));
    // One that fails takes nothing along.
    std::fs::rename(new.path("table.json"), new.path("good")).unwrap();
    let (code, said) = refused(new.folder(), &["--http", &listener, "--run", &run, "--upgrade"]).await;
    assert_eq!(code, 78, "{said}");
    std::fs::rename(new.path("good"), new.path("table.json")).unwrap();
    assert_eq!(get(UnixStream::connect(&path).await.unwrap(), "a.example").await, Ok("one".to_owned()));
    new.signal("TERM").await;
    assert!(new.ended().await.success());
    assert!(!path.exists());
}
