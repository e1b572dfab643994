//! Pushing and fetching with the real git client.

#[path = "git/world.rs"]
mod world;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use dormouse_control::git::{Branch, Limits};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use world::{DEADLINE, TOKEN, Tree, UNKNOWABLE, World, until, words};

const AUTHORISED: &str = "Authorization: Bearer a-good-token\r\n";

fn develop() -> Branch {
    "develop".parse().expect("a branch")
}

/// One request, and the whole of its response.
async fn http(world: &World, head: &str, body: &[u8]) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", world.port)).await.expect("connect");
    let length = body.len();
    let head = format!("{head}Host: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("write");
    socket.write_all(body).await.expect("write");
    let mut response = Vec::new();
    timeout(DEADLINE, socket.read_to_end(&mut response)).await.expect("an answer in time").expect("read");
    String::from_utf8_lossy(&response).into_owned()
}

/// A push as a client without side bands would send it: command, flush, pack.
async fn plain_push(tree: &Tree, reference: &str) -> Vec<u8> {
    let commit = tree.ok(&["rev-parse", "HEAD"]).await;
    let command = format!("{} {commit} {reference}\0 report-status\n", "0".repeat(40));
    let mut body = format!("{:04x}{command}0000", command.len() + 4).into_bytes();
    let pack = tree.git(&["pack-objects", "--all", "--stdout", "--quiet"]).output().await.expect("git runs");
    body.extend(pack.stdout);
    body
}

#[tokio::test]
async fn an_empty_repository_can_be_cloned_and_is_on_its_branch() {
    let world = World::new().await;
    let tree = Tree(world.folder.path().to_owned());
    tree.ok(&["clone", "--quiet", &world.url("hello"), "clone"]).await;
    let clone = Tree(world.folder.path().join("clone"));
    assert_eq!(clone.ok(&["symbolic-ref", "HEAD"]).await, "refs/heads/develop");
}

#[tokio::test]
async fn a_push_shows_our_lines_while_they_are_made_and_in_order() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let script = world.script();
    let mut client = tree.start(&["push", &world.url("hello"), "develop"]);
    let mut seen = BufReader::new(client.stderr.take().expect("a pipe")).lines();
    let mut shown = Vec::new();
    for line in ["Step 1/1 : FROM scratch", "swapped", "succeeded: \x1b[32mhello\x1b[0m is deployed"] {
        script.send(line.to_owned()).await.expect("the client listens");
        let next = timeout(DEADLINE, seen.next_line()).await.expect("a line in time").expect("read");
        shown.push(next.expect("a line").trim_end().to_owned());
    }
    assert_eq!(
        shown,
        ["remote: Step 1/1 : FROM scratch", "remote: swapped", "remote: succeeded: hello is deployed"],
        "each was shown before the next was made"
    );
    drop(script);
    assert!(timeout(DEADLINE, client.wait()).await.expect("in time").expect("a status").success());
    assert_eq!(world.pushes(), [["refs/heads/develop"]]);
    let repository = world.app("hello").await;
    let head = repository.head(&develop()).await.expect("git runs").expect("a commit");
    assert_eq!(head.as_str(), tree.ok(&["rev-parse", "HEAD"]).await);
}

#[tokio::test]
async fn a_push_that_changes_nothing_is_nobodys_business() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    tree.ok(&["push", &world.url("hello"), "develop"]).await;
    let again = tree.run(&["push", &world.url("hello"), "develop"]).await;
    assert!(words(&again).contains("Everything up-to-date"), "{}", words(&again));
    assert_eq!(world.pushes().len(), 1);
}

#[tokio::test]
async fn history_may_be_rewritten_but_a_branch_not_deleted() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    tree.ok(&["push", &world.url("hello"), "develop"]).await;
    tree.ok(&["commit", "--quiet", "--amend", "--message", "again"]).await;
    assert!(tree.fails(&["push", &world.url("hello"), "develop"]).await.contains("rejected"));
    tree.ok(&["push", "--force", &world.url("hello"), "develop"]).await;
    let refused = tree.fails(&["push", &world.url("hello"), ":develop"]).await;
    assert!(refused.contains("deletion prohibited"), "{refused}");
    assert_eq!(world.pushes().len(), 2);
    let head = world.app("hello").await.head(&develop()).await.expect("git runs").expect("a commit");
    assert_eq!(head.as_str(), tree.ok(&["rev-parse", "HEAD"]).await);
}

