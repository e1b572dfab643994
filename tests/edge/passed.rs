//! Sockets that somebody else bound: by a service manager, as sd_listen_fds(3) has it, or by a test, with short queues.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt,
};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::{Answer, ask};
use crate::program::{Edge, PATIENCE, PROGRAM, folder, get, origin, signal, soon};
use crate::upgrade::run;

const ANY: &str = "127.0.0.1:0";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

/// Above all that the program is to get them as.
const SPARE: i32 = 500;

/// The program with these descriptors from 3 on, as a service manager starts it, and what has to be kept until it was started;
/// `environment` is what it says of them.
fn start(folder: &Path, sockets: &[OwnedFd], environment: &str, words: &[&str]) -> (Command, Vec<OwnedFd>) {
    let inherited = |socket: &OwnedFd| {
        let inherited = fcntl_dupfd_cloexec(socket, SPARE).unwrap();
        fcntl_setfd(&inherited, FdFlags::empty()).unwrap();
        inherited
    };
    let inherited: Vec<_> = sockets.iter().map(inherited).collect();
    // One by one: what stands in the way of one is put aside until its line is over, where another one's place may be.
    let moves = inherited.iter().enumerate();
    let moves = moves.map(|(at, from)| format!("exec {}<&{1}; exec {1}<&-; ", at + 3, from.as_raw_fd()));
    // Whatever was inherited from whoever runs the tests.
    let end = format!("exec {}<&-", sockets.len() + 3);
    let script = format!("{}{end}; {environment} exec \"$@\"", moves.collect::<String>());
    let mut command = Command::new("bash");
    command.args(["-c", &script, "start", PROGRAM, "edge", "--table"]).arg(folder.join("table.json"));
    command.args(words).env_remove("DORMOUSE_LOG").kill_on_drop(true);
    (command, inherited)
}

/// Starts it, and waits until it serves. Nothing of what it was passed is kept here but by whoever made it.
async fn serve(folder: TempDir, (command, _inherited): (Command, Vec<OwnedFd>)) -> Edge {
    Edge::spawn(folder.into(), command).await
}

/// What a service manager says of sockets with these names.
fn named(names: &[&str]) -> String {
    format!("LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}", names.len(), names.join(":"))
}

async fn refused(folder: &Path, sockets: &[OwnedFd], environment: &str, words: &[&str]) -> String {
    let (mut command, _inherited) = start(folder, sockets, environment, words);
    let Output { status, stderr, .. } = soon("its refusal", command.output()).await.unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(78), "{said}");
    said
}

fn port(listener: &OwnedFd) -> SocketAddr {
    getsockname(listener).unwrap().try_into().unwrap()
}

/// A socket that listens on that port of loopback, beside others there.
fn listener(port: u16, backlog: i32) -> OwnedFd {
    let made = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseport(&made, true).unwrap();
    bind(&made, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    listen(&made, backlog).unwrap();
    made
}

/// So many sockets on one port, in each of which two wait at most.
pub(crate) fn short_queues(count: usize) -> (SocketAddr, Vec<OwnedFd>) {
    let mut sockets = vec![listener(0, 1)];
    let at = port(&sockets[0]);
    sockets.extend((1..count).map(|_| listener(at.port(), 1)));
    (at, sockets)
}

/// How many wait in each of the queues at a port (proc(5): the receive queue of a socket that listens).
fn waiting(at: SocketAddr) -> Vec<usize> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let listens = fields[1].ends_with(&format!(":{:04X}", at.port())) && fields[3] == "0A";
        listens.then(|| usize::from_str_radix(fields[4].split(':').nth(1).unwrap(), 16).unwrap())
    };
    table.lines().skip(1).filter_map(queue).collect()
}

