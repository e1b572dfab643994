//! `dormouse logs -f`, from what is there to what comes, until somebody has enough or there is no more.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::world::{SOON, World};

crate::on_both_engines!(a_log_is_followed_until_ctrl_c_or_the_end_of_the_application);

/// The command, and what it shows.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn new(world: &World) -> Self {
        let (api, token) = world.door();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command.args(["logs", "shop", "-f", "--token", token, "--api"]).arg(api.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().expect("it starts");
        let stdout = child.stdout.take().expect("a pipe");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    /// Reads on until a line has these words.
    async fn until(&mut self, words: &str) {
        let read = async {
            loop {
                let line = self.lines.next_line().await.expect("a pipe").expect("it goes on");
                if line.contains(words) {
                    return;
                }
            }
        };
        timeout(SOON, read).await.unwrap_or_else(|_| panic!("no line with {words:?} came"));
    }

    /// Reads to the end, and tells how the command ended.
    async fn ended(mut self) -> std::process::ExitStatus {
        let end = async {
            while self.lines.next_line().await.expect("a pipe").is_some() {}
            self.child.wait().await.expect("it is a child")
        };
        timeout(SOON, end).await.expect("it ends")
    }
}

/// The application writes a line: asked for a page it says so, and of the scripted one we say it.
async fn write(world: &World, words: &str) {
    match &world.fake {
        Some(fake) => {
            for instance in world.engine.instances().await.expect("the engine answers") {
                fake.write(&instance.id, &format!("GET /{words} 404 0 ms"));
            }
        }
        None => drop(world.visitor().get("shop-test.localhost", &format!("/{words}")).await.expect("an answer")),
    }
}

async fn a_log_is_followed_until_ctrl_c_or_the_end_of_the_application(world: World) {
    world.deployed("shop", "the version").await;
    write(&world, "before").await;
    let (mut one, mut two) = (Follower::new(&world), Follower::new(&world));
    for follower in [&mut one, &mut two] {
        follower.until("GET /before").await;
    }
    for words in ["first", "second"] {
        write(&world, words).await;
        for follower in [&mut one, &mut two] {
            follower.until(&format!("GET /{words}")).await;
        }
    }

    let id = one.child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.expect("kill runs").success());
    assert_eq!(one.ended().await.signal(), Some(2), "Ctrl-C ends it as it ends any command");
    write(&world, "third").await;
    two.until("GET /third").await;

    let (deleted, ended) = tokio::join!(world.follow("DELETE", "/apps/shop"), two.ended());
    assert!(deleted.ok, "{}", deleted.text);
    assert!(ended.success(), "a log that has ended is no failure: {ended}");
}