#[tokio::test]
async fn other_branches_and_tags_are_taken_and_told() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    tree.ok(&["tag", "--annotate", "--message", "one", "v1"]).await;
    tree.ok(&["push", &world.url("hello"), "develop:feature/a", "v1"]).await;
    assert_eq!(world.pushes(), [["refs/heads/feature/a", "refs/tags/v1"]]);
    let repository = world.app("hello").await;
    assert_eq!(repository.head(&develop()).await.expect("git runs"), None);
    assert!(repository.head(&"feature/a".parse().expect("a branch")).await.expect("git runs").is_some());
    let refused = tree.fails(&["push", &world.url("hello"), "develop:refs/replace/x"]).await;
    assert!(refused.contains("deny updating a hidden ref"), "{refused}");
}

#[tokio::test]
async fn without_the_right_token_nothing_is_pushed_and_the_reason_is_said() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let wrong = world.url("hello").replace(TOKEN, "wrong");
    let refused = tree.fails(&["push", &wrong, "develop"]).await;
    assert!(refused.contains("Authentication failed") && refused.contains("token is wrong"), "{refused}");
    let none = world.url("hello").replace(&format!("me:{TOKEN}@"), "");
    tree.fails(&["push", &none, "develop"]).await;
    let refused = http(&world, "GET /git/hello.git/info/refs?service=git-receive-pack HTTP/1.1\r\n", b"").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert!(refused.contains("www-authenticate: Basic realm=\"dormouse\"") && refused.contains("a token is needed"));
    assert_eq!((world.lookups(), world.pushes().len()), (0, 0));
}

#[tokio::test]
async fn an_unknown_application_is_said_with_what_to_do() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let refused = tree.fails(&["push", &world.url("hullo"), "develop"]).await;
    assert!(refused.contains("remote: there is no application hullo"), "{refused}");
    assert!(refused.contains("dormouse app create hullo"), "{refused}");
}

#[tokio::test]
async fn an_application_that_cannot_be_looked_up_is_not_said_to_be_missing() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let refused = tree.fails(&["push", &world.url(UNKNOWABLE), "develop"]).await;
    assert!(refused.contains("could not be read") && refused.contains("500"), "{refused}");
    assert!(!refused.contains("no application"), "{refused}");
}

#[tokio::test]
async fn c02_hostile_paths_are_not_found_and_reach_no_program() {
    let world = World::new().await;
    let outside = world.folder.path().join("outside.git");
    std::fs::rename(world.repository("hello"), outside).expect("move");
    for name in ["..", "%2e%2e", "a/../hello", "../outside", "-x", "--upload-pack=id", "Hello", "hello%00", "%68ello"] {
        for path in [format!("/git/{name}.git"), format!("/git/{name}")] {
            let head = format!("GET {path}/info/refs?service=git-upload-pack HTTP/1.1\r\n{AUTHORISED}");
            assert!(http(&world, &head, b"").await.starts_with("HTTP/1.1 404"), "{head}");
        }
    }
    for path in ["/git", "/git/", "/git/hello.git", "/git/hello.git/HEAD", "/git/hello.git/objects/../config"] {
        let answer = http(&world, &format!("GET {path} HTTP/1.1\r\n{AUTHORISED}"), b"").await;
        assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("/git/NAME.git"), "{answer}");
    }
    assert_eq!(world.lookups(), 0);
}

#[tokio::test]
async fn a_large_push_goes_through_in_pieces() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    // Git cannot shrink it, and sends what is over 1 MiB in chunks, after a probe of four bytes.
    let mut noise = vec![0; 8 << 20];
    let mut state = 1_u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    tree.commit("noise", &noise).await;
    let output = tree.run(&["push", &world.url("hello"), "develop"]).await;
    assert!(output.status.success() && words(&output).contains("hello is deployed"), "{}", words(&output));
    tree.ok(&["clone", "--quiet", &world.url("hello"), "clone"]).await;
    assert!(std::fs::read(tree.0.join("clone/noise")).expect("the file") == noise);
}

/// Refused with these words, and all is as before: the objects, the refs, and the way for the next push.
async fn refused(world: &World, tree: &Tree, refs: &[&str], told: &str) {
    let repository = world.app("hello").await;
    let before = repository.refs().await.expect("git runs");
    let (pushes, files) = (world.pushes().len(), files_in(&world.repository("hello")));
    let url = world.url("hello");
    let said = tree.fails(&[&["push", &url][..], refs].concat()).await;
    assert!(said.contains("remote: Refused: ") && said.contains(told), "{said}");
    assert!(said.contains("[remote rejected]") && !said.contains("hung up"), "{said}");
    assert_eq!(repository.refs().await.expect("git runs"), before);
    assert_eq!(world.pushes().len(), pushes);
    assert_eq!(files_in(&world.repository("hello")), files);
}

