use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicU32;

use super::*;
use crate::access::{AccessLog, Owner};
use crate::checks::{Asker, Verifier};
use crate::config::{Http2, Limits, ListenerLimits};
use crate::dice::Dice;
use crate::drain::Phase;
use crate::front::listen::budget::{Budget, Room};
use crate::front::listen::sockets::Sockets;
use crate::live::Live;
use crate::live::signals::Signals;
use crate::metrics::{Door, Metrics};
use crate::overload::Overload;
use crate::quiet::Quiet;

/// Until a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A worker's view of a proxy that serves nobody.
fn edge(ready: &watch::Sender<bool>, stopping: &watch::Sender<bool>, balance: &Arc<Balance>) -> Arc<Edge> {
    let limits = Limits::default();
    let (access, _) = AccessLog::start(None, &limits, Owner::This, ("", "")).expect("there is no file to open");
    let (signals, _heard) = Signals::new();
    let metrics = Metrics::new(1, Vec::new());
    Arc::new(Edge {
        budget: Budget::new(limits.connections, Vec::new()),
        overload: Overload::new(&limits, 0, &signals),
        balance: Arc::clone(balance),
        limits: Arc::new(limits),
        live: Arc::new(Live::new(crate::live::sticky::StickyKey::new(&crate::StickySecret::new([0; 32])))),
        signals,
        access,
        spans: None,
        tally: metrics.tally(0),
        metrics,
        dice: Dice::default(),
        compressing: AtomicU32::new(0),
        quiet: Arc::new(Quiet::default()),
        verifier: Arc::new(Verifier::new(1).expect("there is randomness")),
        asker: Asker::new(),
        ready: ready.subscribe(),
        stopping: stopping.subscribe(),
        phase: watch::channel(Phase::Serving).1,
    })
}

/// Sends a request on a new connection, whose answer is for [`status`] to read.
fn ask(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n").expect("it is open");
    stream
}

fn status(mut stream: TcpStream) -> String {
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    String::from_utf8_lossy(&status).into_owned()
}

#[test]
fn a_worker_that_panicked_serves_again_and_loses_nothing_that_waits_in_its_socket() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let sockets = Sockets::open("http", &any, 1, &mut Vec::new()).expect("a free port");
    let at = sockets.address.ip().expect("an address");
    let (balance, mut arrivals) = Balance::new(1);
    let (ready, stopping) = (watch::Sender::new(true), watch::Sender::new(false));
    let (edge, stop) = (edge(&ready, &stopping, &balance), watch::Sender::new(Stop::No));
    let entrance = Arc::new(Entrance {
        tls: None,
        http2: Http2::Off,
        limits: Arc::clone(&edge.limits),
        room: Room::new("http", &ListenerLimits::default(), None),
        proxy_protocol_from: Vec::new(),
        trust_forwarded_from: Arc::new([]),
        door: Door::new("http"),
    });
    let listeners = sockets.all.iter().map(|socket| (Arc::clone(socket), Arc::clone(&entrance))).collect();
    let arrivals = arrivals.pop().expect("one worker");
    let mut duty = Duty { number: 0, workers: 1, listeners, arrivals, balance, begun: None };
    let (poison, mut poisoned) = tokio::sync::mpsc::channel::<()>(1);
    let (died, deaths) = std::sync::mpsc::sync_channel(1);
    let heard = stop.subscribe();
    let worker = std::thread::spawn(move || {
        let mut lives = 0;
        again_and_again(&heard, || {
            lives += 1;
            let serve = run(&mut duty, Arc::clone(&edge), heard.clone());
            if lives > 1 {
                return block_on(serve)?;
            }
            // The whole worker, in the middle of serving.
            let _died = Died(died.clone());
            block_on(async {
                tokio::select! {
                    served = serve => served,
                    _ = poisoned.recv() => panic!("of this test's making"),
                }
            })?
        });
        lives
    });
    assert_eq!(status(ask(at)), "HTTP/1.1 404");
    let served = ask(at);
    poison.blocking_send(()).expect("it runs");
    deaths.recv_timeout(PATIENCE).expect("it dies");
    let waiting = ask(at);
    assert_eq!(status(waiting), "HTTP/1.1 404", "it waited in the socket's queue");
    assert_eq!(status(ask(at)), "HTTP/1.1 404");
    drop(served);
    stop.send_replace(Stop::At(Instant::now()));
    assert_eq!(worker.join().expect("it ends"), 2, "once more, and not again when it is told to stop");
}

/// Tells when it is dropped, which a panic does, too.
struct Died(std::sync::mpsc::SyncSender<()>);

impl Drop for Died {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_worker_that_panics_while_all_is_stopped_does_not_come_back() {
    let stop = watch::Sender::new(Stop::At(Instant::now()));
    let mut lives = 0;
    again_and_again(&stop.subscribe(), || {
        lives += 1;
        panic!("of this test's making")
    });
    assert_eq!(lives, 1);
}