/// Visitors come until every queue is full; each asks, and waits for its answer. Many at once: whose queue is full tries again
/// after as long as it has waited, so the sooner all are there, the sooner all are served.
pub(crate) async fn fill(at: SocketAddr, count: usize) -> JoinSet<std::io::Result<Answer>> {
    let mut visitors = JoinSet::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let queues = waiting(at);
        assert_eq!(queues.len(), count);
        if queues.iter().all(|waiting| *waiting >= 2) {
            return visitors;
        }
        assert!(Instant::now() < deadline && visitors.len() < 40 * count, "never full: {queues:?}");
        for _ in 0..if visitors.is_empty() { 6 * count } else { 2 * count } {
            visitors.spawn(async move { ask(&mut TcpStream::connect(at).await?, REQUEST).await });
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Each got its answer.
pub(crate) async fn all_answered(mut visitors: JoinSet<std::io::Result<Answer>>) {
    while let Some(answer) = soon("an answer", visitors.join_next()).await {
        let answer = answer.unwrap();
        assert!(matches!(answer, Ok(Answer::Whole { .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn sockets_of_the_service_manager_are_served_by_name_or_address_and_outlive_the_edge() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let path = folder.path().join("http.sock");
    let unix = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let (https, admin) = (listener(0, 16), listener(0, 16));
    let (at, sockets) = (port(&admin), [unix, https, admin]);
    crate::files::issue(folder.path(), "own", &["a.example"]);
    let own = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (chain, key, admin) = (own("own.pem"), own("own.key"), at.to_string());
    let words = ["--cert", &chain, "--key", &key, "--admin", &admin];
    // The last one has the name of its unit, as those have that are not named.
    let command = start(folder.path(), &sockets, &named(&["http", "https", "dormouse.socket"]), &words);
    let mut edge = serve(folder, command).await;
    assert!(edge.ready().contains(&format!("http=unix:{}", path.display())), "{}", edge.ready());
    assert_eq!((edge.address("https"), edge.address("admin")), (port(&sockets[1]), at));
    assert_eq!(get(UnixStream::connect(&path).await.unwrap(), "a.example").await, Ok("one".to_owned()));
    assert_eq!(crate::files::over_tls(&edge, "own.pem", "a.example").await, Ok("one".to_owned()));
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
    // Whoever comes now waits for the next start: nothing was closed or removed.
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut waits = JoinSet::new();
    waits.spawn(get(stream, "a.example"));
    let command = start(edge.folder(), &sockets[..1], &named(&["http"]), &[]);
    let (folder, path) = (TempDir::new().unwrap(), path);
    let _next = serve(folder, command).await;
    assert_eq!(soon("an answer", waits.join_next()).await.unwrap().unwrap(), Ok("one".to_owned()));
    assert!(path.exists());
}

#[tokio::test]
async fn a_successor_gets_them_without_being_told_where_and_their_file_stays() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let (run, path) = (run(&folder), folder.path().join("http.sock"));
    let sockets = [OwnedFd::from(UnixListener::bind(&path).unwrap()), listener(0, 16)];
    let admin = port(&sockets[1]);
    let command = start(folder.path(), &sockets, &named(&["http", "admin"]), &["--run", &run]);
    let mut edge = serve(folder, command).await;
    edge.signal("QUIT").await;
    let line = edge.says("another process serves in place of this one").await;
    let new: u32 = line.rsplit_once("pid=").unwrap().1.trim().parse().unwrap();
    let ready = edge.line().await;
    assert!(ready.contains(&format!("http=unix:{}", path.display())) && ready.contains(&admin.to_string()), "{ready}");
    assert!(edge.ended().await.success());
    let environment = fs::read(format!("/proc/{new}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"), "it was passed to the first one");
    assert_eq!(get(UnixStream::connect(&path).await.unwrap(), "a.example").await, Ok("one".to_owned()));
    signal(new, "TERM").await;
    // The last one that holds its output.
    assert_eq!(edge.line().await, "");
    UnixStream::connect(&path).await.expect("the service manager still listens");
}

#[tokio::test]
async fn what_was_passed_wrongly_is_told_and_nothing_is_served() {
    let folder = folder(&[]);
    let tcp = || listener(0, 16);
    let udp = || OwnedFd::from(UdpSocket::bind(ANY).unwrap());
    let other = tcp();
    let at = port(&other).to_string();
    for (sockets, environment, words, told) in [
        (vec![udp()], named(&["http"]), vec![], "cannot serve on descriptor 3 (http)"),
        (vec![tcp()], named(&["http", "https"]), vec![], "cannot take descriptor 4 (https)"),
        (vec![tcp()], named(&["dormouse.socket"]), vec![], "no listener is for the socket at 127.0.0.1:"),
        (vec![tcp()], named(&["http"]), vec!["--http", at.as_str()], "and http is to be at"),
        (vec![tcp(), tcp()], named(&["http", "http"]), vec![], "http is in one place"),
        (vec![tcp()], "LISTEN_PID=$$ LISTEN_FDS=two".to_owned(), vec![], "LISTEN_FDS is no number of its kind"),
        (vec![tcp()], "LISTEN_PID=me LISTEN_FDS=1".to_owned(), vec![], "LISTEN_PID is no number of its kind"),
        (vec![tcp()], "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a:b".to_owned(), vec![], "2 names for 1 sockets"),
        (vec![tcp()], "LISTEN_PID=$$ LISTEN_FDS=1".to_owned(), vec![], "(unknown)"),
    ] {
        let said = refused(folder.path(), &sockets, &environment, &words).await;
        assert!(said.contains(told), "{told:?} is not in {said}");
    }
    // What was passed to another process is not looked at.
    let command = start(folder.path(), &[udp()], "LISTEN_PID=1 LISTEN_FDS=1", &["--http", ANY]);
    serve(folder, command).await;
}

#[tokio::test]
async fn who_waits_in_full_queues_of_many_sockets_is_served_after_an_upgrade() {
    // More than go with one message.
    const SOCKETS: usize = 70;
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let (at, sockets) = short_queues(SOCKETS);
    let command = start(folder.path(), &sockets, &named(&["http"; SOCKETS]), &["--run", &run, "--workers", "2"]);
    let mut old = serve(folder, command).await;
    // Nobody else holds them.
    drop(sockets);
    old.signal("STOP").await;
    let visitors = fill(at, SOCKETS).await;
    let words = ["--http", &at.to_string(), "--run", &run, "--workers", "3", "--upgrade"];
    let (new, ()) = tokio::join!(old.another(&words), async {
        tokio::task::yield_now().await;
        old.signal("CONT").await;
    });
    all_answered(visitors).await;
    assert!(old.ended().await.success());
    assert_eq!(waiting(at), [0; SOCKETS], "all are there still");
    assert_eq!(new.get("a.example").await, Ok("one".to_owned()));
}

/// As a double hands them over that never accepts anybody.
#[tokio::test]
async fn who_waits_in_full_queues_of_many_sockets_is_served_by_the_successor_alone() {
    const SOCKETS: usize = 70;
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let (at, sockets) = short_queues(SOCKETS);
    let visitors = fill(at, SOCKETS).await;
    let old = crate::upgrade_fails::double::Old::open(&run);
    let offered = tokio::task::spawn_blocking(move || {
        let mut line = old.knocked();
        line.greeted();
        line.offer(SOCKETS);
        for some in sockets.chunks(64) {
            let descriptors: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            line.sockets(&vec![("http", at); some.len()], &descriptors);
        }
        assert_eq!(line.hear()["message"], "ready");
        line.say(r#"{"message":"released"}"#);
    });
    let words = ["--http", &at.to_string(), "--run", &run, "--upgrade", "--workers", "2"];
    let edge = Edge::with(folder, &words).await;
    offered.await.unwrap();
    all_answered(visitors).await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
}