/// Every file of a repository.
fn files_in(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { all.extend(files_in(&entry)) } else { all.push(entry) }
    }
    all.sort();
    all
}

/// What the next developer pushes is taken.
async fn takes(world: &World, tree: &Tree) {
    tree.ok(&["push", "--force", &world.url("hello"), "develop"]).await;
}

#[tokio::test]
async fn c03_a_push_that_sends_too_much_is_refused_and_the_next_is_taken() {
    let world = World::with(Limits { push_max_bytes: 10_000, ..Limits::default() }).await;
    let (good, bad) = (world.tree("good").await, world.tree("bad").await);
    let noise: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    bad.commit("noise", &noise).await;
    refused(&world, &bad, &["develop"], "sends more than 10000 bytes").await;
    takes(&world, &good).await;
    refused(&world, &bad, &["--force", "develop"], "push too large").await;
}

#[tokio::test]
async fn c03_a_pack_that_unfolds_to_much_more_is_refused_and_the_next_is_taken() {
    let limits = Limits { unpacked_max_bytes: 5 << 20, object_max_bytes: 2 << 20, ..Limits::default() };
    let world = World::with(limits).await;
    let (good, bad) = (world.tree("good").await, world.tree("bad").await);
    bad.commit("zeros", &vec![0; 3 << 20]).await;
    refused(&world, &bad, &["develop"], "has a file larger than 2 MiB").await;
    let many = world.tree("many").await;
    for number in 0..6_u8 {
        many.commit(&format!("zeros {number}"), &vec![number; 1 << 20]).await;
    }
    refused(&world, &many, &["develop"], "larger than 5 MiB when it is unpacked").await;
    takes(&world, &good).await;
}

#[tokio::test]
async fn c03_a_push_of_too_many_objects_is_refused_and_the_next_is_taken() {
    let world = World::with(Limits { objects_max: 20, ..Limits::default() }).await;
    let (good, bad) = (world.tree("good").await, world.tree("bad").await);
    for number in 0..10 {
        bad.commit(&number.to_string(), number.to_string().as_bytes()).await;
    }
    refused(&world, &bad, &["develop"], "more than 20 objects").await;
    takes(&world, &good).await;
}

#[tokio::test]
async fn c03_refs_beyond_the_limits_are_refused_and_the_next_push_is_taken() {
    let world = World::with(Limits { push_max_refs: 3, refs_max: 5, ref_max_bytes: 40, ..Limits::default() }).await;
    let tree = world.tree("work").await;
    let branches = ["develop:a", "develop:b", "develop:c", "develop:d"];
    refused(&world, &tree, &branches, "more than 3 branches and tags").await;
    let long = format!("develop:{}", "x".repeat(41));
    refused(&world, &tree, &[&long], "more than 40 bytes").await;
    for taken in [&branches[..3], &["develop:d"]] {
        tree.ok(&[&["push", &world.url("hello")][..], taken].concat()).await;
    }
    refused(&world, &tree, &["develop:e", "develop:f"], "would have more than 5").await;
    takes(&world, &tree).await;
    tree.commit("more", b"x").await;
    takes(&world, &tree).await;
}

#[tokio::test]
async fn a_fetch_that_asks_for_much_is_unpacked() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    for number in 0..60 {
        tree.ok(&["commit", "--quiet", "--allow-empty", "--message", &number.to_string()]).await;
        tree.ok(&["tag", &format!("t{number}")]).await;
    }
    tree.ok(&["push", "--quiet", &world.url("hello"), "develop", "--tags"]).await;
    for version in ["0", "1", "2"] {
        let protocol = format!("protocol.version={version}");
        let clone = ["-c", &protocol, "clone", "--quiet", "--bare", &world.url("hello"), version];
        let trace = tree.git(&clone).env("GIT_CURL_VERBOSE", "1").output().await.expect("git runs");
        assert!(words(&trace).to_lowercase().contains("content-encoding: gzip"), "the client compressed its request");
        let clone = Tree(tree.0.join(version));
        assert_eq!(clone.ok(&["tag"]).await.lines().count(), 60);
    }
}

