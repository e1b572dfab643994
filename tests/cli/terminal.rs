//! A password that is asked for at a terminal: not shown, and the terminal is as it was whatever ends the command.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use tokio::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal at which the program asks for a password, of an API at this address.
struct Asked {
    terminal: File,
    child: Child,
    told: std::process::ChildStderr,
}

impl Asked {
    fn by(api: &str) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let no_controlling = i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).unwrap();
        let stdin = OpenOptions::new().read(true).write(true).custom_flags(no_controlling).open(name).unwrap();
        let mut command = program();
        command.args(["environment", "set", "hello", "--password", "ann", "--api", api, "--token", "secret"]);
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let told = child.stderr.take().unwrap();
        Self { terminal: terminal.into(), child, told }
    }

    fn shows(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Until it asks with these words, and what is typed is not shown.
    fn asks(&mut self, words: &str) {
        let mut told = Vec::new();
        while !String::from_utf8_lossy(&told).contains(words) {
            let mut byte = [0];
            self.told.read_exact(&mut byte).unwrap();
            told.push(byte[0]);
        }
        let until = Instant::now() + PATIENCE;
        while self.shows() {
            assert!(Instant::now() < until, "what is typed is not hidden");
            std::thread::yield_now();
        }
    }

    fn types(&mut self, words: &str) {
        self.terminal.write_all(words.as_bytes()).unwrap();
    }

    fn gets(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit code, once it has ended.
    fn ends(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it does not end");
            std::thread::yield_now();
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_password_at_a_terminal_is_hidden_and_asked_for_twice() {
    for (again, expected) in [("open sesame\n", 0), ("open sesane\n", 65)] {
        let stub = Stub::json(&app()["environments"][0]);
        let mut asked = Asked::by(&stub.url);
        asked.asks("password of ann: ");
        asked.types("open sesame\n");
        asked.asks("the same again: ");
        asked.types(again);
        assert_eq!(asked.ends(), Some(expected));
        assert!(asked.shows());
        assert_eq!(stub.asked.lock().unwrap().len(), usize::from(expected == 0));
    }
}

#[test]
fn who_ends_the_command_while_it_asks_gets_the_terminal_back_as_it_was() {
    let stub = Stub::json(&app()["environments"][0]);
    for (signal, expected) in [(Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)] {
        let mut asked = Asked::by(&stub.url);
        asked.asks("password of ann: ");
        asked.types("open");
        asked.gets(signal);
        assert_eq!(asked.ends(), Some(expected), "{signal:?}");
        assert!(asked.shows(), "{signal:?}");
    }
    assert!(stub.asked.lock().unwrap().is_empty(), "nothing was changed");
}

#[test]
fn the_command_can_be_ended_while_it_waits_for_the_answer_too() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut asked = Asked::by(&format!("http://{}", silent.local_addr().unwrap()));
    for words in ["password of ann: ", "the same again: "] {
        asked.asks(words);
        asked.types("open sesame\n");
    }
    let _connection = silent.accept().unwrap();
    asked.gets(Signal::INT);
    assert_eq!(asked.ends(), Some(130));
    assert!(asked.shows());
}
