//! Hostile and unlucky repositories, with real git over the whole road: a clear word each, and nothing half made.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use dormouse_control::git::Limits;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::source::Source;
use crate::world::{Push, SOON, World, git};

/// A developer's folder with the demo application, as yet without a commit.
async fn folder(source: &Source) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    source.write(folder.path());
    git(folder.path(), &["init", "--quiet", "--initial-branch", "develop"]).await;
    folder
}

async fn commit(folder: &Path) {
    git(folder, &["add", "--all"]).await;
    let made = git(folder, &["commit", "--quiet", "--allow-empty", "--message", "a change"]).await;
    assert!(made.ok, "{}", made.said);
}

async fn push(world: &World, folder: &Path) -> Push {
    git(folder, &["push", "--force", &world.remote("shop"), "develop"]).await
}

/// The old version serves, and so does the next push: nothing stands in its way.
async fn unharmed(world: &World) {
    assert!(world.get("shop-test.localhost").await.body.contains("the version"));
    world.pushed_by("somebody honest", "shop", &Source::says("the version after")).await;
    assert!(world.get("shop-test.localhost").await.body.contains("the version after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c05_links_out_of_the_commit_fail_its_deployment_and_absolute_ones_do_not() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let work = folder(&Source::says("never seen")).await;
    std::os::unix::fs::symlink("../../etc/passwd", work.path().join("passwords")).expect("a link");
    commit(work.path()).await;
    let pushed = push(&world, work.path()).await;
    assert!(pushed.said.contains("FAILED") && pushed.said.contains("passwords leads out of"), "{}", pushed.said);
    let fine = folder(&Source::says("with media")).await;
    std::os::unix::fs::symlink("/data/media", fine.path().join("media")).expect("a link");
    commit(fine.path()).await;
    let pushed = push(&world, fine.path()).await;
    assert!(pushed.ok && pushed.said.contains("succeeded"), "{}", pushed.said);
    assert!(world.get("shop-test.localhost").await.body.contains("with media"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_a_submodule_whose_address_is_an_option_is_refused() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let work = folder(&Source::says("never seen")).await;
    let modules = "[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/harm\n";
    std::fs::write(work.path().join(".gitmodules"), modules).expect("a file");
    commit(work.path()).await;
    let pushed = push(&world, work.path()).await;
    assert!(!pushed.ok && pushed.said.contains("gitmodulesUrl"), "{}", pushed.said);
    unharmed(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_a_tree_with_a_git_folder_in_any_writing_is_refused() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    for name in [".git", ".GIT", ".Git", "git~1", ".git\u{200c}"] {
        let work = folder(&Source::says("never seen")).await;
        commit(work.path()).await;
        // By hand, because git's own commands do not make it.
        let tree = raw(work.path(), &["mktree"], &format!("040000 tree {EMPTY}\t{name}\n")).await;
        let commit = raw(work.path(), &["commit-tree", "-m", "x", &tree], "").await;
        git(work.path(), &["update-ref", "refs/heads/develop", &commit]).await;
        let pushed = push(&world, work.path()).await;
        assert!(!pushed.ok && pushed.said.contains("hasDotgit"), "{name}: {}", pushed.said);
    }
    unharmed(&world).await;
}

/// The empty tree, which each repository knows.
const EMPTY: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// What a command of git prints, given `input`.
async fn raw(folder: &Path, arguments: &[&str], input: &str) -> String {
    let mut git = Command::new("git");
    git.current_dir(folder).args(["-c", "user.name=a", "-c", "user.email=a@example.com"]).args(arguments);
    git.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = git.spawn().expect("git runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("git ends");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c02_names_that_begin_with_a_dash_are_names() {
    let world = World::fake().await;
    world.create("shop").await;
    let work = folder(&Source::says("the version")).await;
    for name in ["-rf", "--exec=touch harm", "-", "--"] {
        std::fs::write(work.path().join(name), "").expect("a file");
    }
    commit(work.path()).await;
    let pushed = push(&world, work.path()).await;
    assert!(pushed.ok && pushed.said.contains("succeeded"), "{}", pushed.said);
    let deployed = world.environment("shop", "test").await["latest"].clone();
    // A branch cannot be called so with git's own commands, but pushed: it is one like others, and nothing else.
    let asked = git(work.path(), &["push", &world.remote("shop"), "develop:refs/heads/-x"]).await;
    assert!(asked.ok && asked.said.contains("refs/heads/-x is stored; only develop is deployed"), "{}", asked.said);
    let (head, remote) = (raw(work.path(), &["rev-parse", "HEAD"], "").await, world.remote("shop"));
    let stored = raw(work.path(), &["ls-remote", &remote, "refs/heads/-x"], "").await;
    assert_eq!(stored, format!("{head}\trefs/heads/-x"));
    assert_eq!(world.environment("shop", "test").await["latest"], deployed, "nothing is deployed for it");
    unharmed(&world).await;
}

/// Makes so many branches of the newest commit.
async fn branches(folder: &Path, count: usize) {
    let head = raw(folder, &["rev-parse", "HEAD"], "").await;
    let refs: String = (0..count).map(|number| format!("create refs/heads/b{number} {head}\n")).collect();
    raw(folder, &["update-ref", "--stdin"], &refs).await;
}

const ALL_BRANCHES: &str = "refs/heads/b*:refs/heads/b*";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_as_many_refs_as_allowed_are_carried_and_one_more_is_refused() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let most = Limits::default().push_max_refs;
    let work = folder(&Source::says("never seen")).await;
    commit(work.path()).await;
    branches(work.path(), most + 1).await;
    let remote = world.remote("shop");
    let pushed = git(work.path(), &["push", "--quiet", &remote, ALL_BRANCHES]).await;
    assert!(!pushed.ok && pushed.said.contains("more than 1000 branches and tags"), "{}", start(&pushed));
    assert_eq!(raw(work.path(), &["ls-remote", &remote, "refs/heads/b*"], "").await, "", "not one of them is there");
    git(work.path(), &["branch", "-D", "b0"]).await;
    let pushed = git(work.path(), &["push", "--quiet", &remote, ALL_BRANCHES]).await;
    assert!(pushed.ok, "{}", start(&pushed));
    unharmed(&world).await;
}

fn start(push: &Push) -> String {
    push.said.lines().take(5).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_a_pack_bomb_is_refused_and_nothing_of_it_is_there() {
    let limits = Limits { object_max_bytes: 8 << 20, ..Limits::default() };
    let world = World::with_limits(limits).await;
    world.deployed("shop", "the version").await;
    let before = world.environment("shop", "test").await;
    let work = folder(&Source::says("never seen")).await;
    // Some nine kilobytes on the way.
    std::fs::write(work.path().join("zeros"), vec![0; 9 << 20]).expect("a file");
    commit(work.path()).await;
    let pushed = push(&world, work.path()).await;
    assert!(!pushed.ok && pushed.said.contains("Refused: this push has a file larger than 8 MiB"), "{}", pushed.said);
    assert_eq!(world.environment("shop", "test").await["latest"], before["latest"]);
    unharmed(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_a_commit_with_folders_without_end_fails_its_deployment_and_harms_nobody() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let work = folder(&Source::says("never seen")).await;
    let deep = work.path().join("d/".repeat(150));
    std::fs::create_dir_all(&deep).expect("folders");
    std::fs::write(deep.join("file"), "").expect("a file");
    commit(work.path()).await;
    let pushed = push(&world, work.path()).await;
    assert!(pushed.said.contains("FAILED") && pushed.said.contains("folders more than 100 deep"), "{}", pushed.said);
    unharmed(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_whose_developer_is_cut_off_leaves_nothing() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let work = folder(&Source::says("never seen")).await;
    let noise: Vec<u8> = (0..12_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(work.path().join("large"), noise).expect("a file");
    commit(work.path()).await;
    let repository =
        std::fs::read_dir(world.data().join("git")).expect("a folder").next().expect("one").expect("it is there");
    let before = raw(&repository.path(), &["rev-parse", "refs/heads/develop"], "").await;
    for cut_after in [0, 30, 100, 200] {
        let mut push = Command::new("git");
        push.current_dir(work.path()).args(["push", "--quiet", "--force", &world.remote("shop"), "develop"]);
        let mut push = push.stdin(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("git runs");
        let pid = push.id().expect("it runs");
        // Not a wait for something: each time is another moment of the push.
        tokio::time::sleep(Duration::from_millis(cut_after)).await;
        let group = format!("-{pid}");
        let _gone = Command::new("kill").args(["-KILL", "--", &group]).status().await.expect("kill runs");
        push.wait().await.expect("it ends");
    }
    // Either it was through already, or nothing of it is there.
    let deadline = Instant::now() + SOON;
    while !processes_in(&repository.path()).is_empty() {
        assert!(Instant::now() < deadline, "left over: {:?}", processes_in(&repository.path()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = raw(&repository.path(), &["rev-parse", "refs/heads/develop"], "").await;
    assert!(after == before || after == raw(work.path(), &["rev-parse", "HEAD"], "").await);
    let objects = repository.path().join("objects");
    let incoming = std::fs::read_dir(&objects).expect("objects").filter_map(Result::ok);
    let left: Vec<_> = incoming.filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp_objdir")).collect();
    assert!(left.is_empty(), "{left:?}");
    raw(&repository.path(), &["fsck", "--strict"], "").await;
    world.pushed_by("somebody honest", "shop", &Source::says("the version after")).await;
}

/// The git programs that work on a repository.
fn processes_in(repository: &Path) -> Vec<String> {
    let repository = repository.display().to_string();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let commands = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
    commands.filter(|command| command.contains(&repository) && command.starts_with("git")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_eight_pushes_at_once_each_is_answered_and_one_stands() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let mut all = JoinSet::new();
    for number in 0..8 {
        let remote = world.remote("shop");
        all.spawn(async move {
            let message = format!("version {number} of eight");
            let work = folder(&Source::says(&message)).await;
            commit(work.path()).await;
            (message, git(work.path(), &["push", "--force", &remote, "develop"]).await)
        });
    }
    let mut taken = 0;
    for (message, push) in all.join_all().await {
        let told = ["succeeded", "superseded", "reject", "another push", "cannot lock"];
        assert!(told.iter().any(|word| push.said.contains(word)), "{message}: {}", push.said);
        taken += usize::from(push.ok);
    }
    assert!(taken >= 1);
    let body = world.get("shop-test.localhost").await.body;
    assert!(body.contains("of eight"), "{body}");
    let repository =
        std::fs::read_dir(world.data().join("git")).expect("a folder").next().expect("one").expect("it is there");
    raw(&repository.path(), &["fsck", "--strict"], "").await;
}