#[tokio::test]
async fn two_applications_are_pushed_to_at_the_same_time() {
    let world = World::new().await;
    world.app("other").await;
    let (first, second) = (world.tree("first").await, world.tree("second").await);
    let (one, two) = (world.script(), world.script());
    let (to_hello, to_other) = (world.url("hello"), world.url("other"));
    let pushes = async {
        let (arguments, others) = (["push", &to_hello, "develop"], ["push", &to_other, "develop"]);
        tokio::join!(first.ok(&arguments), second.ok(&others))
    };
    let both = async {
        until("both pushes run", || world.pushes().len() == 2).await;
        drop((one, two));
    };
    tokio::join!(pushes, both);
}

#[tokio::test]
async fn a_client_that_is_killed_leaves_its_push_in_force() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let script = world.script();
    let mut client = tree.start(&["push", &world.url("hello"), "develop"]);
    until("the push is told", || world.pushes().len() == 1).await;
    // As Ctrl-C does: the client is three processes, one of which talks to us.
    let group = format!("-{}", client.id().expect("it runs"));
    let killed = Command::new("kill").args(["-KILL", "--", &group]).status().await.expect("kill runs");
    assert!(killed.success());
    client.wait().await.expect("a status");
    timeout(DEADLINE, script.closed()).await.expect("the lines have no reader any more");
    let head = world.app("hello").await.head(&develop()).await.expect("git runs");
    assert_eq!(head.expect("a commit").as_str(), tree.ok(&["rev-parse", "HEAD"]).await);
}

#[tokio::test]
async fn a_client_that_goes_before_the_answer_leaves_all_or_nothing() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let body = plain_push(&tree, "refs/heads/develop").await;
    let head = format!(
        "POST /git/hello.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n{AUTHORISED}Content-Length: {}\r\n\
         Content-Type: application/x-git-receive-pack-request\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(("127.0.0.1", world.port)).await.expect("connect");
    socket.write_all(head.as_bytes()).await.expect("write");
    // The response's head comes when git runs; with all but one byte of the pack git cannot be done yet.
    socket.write_all(&body[..body.len() - 1]).await.expect("write");
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(socket);
    // Git ends by itself, without a deadline's help, and has changed nothing.
    let repository = world.app("hello").await;
    assert_eq!(world.tasks.stop(Duration::from_secs(9)).await, [""; 0]);
    assert_eq!(repository.refs().await.expect("git runs").len(), 0);
    assert_eq!(world.pushes().len(), 0);
}

#[tokio::test]
async fn a_client_without_side_bands_gets_git_s_report_alone() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let body = plain_push(&tree, "refs/heads/develop").await;
    let head = format!(
        "POST /git/hello.git/git-receive-pack HTTP/1.1\r\n{AUTHORISED}\
         Content-Type: application/x-git-receive-pack-request\r\n"
    );
    let answer = http(&world, &head, &body).await;
    assert!(answer.contains("000eunpack ok\n") && answer.contains("001aok refs/heads/develop\n"), "{answer}");
    assert!(!answer.contains("deployed"), "{answer}");
    assert_eq!(world.pushes(), [["refs/heads/develop"]]);
    let probe = http(&world, &head, b"0000").await;
    assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
    let form = http(&world, &head.replace("x-git-receive-pack-request", "x-www-form-urlencoded"), b"0000").await;
    assert!(form.starts_with("HTTP/1.1 415"), "{form}");
    assert_eq!(world.pushes().len(), 1);
}

#[tokio::test]
async fn c03_no_hook_ever_runs() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let repository = world.repository("hello");
    let witness = world.folder.path().join("witness");
    let hooks = repository.join("hooks");
    std::fs::create_dir(&hooks).expect("a folder");
    for hook in ["pre-receive", "update", "post-receive", "post-update", "reference-transaction", "proc-receive"] {
        let hook = hooks.join(hook);
        std::fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", witness.display())).expect("write");
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("make it executable");
    }
    let config = repository.join("config");
    let mut settings = std::fs::read_to_string(&config).expect("read");
    settings.push_str(&format!("[core]\n\thooksPath = {}\n[receive]\n\tfsckObjects = false\n", hooks.display()));
    std::fs::write(config, settings).expect("write");
    tree.ok(&["push", &world.url("hello"), "develop"]).await;
    tree.ok(&["fetch", &world.url("hello")]).await;
    world.app("hello").await.refs().await.expect("git runs");
    assert!(!witness.exists(), "a hook ran");
}

