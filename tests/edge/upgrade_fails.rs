//! An upgrade that fails, whichever way, leaves the old process serving, and both say why.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use crate::program::{Edge, Origin, command, folder, origin, refused, replace, soon};
use crate::upgrade::run;

const ANY: &str = "127.0.0.1:0";

async fn edge(words: &[&str]) -> (Edge, Origin, String) {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let edge = Edge::with(folder, &[&["--http", ANY, "--run", &run], words].concat()).await;
    (edge, one, run)
}

/// That it serves, and can be replaced after all.
async fn goes_on(mut edge: Edge, run: &str) {
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    let next = edge.another(&["--http", ANY, "--run", run, "--upgrade"]).await;
    assert!(edge.ended().await.success());
    assert_eq!(next.get("a.example").await, Ok("one".to_owned()));
    assert_eq!(next.address("http"), edge.address("http"));
}

#[tokio::test]
async fn a_bad_table_or_address_is_told_by_both() {
    let (mut edge, _one, run) = edge(&[]).await;
    let bad = TempDir::new().unwrap();
    replace(&bad.path().join("table.json"), "{\"routes\": 7}");
    let (code, said) = refused(bad.path(), &["--run", &run, "--upgrade"]).await;
    assert!(code == 78 && said.contains("cannot serve these files") && said.contains("table.json"), "{code} {said}");
    let line = edge.says("not replaced; this process goes on serving").await;
    assert!(line.contains("cannot serve these files") && line.contains("table.json"), "{line}");
    let taken = std::net::TcpListener::bind(ANY).unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let (code, said) = refused(edge.folder(), &["--http", &at, "--run", &run, "--upgrade"]).await;
    assert!(code == 69 && said.contains("cannot listen for http"), "{code} {said}");
    edge.says("cannot listen for http").await;
    goes_on(edge, &run).await;
}

#[tokio::test]
async fn one_that_hangs_has_its_time_and_one_that_is_killed_has_none() {
    let (mut edge, _one, run) = edge(&["--upgrade-within", "2s"]).await;
    let hanging = TempDir::new().unwrap();
    // Whoever opens it waits until somebody writes.
    let made = Command::new("mkfifo").arg(hanging.path().join("table.json")).status().await.unwrap();
    assert!(made.success());
    let start = || command(hanging.path(), &["--run", &run, "--upgrade"]).stdout(Stdio::null()).spawn().unwrap();
    let _hangs = start();
    edge.says("it did not answer in time").await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    let mut killed = start();
    edge.says(&format!("serve in place of this one pid={}", killed.id().unwrap())).await;
    killed.kill().await.unwrap();
    edge.says("the other process is gone").await;
    goes_on(edge, &run).await;
}

