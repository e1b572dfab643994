//! More connections than the process may have files: told once a second, without a spin, and over when they close.

#![expect(clippy::disallowed_methods, reason = "a process is watched in real time, outside of any runtime")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::program::{Program, Traces, wait_for};

/// Descriptors that are left for visitors.
const LEFT: usize = 30;
/// Visitors on each listener.
const VISITORS: usize = 40;
/// Seconds that the program is watched for, at least.
const WATCHED: u64 = 4;
/// An answer comes within this time, or has been lost.
const WITHIN: Duration = Duration::from_secs(60);

/// The processor time that a process has used.
fn used(id: u32) -> Duration {
    // The fields behind the name, which may have spaces: state is the third of all, utime and stime are 14 and 15 (proc(5)).
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("this is Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("its end").split_whitespace().collect();
    let ticks = |at: usize| fields[at - 3].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(14) + ticks(15)) * 10)
}

fn limit(id: u32, files: usize) {
    let limit = format!("--nofile={files}:");
    let set = Command::new("prlimit").args(["--pid", &id.to_string(), &limit]).status().expect("prlimit runs");
    assert!(set.success());
}

fn visitor(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("the queue takes it");
    stream.set_read_timeout(Some(WITHIN)).expect("a limit");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n").expect("it is open");
    stream
}

fn is_answered(mut stream: TcpStream) -> bool {
    let mut status = [0; 12];
    stream.read_exact(&mut status).is_ok() && &status == b"HTTP/1.1 404"
}

mod docker {
    use super::*;

    #[test]
    fn p40_a_lack_of_descriptors_is_logged_without_a_spin_and_passes_when_connections_close() {
        let folder = tempfile::tempdir().expect("a folder");
        let _traces = Traces(folder.path());
        let program = Program::start(folder.path(), &["--workers", "2"]);
        let open = std::fs::read_dir(format!("/proc/{}/fd", program.id())).expect("this is Linux").count();
        limit(program.id(), open + LEFT);
        let refusals = || program.said().iter().filter(|line| line.contains("could not be accepted")).count();
        assert_eq!(refusals(), 0);

        let all = ["http", "https", "api", "admin"].map(|listener| program.address(listener));
        let visitors: Vec<_> = all.iter().flat_map(|at| (0..VISITORS).map(|_| visitor(*at))).collect();
        wait_for(|| refusals() > 0);
        let (began, before, told) = (Instant::now(), used(program.id()), refusals());
        wait_for(|| began.elapsed() >= Duration::from_secs(WATCHED) && refusals() > told + 1);
        let (took, more, lines) = (began.elapsed(), used(program.id()) - before, refusals() - told);
        assert!(more < took / 4, "it used {more:?} of {took:?}");
        assert!(lines as u64 <= took.as_secs() + 2, "{lines} lines in {took:?}");
        assert!(program.said().iter().any(|line| line.contains("Too many open files")), "it says why");

        drop(visitors);
        for listener in ["http", "api", "admin"] {
            assert!(is_answered(visitor(program.address(listener))), "{listener} answers again");
        }
    }
}