#[tokio::test]
async fn c03_a_tree_that_hides_a_git_folder_is_refused() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    for (name, complaint) in [(".git", "hasDotgit"), (".GIT", "hasDotgit"), ("..", "hasDotdot")] {
        let blob = tree.ok(&["hash-object", "-w", "Dockerfile"]).await;
        let mut mktree = tree.git(&["mktree"]);
        let mut mktree =
            mktree.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("run");
        let mut stdin = mktree.stdin.take().expect("a pipe");
        stdin.write_all(format!("100644 blob {blob}\t{name}\n").as_bytes()).await.expect("write");
        drop(stdin);
        let made = mktree.wait_with_output().await.expect("git runs");
        let made = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let commit = tree.ok(&["commit-tree", "-m", "hostile", &made]).await;
        let refused = tree.fails(&["push", &world.url("hello"), &format!("{commit}:refs/heads/develop")]).await;
        assert!(refused.contains(complaint), "{name}: {refused}");
    }
    assert_eq!(world.pushes().len(), 0);
}

#[tokio::test]
async fn when_too_many_programs_run_the_client_is_told_when_to_come_back() {
    let limits = Limits { processes: 0, queue: Duration::from_millis(10), ..Limits::default() };
    let world = World::with(limits).await;
    let head = format!("GET /git/hello.git/info/refs?service=git-upload-pack HTTP/1.1\r\n{AUTHORISED}");
    let refused = http(&world, &head, b"").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 5"), "{refused}");
}

#[tokio::test]
async fn at_the_programs_end_a_push_is_told_that_the_deployment_goes_on() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    let script = world.script();
    let url = world.url("hello");
    let push = ["push", &url, "develop"];
    let client = tree.run(&push);
    let stop = async {
        until("the push is told", || world.pushes().len() == 1).await;
        world.tasks.stop(DEADLINE).await
    };
    let (output, left) = tokio::join!(client, stop);
    drop(script);
    assert!(output.status.success() && words(&output).contains("the deployment goes on"), "{}", words(&output));
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn a_broken_repository_is_an_error_without_internals() {
    let world = World::new().await;
    std::fs::remove_file(world.repository("hello").join("HEAD")).expect("remove");
    let head = format!("GET /git/hello.git/info/refs?service=git-upload-pack HTTP/1.1\r\n{AUTHORISED}");
    let refused = http(&world, &head, b"").await;
    assert!(refused.starts_with("HTTP/1.1 500") && !refused.contains("repositories"), "{refused}");
}

#[tokio::test]
async fn making_a_repository_again_changes_nothing_and_repairs_what_is_half_made() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    tree.ok(&["push", &world.url("hello"), "develop"]).await;
    let before = world.app("hello").await.refs().await.expect("git runs");
    assert_eq!(before.len(), 1);
    std::fs::remove_file(world.repository("hello").join("HEAD")).expect("remove");
    assert_eq!(world.app("hello").await.refs().await.expect("git runs"), before);
    let clone = Tree(world.folder.path().to_owned());
    clone.ok(&["clone", "--quiet", &world.url("hello"), "clone"]).await;
    assert_eq!(Tree(world.folder.path().join("clone")).ok(&["branch", "--show-current"]).await, "develop");
}

#[tokio::test]
async fn an_archive_has_every_file_as_it_is() {
    let world = World::new().await;
    let tree = world.tree("work").await;
    tree.commit(".gitattributes", b"left-out export-ignore\nchanged export-subst\n").await;
    tree.commit("left-out", b"x").await;
    tree.commit("changed", b"$Format:%H$").await;
    tree.ok(&["push", &world.url("hello"), "develop"]).await;
    let repository = world.app("hello").await;
    let head = repository.head(&develop()).await.expect("git runs").expect("a commit");
    let archive = repository.archive(&head, 1 << 20).await.expect("an archive");
    let mut files = Vec::new();
    for entry in tar::Archive::new(&archive[..]).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).expect("read");
        files.push((entry.path().expect("a path").display().to_string(), content));
    }
    assert!(files.contains(&("left-out".into(), "x".into())), "{files:?}");
    assert!(files.contains(&("changed".into(), "$Format:%H$".into())), "{files:?}");
    assert!(
        repository.archive(&head, 100).await.expect_err("it is larger").to_string().contains("more than 100 bytes")
    );
    let nowhere = "1".repeat(40).parse().expect("a commit");
    assert!(repository.archive(&nowhere, 1 << 20).await.is_err());
}