#[tokio::test]
async fn one_that_ends_in_the_midst_of_the_hand_over_or_talks_nonsense_changes_nothing() {
    let (edge, _one, run) = edge(&["--upgrade-within", "1s"]).await;
    let mut said = tokio::task::spawn_blocking({
        let run = run.clone();
        move || {
            let knock = || double::Line::knock(&run);
            let mut said = Vec::new();
            // Gone before its first word, in it, after it, and in the midst of what it was sent.
            drop(knock());
            knock().bytes(b"\0\0");
            knock().say(r#"{"message":"hello","version":1}"#);
            let mut line = knock();
            line.say(r#"{"message":"hello","version":1}"#);
            line.some(3);
            drop(line);
            let mut line = knock();
            line.say(r#"{"message":"hello","version":1}"#);
            assert_eq!(line.hear()["message"], "offer");
            assert_eq!(line.hear()["message"], "sockets");
            line.say(r#"{"message":"failed","why":"of a whim"}"#);
            for nonsense in [r#"{"message":"hello","version":99}"#, r#"{"message":"ready"}"#, "{", "[]", "hello"] {
                let mut line = knock();
                line.say(nonsense);
                said.push(line.hear()["why"].to_string());
            }
            let mut line = knock();
            line.bytes(&[0xff; 8]);
            said.push(line.hear()["why"].to_string());
            said
        }
    });
    let said = soon("the doubles", &mut said).await.unwrap();
    assert!(said[0].contains("version 99") && said[1].contains("no greeting"), "{said:?}");
    assert!(said[2..5].iter().all(|why| why.contains("understand")), "{said:?}");
    assert!(said[5].contains("4294967295 bytes"), "{said:?}");
    goes_on(edge, &run).await;
}

#[tokio::test]
async fn a_predecessor_that_ends_or_lies_is_told_and_one_that_ends_last_leaves_its_sockets() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    for (lie, words) in [
        (r#"{"message":"refused","why":"of a whim"}"#, "it refuses: of a whim"),
        (r#"{"message":"offer","sockets":5000}"#, "too many sockets"),
        (r#"{"message":"ready"}"#, "no offer"),
    ] {
        let old = double::Old::open(&run);
        let lying = tokio::task::spawn_blocking(move || {
            let mut line = old.knocked();
            line.greeted();
            line.say(lie);
            line.rest();
        });
        let (code, said) = refused(folder.path(), &["--run", &run, "--upgrade"]).await;
        assert!(code == 69 && said.contains(words), "{code} {said}");
        lying.await.unwrap();
    }
    // A descriptor that is none of a listening socket.
    let old = double::Old::open(&run);
    let lying = tokio::task::spawn_blocking(move || {
        let mut line = old.knocked();
        line.greeted();
        line.offer(1);
        let file = fs::File::open("/dev/null").unwrap();
        line.sockets(&[("http", ([127, 0, 0, 1], 80).into())], &[std::os::fd::AsFd::as_fd(&file)]);
        line.rest();
    });
    let (code, said) = refused(folder.path(), &["--run", &run, "--upgrade"]).await;
    assert!(code == 69 && said.contains("a descriptor that cannot be used"), "{code} {said}");
    lying.await.unwrap();
    // Fewer descriptors than it describes.
    let listener = std::net::TcpListener::bind(ANY).unwrap();
    let at = listener.local_addr().unwrap();
    let old = double::Old::open(&run);
    let lying = tokio::task::spawn_blocking(move || {
        let mut line = old.knocked();
        line.greeted();
        line.offer(2);
        line.sockets(&[("http", at), ("http", at)], &[std::os::fd::AsFd::as_fd(&listener)]);
        line.rest();
    });
    let (code, said) = refused(folder.path(), &["--run", &run, "--upgrade"]).await;
    assert!(code == 69 && said.contains("described 2 sockets and sent 1"), "{code} {said}");
    lying.await.unwrap();
    // More secrets than anybody has.
    let old = double::Old::open(&run);
    let lying = tokio::task::spawn_blocking(move || {
        let mut line = old.knocked();
        line.greeted();
        let secrets = vec![serde_json::json!({"name": "ticket-key/https", "value": [1]}); 65];
        line.say(&serde_json::json!({"message": "offer", "sockets": 1, "secrets": secrets}).to_string());
        line.rest();
    });
    let (code, said) = refused(folder.path(), &["--run", &run, "--upgrade"]).await;
    assert!(code == 69 && said.contains("too many secrets"), "{code} {said}");
    lying.await.unwrap();
    // Killed when the other was ready: nobody else is left to serve.
    let listener = std::net::TcpListener::bind(ANY).unwrap();
    let at = listener.local_addr().unwrap();
    let old = double::Old::open(&run);
    let dying = tokio::task::spawn_blocking(move || {
        let mut line = old.knocked();
        line.greeted();
        line.offer(1);
        line.sockets(&[("http", at)], &[std::os::fd::AsFd::as_fd(&listener)]);
        assert_eq!(line.hear()["message"], "ready");
    });
    let mut edge = Edge::with(folder, &["--http", &at.to_string(), "--run", &run, "--upgrade"]).await;
    dying.await.unwrap();
    edge.says("ended while it handed over").await;
    // The double is a process that goes on.
    edge.says("still runs; this one takes its files all the same").await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
}

#[tokio::test]
async fn one_that_is_ready_and_gone_before_it_is_released_changes_nothing() {
    let (mut edge, _one, run) = edge(&[]).await;
    let asked = tokio::task::spawn_blocking(move || {
        let mut line = double::Line::knock(&run);
        line.say(r#"{"message":"hello","version":1}"#);
        assert_eq!(line.hear()["message"], "offer");
        assert_eq!(line.hear()["message"], "sockets");
        (line, run)
    });
    let (mut line, run) = soon("the offer", asked).await.unwrap();
    // It does not run until the last word was said and the line is gone.
    edge.signal("STOP").await;
    let stands = || fs::read_to_string(format!("/proc/{}/stat", edge.id())).unwrap().contains(") T ");
    soon("it to stand still", async {
        while !stands() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    line.say(r#"{"message":"ready"}"#);
    drop(line);
    edge.signal("CONT").await;
    edge.says("the other process is gone").await;
    goes_on(edge, &run).await;
}

#[tokio::test]
async fn one_that_says_nothing_is_given_up_by_either_side() {
    let (mut edge, one, run_of_edge) = edge(&[]).await;
    let silent = tokio::task::spawn_blocking({
        let run = run_of_edge.clone();
        move || {
            let mut line = double::Line::knock(&run);
            line.hear()["why"].to_string()
        }
    });
    let other = folder(&[("a.example", &one)]);
    let run = run(&other);
    let old = double::Old::open(&run);
    let keeps = tokio::task::spawn_blocking(move || {
        let mut line = old.knocked();
        line.greeted();
        line.rest();
    });
    let (code, said) = refused(other.path(), &["--http", ANY, "--run", &run, "--upgrade"]).await;
    assert!(code == 69 && said.contains("it did not answer in time"), "{code} {said}");
    keeps.await.unwrap();
    assert!(soon("its word", silent).await.unwrap().contains("did not answer in time"));
    edge.says("it did not answer in time").await;
    goes_on(edge, &run_of_edge).await;
}

#[tokio::test]
async fn one_that_may_not_have_so_many_descriptors_is_told_so() {
    let (mut edge, _one, run) = edge(&[]).await;
    let mut few = Command::new("bash");
    few.args(["-c", "ulimit -n 40; exec \"$@\"", "few", crate::program::PROGRAM, "edge", "--table"]);
    few.arg(edge.path("table.json")).args(["--http", ANY, "--run", &run, "--upgrade"]).kill_on_drop(true);
    let output = soon("its refusal", few.output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(69) && said.contains("this process may not have more"), "{said}");
    edge.says("this process may not have more").await;
    goes_on(edge, &run).await;
}

/// An edge whose program's file is its folder's own.
async fn replaceable(within: &str) -> (Edge, Origin, String) {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let (run, program) = (run(&folder), folder.path().join("dormouse"));
    fs::copy(crate::program::PROGRAM, &program).unwrap();
    let mut start = Command::new(&program);
    start.args(["edge", "--http", ANY, "--run", &run, "--upgrade-within", within, "--table"]);
    start.arg(folder.path().join("table.json")).kill_on_drop(true);
    (Edge::spawn(folder.into(), start).await, one, run)
}

/// Puts something else in its place, as an installation that goes wrong may do.
fn replace_program(edge: &Edge, script: &str) {
    let beside = edge.path("beside");
    fs::write(&beside, script).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&beside, edge.path("dormouse")).unwrap();
}

const HANGS: &str = "#!/bin/sh\necho hangs $$ >&2\nexec sleep 1000\n";

/// Its successor's entry in /proc, once that hangs.
async fn hangs(edge: &mut Edge) -> std::path::PathBuf {
    let line = edge.says("hangs ").await;
    format!("/proc/{}", line.strip_prefix("hangs ").unwrap().trim()).into()
}

#[tokio::test]
async fn a_successor_that_never_asks_is_given_up_and_ended() {
    let (mut edge, _one, run) = replaceable("1s").await;
    replace_program(&edge, "#!/bin/sh\nexit 3\n");
    edge.signal("QUIT").await;
    edge.says("ended before it asked for the sockets (exit status: 3)").await;
    replace_program(&edge, HANGS);
    edge.signal("QUIT").await;
    let hangs = hangs(&mut edge).await;
    edge.says("the successor did not ask for the sockets in time").await;
    assert!(!hangs.exists(), "it was ended");
    goes_on(edge, &run).await;
}

#[tokio::test]
async fn told_to_end_it_does_not_wait_for_a_successor_to_ask() {
    let (mut edge, _one, _run) = replaceable("1h").await;
    replace_program(&edge, HANGS);
    edge.signal("QUIT").await;
    let hangs = hangs(&mut edge).await;
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
    assert!(!hangs.exists(), "it was ended, too");
}

#[tokio::test]
async fn told_to_end_in_the_midst_of_a_hand_over_it_says_so_and_the_successor_does_not_take_over() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let (run, path) = (run(&folder), folder.path().join("http.sock"));
    let mut old = Edge::with(folder, &["--http", &format!("unix:{}", path.display()), "--run", &run]).await;
    let (offered, taken) = tokio::sync::oneshot::channel();
    let successor = tokio::task::spawn_blocking(move || {
        let mut line = double::Line::knock(&run);
        line.say(r#"{"message":"hello","version":1}"#);
        assert_eq!(line.hear()["message"], "offer");
        assert_eq!(line.hear()["message"], "sockets");
        offered.send(()).unwrap();
        line.hear()
    });
    soon("the offer", taken).await.unwrap();
    old.signal("TERM").await;
    let heard = soon("its word", successor).await.unwrap();
    assert_eq!(heard["message"], "refused", "{heard}");
    assert!(heard["why"].to_string().contains("told to end"), "{heard}");
    assert!(old.ended().await.success());
    assert!(!path.exists());
}

#[tokio::test]
async fn told_to_end_it_takes_along_the_successor_that_it_started() {
    let folder = folder(&[]);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    crate::files::issue(folder.path(), "own", &["a.example"]);
    let (run, chain, key, clients) = (run(&folder), path("own.pem"), path("own.key"), path("clients.pem"));
    fs::copy(&chain, &clients).unwrap();
    let words = ["--https", ANY, "--cert", &chain, "--key", &key, "--client-ca", &clients, "--run", &run];
    let mut edge = Edge::with(folder, &words).await;
    // Read at a start alone; and whoever opens it waits until somebody writes.
    fs::remove_file(&clients).unwrap();
    assert!(Command::new("mkfifo").arg(&clients).status().await.unwrap().success());
    edge.signal("QUIT").await;
    edge.says("serve in place of this one").await;
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
    // The last one that holds its output: the successor hangs, and is ended with this one.
    assert_eq!(edge.line().await, "");
}

#[tokio::test]
async fn told_to_end_while_it_asks_for_the_sockets_a_successor_ends() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let run = run(&folder);
    let old = double::Old::open(&run);
    let (asked, heard) = tokio::sync::oneshot::channel();
    let silent = tokio::task::spawn_blocking(move || {
        let mut line = old.knocked();
        line.greeted();
        asked.send(()).unwrap();
        line.rest();
    });
    let mut new = command(folder.path(), &["--http", ANY, "--run", &run, "--upgrade"]).spawn().unwrap();
    soon("its greeting", heard).await.unwrap();
    let told = tokio::time::Instant::now();
    crate::program::signal(new.id().unwrap(), "TERM").await;
    assert!(soon("its end", new.wait()).await.unwrap().success(), "it was told to end, and does; this is no failure");
    assert!(told.elapsed() < std::time::Duration::from_secs(9), "before the other one is late with its answer");
    silent.await.unwrap();
}

#[tokio::test]
async fn a_successor_that_it_starts_itself_and_that_fails_changes_nothing() {
    let (mut edge, _one, run) = edge(&[]).await;
    edge.signal("STOP").await;
    fs::rename(edge.path("table.json"), edge.path("good")).unwrap();
    edge.signal("QUIT").await;
    edge.signal("CONT").await;
    let line = edge.says("not replaced; this process goes on serving").await;
    assert!(line.contains("cannot serve these files"), "{line}");
    edge.says("error: cannot serve these files").await;
    fs::rename(edge.path("good"), edge.path("table.json")).unwrap();
    goes_on(edge, &run).await;
}

#[tokio::test]
async fn the_folder_is_of_one_user_and_of_one_edge() {
    let (edge, _one, run) = edge(&[]).await;
    let (code, said) = refused(edge.folder(), &["--http", ANY, "--run", &run]).await;
    assert!(code == 75 && said.contains("--upgrade"), "{code} {said}");
    let open = TempDir::new().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for more in [&["--http", ANY][..], &["--upgrade"]] {
        let (code, said) = refused(edge.folder(), &[&["--run", open.path().to_str().unwrap()], more].concat()).await;
        assert!(code == 78 && said.contains("no folder of this user alone"), "{code} {said}");
    }
    let empty = TempDir::new().unwrap();
    fs::set_permissions(empty.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (code, said) = refused(edge.folder(), &["--run", empty.path().to_str().unwrap(), "--upgrade"]).await;
    assert!(code == 69 && said.contains("no edge runs with the folder"), "{code} {said}");
    let (code, said) = refused(edge.folder(), &["--upgrade"]).await;
    assert!(code == 64 && said.contains("--run"), "{code} {said}");
    assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
    goes_on(edge, &run).await;
}

#[tokio::test]
async fn another_user_gets_nothing() {
    const NOBODY: u32 = 65534;
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    // Only root can run a process as somebody else, and get into a folder of theirs.
    if chown(folder.path(), Some(NOBODY), None).is_err() {
        return println!("not tried: this needs root");
    }
    let run = run(&folder);
    let program = folder.path().join("dormouse");
    fs::copy(crate::program::PROGRAM, &program).unwrap();
    let mut start = Command::new(program);
    start.args(["edge", "--http", ANY, "--run", &run, "--table"]).arg(folder.path().join("table.json"));
    start.uid(NOBODY).kill_on_drop(true);
    let mut edge = Edge::spawn(folder.into(), start).await;
    let (code, said) = refused(edge.folder(), &["--run", &run, "--upgrade"]).await;
    assert!(code == 78 && said.contains("no folder of this user alone"), "{code} {said}");
    let why = tokio::task::spawn_blocking(move || {
        let mut line = double::Line::knock(&run);
        line.hear()["why"].to_string()
    });
    assert!(soon("its word", why).await.unwrap().contains("it runs as user 0"));
    edge.says("it runs as user 0").await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
}

/// Both ends of the conversation as a test speaks them, byte by byte.
pub(crate) mod double {
    use std::fs;
    use std::io::{IoSlice, Read, Write};
    use std::mem::MaybeUninit;
    use std::net::SocketAddr;
    use std::os::fd::BorrowedFd;
    use std::os::unix::fs::DirBuilderExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use serde_json::{Value, json};

    use crate::program::PATIENCE;

    /// An edge that serves, as far as its successor sees.
    pub(crate) struct Old(UnixListener);

    impl Old {
        pub(crate) fn open(run: &str) -> Self {
            let path = Path::new(run).join("edge.sock");
            let _ = fs::DirBuilder::new().mode(0o700).create(run);
            let _ = fs::remove_file(&path);
            Self(UnixListener::bind(path).unwrap())
        }

        pub(crate) fn knocked(&self) -> Line {
            Line::over(self.0.accept().unwrap().0)
        }
    }

    pub(crate) struct Line(UnixStream);

    impl Line {
        fn over(stream: UnixStream) -> Self {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Self(stream)
        }

        pub(crate) fn knock(run: &str) -> Self {
            Self::over(UnixStream::connect(Path::new(run).join("edge.sock")).unwrap())
        }

        pub(crate) fn bytes(&mut self, bytes: &[u8]) {
            self.0.write_all(bytes).unwrap();
        }

        pub(crate) fn say(&mut self, text: &str) {
            self.bytes(&u32::try_from(text.len()).unwrap().to_be_bytes());
            self.bytes(text.as_bytes());
        }

        /// Descriptors that come along are closed by the kernel.
        pub(crate) fn hear(&mut self) -> Value {
            let length = u32::from_be_bytes(self.some(4).try_into().unwrap());
            serde_json::from_slice(&self.some(length as usize)).unwrap()
        }

        pub(crate) fn some(&mut self, count: usize) -> Vec<u8> {
            let mut bytes = vec![0; count];
            self.0.read_exact(&mut bytes).unwrap();
            bytes
        }

        /// Until the other one is gone.
        pub(crate) fn rest(&mut self) {
            let _ = self.0.read_to_end(&mut Vec::new());
        }

        pub(crate) fn greeted(&mut self) {
            assert_eq!(self.hear(), json!({"message": "hello", "version": 1}));
        }

        pub(crate) fn offer(&mut self, sockets: usize) {
            self.say(&json!({"message": "offer", "sockets": sockets}).to_string());
        }

        pub(crate) fn sockets(&mut self, described: &[(&str, SocketAddr)], sockets: &[BorrowedFd<'_>]) {
            let described = described.iter();
            let described = described.map(|(listener, at)| json!({"listener": listener, "address": at, "kind": "tcp"}));
            let text = json!({"message": "sockets", "sockets": described.collect::<Vec<_>>()}).to_string();
            let bytes = [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
            let mut along = SendAncillaryBuffer::new(&mut space);
            assert!(along.push(SendAncillaryMessage::ScmRights(sockets)));
            let sent = sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut along, SendFlags::empty()).unwrap();
            assert_eq!(sent, bytes.len());
        }
    }
}
