//! An engine to try promises on, with what an outsider may do to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dormouse_control::context::archive;
use dormouse_control::engine::docker::{DEFAULT_ADDRESS, Docker};
use dormouse_control::engine::fake::Fake;
use dormouse_control::engine::{Build, BuildError, Engine, Image, Instance, Network, SANDBOX_PORT, Status};
use dormouse_control::limits::Limits;
use dormouse_link::{EnvironmentId, InstanceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The port the test's application listens on.
pub(crate) const PORT: u16 = 8080;

/// The program of the test's application.
const APPLICATION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract-application"));

/// An installation on an engine.
pub(crate) struct Bed {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) network: Network,
    pub(crate) outsider: Outsider,
}

/// Somebody who changes things behind our back.
pub(crate) enum Outsider {
    Fake(Fake),
    Docker(Leftovers),
}

/// What is on the engine under an installation's label. Dropped, it is removed.
pub(crate) struct Leftovers {
    pub(crate) installation: String,
}

impl Bed {
    pub(crate) async fn fake() -> Self {
        let fake = Fake::new();
        let network = fake.prepare().await.unwrap();
        Self { engine: Arc::new(fake.clone()), network, outsider: Outsider::Fake(fake) }
    }

    pub(crate) async fn docker() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let installation = format!("test-{}-{number}", std::process::id());
        let leftovers = Leftovers { installation: installation.clone() };
        let engine = Docker::connect(None, &installation).await.expect("Docker runs on this machine");
        let network = engine.prepare().await.unwrap();
        Self { engine: Arc::new(engine), network, outsider: Outsider::Docker(leftovers) }
    }

    /// Another installation of the same kind.
    pub(crate) async fn neighbour(&self) -> Self {
        match &self.outsider {
            Outsider::Fake(_) => Self::fake().await,
            Outsider::Docker(_) => Self::docker().await,
        }
    }

    /// Builds; returns the log, too.
    pub(crate) async fn build(&self, tag: &str, context: Bytes) -> (Result<Image, BuildError>, Vec<String>) {
        let (sender, mut receiver) = mpsc::channel(1000);
        let build = Build {
            tag: tag.to_owned(),
            context,
            labels: BTreeMap::from([("dormouse.app".to_owned(), "app".to_owned())]),
            deadline: SOON,
        };
        let built = self.engine.build(build, sender).await;
        let mut log = Vec::new();
        while let Some(line) = receiver.recv().await {
            log.push(line);
        }
        (built, log)
    }

    /// Builds an image of the application, for which `steps` are carried out.
    pub(crate) async fn image(&self, tag: &str, steps: &[(&str, &str)]) -> Image {
        let (built, log) = self.build(tag, application(steps, "")).await;
        built.unwrap_or_else(|error| panic!("{error}: {log:#?}"))
    }

    /// An instance of `image`, the `number`th.
    pub(crate) fn instance(&self, number: u8, image: &str) -> Instance {
        let address = Ipv4Addr::from_bits(self.network.subnet.to_bits() + 10 + u32::from(number));
        Instance {
            id: InstanceId::new(format!("i{number}")),
            environment: EnvironmentId::new("e1"),
            name: format!("app-test-{number}"),
            image: image.to_owned(),
            address: IpAddr::V4(address),
            variables: BTreeMap::from([
                ("PORT".to_owned(), PORT.to_string()),
                ("STAGE".to_owned(), "test".to_owned()),
                ("ODD".to_owned(), "a=b 'c' \"d\" $e".to_owned()),
            ]),
            limits: Limits::default(),
        }
    }

    /// An instance that was started from an image that serves `hello`, and answers.
    pub(crate) async fn running(&self) -> Instance {
        self.image("dormouse/app:1", &[("serve", "hello")]).await;
        let instance = self.instance(1, "dormouse/app:1");
        self.engine.start(instance.clone()).await.unwrap();
        answer(&instance, PORT).await;
        instance
    }

    /// A line for a Dockerfile, so that the layers after it are found by the installation's label, too.
    pub(crate) fn label(&self) -> String {
        match &self.outsider {
            Outsider::Fake(_) => String::new(),
            Outsider::Docker(left) => format!("LABEL dormouse.installation={}", left.installation),
        }
    }

    /// Waits until nothing is left of a build that was stopped.
    pub(crate) async fn layers_go(&self) {
        let Outsider::Docker(left) = &self.outsider else { return };
        let gone = async {
            while !left.images().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, gone).await.expect("its layers are removed");
    }

    pub(crate) async fn status(&self, instance: &Instance) -> Option<Status> {
        let all = self.engine.instances().await.unwrap();
        all.into_iter().find(|found| found.id == instance.id).map(|found| found.status)
    }

    /// Waits until the instance is as it should be.
    pub(crate) async fn becomes(&self, instance: &Instance, status: Option<Status>) {
        let mut last = None;
        let wait = async {
            loop {
                last = self.status(instance).await;
                if last == status {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let came = tokio::time::timeout(SOON, wait).await;
        assert!(came.is_ok(), "it became {last:?} instead of {status:?}");
    }
}

impl Outsider {
    pub(crate) fn kill(&self, instance: &Instance) {
        match self {
            Self::Fake(fake) => fake.kill(&instance.id),
            Self::Docker(all) => all.each(instance, "app", &["kill"]),
        }
    }

    pub(crate) fn pause(&self, instance: &Instance) {
        match self {
            Self::Fake(fake) => fake.pause(&instance.id),
            Self::Docker(all) => all.each(instance, "app", &["pause"]),
        }
    }

    pub(crate) fn lose_sandbox(&self, instance: &Instance) {
        match self {
            Self::Fake(fake) => fake.lose_sandbox(&instance.id),
            Self::Docker(all) => all.each(instance, "sandbox", &["rm", "--force"]),
        }
    }

    pub(crate) fn lose(&self, instance: &Instance) {
        match self {
            Self::Fake(fake) => fake.lose(&instance.id),
            Self::Docker(all) => {
                all.each(instance, "app", &["rm", "--force"]);
                all.each(instance, "sandbox", &["rm", "--force"]);
            }
        }
    }
}

impl Leftovers {
    fn each(&self, instance: &Instance, part: &str, command: &[&str]) {
        let (id, part) = (format!("label=dormouse.instance={}", instance.id), format!("label=dormouse.part={part}"));
        let found = docker(&["ps", "--all", "--quiet", "--filter", &self.label(), "--filter", &id, "--filter", &part]);
        for container in found.lines() {
            docker(&[command, &[container]].concat());
        }
    }

    fn label(&self) -> String {
        format!("label=dormouse.installation={}", self.installation)
    }

    pub(crate) fn containers(&self) -> String {
        docker(&["ps", "--all", "--quiet", "--filter", &self.label()])
    }

    pub(crate) fn images(&self) -> String {
        docker(&["images", "--all", "--quiet", "--filter", &self.label()])
    }

    pub(crate) fn networks(&self) -> String {
        docker(&["network", "ls", "--quiet", "--filter", &self.label()])
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for container in self.containers().lines() {
            try_docker(&["rm", "--force", "--volumes", container]);
        }
        for image in self.images().lines() {
            try_docker(&["rmi", "--force", image]);
        }
        for network in self.networks().lines() {
            try_docker(&["network", "rm", network]);
        }
    }
}

/// What Docker's own client says.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let out = Command::new("docker").args(["--host", DEFAULT_ADDRESS]).args(arguments).output().unwrap();
    assert!(out.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The same, where it may fail.
fn try_docker(arguments: &[&str]) {
    drop(Command::new("docker").args(["--host", DEFAULT_ADDRESS]).args(arguments).output());
}

/// A build context whose image carries out `steps`, on either engine: `log`, `error`, `exit` or `serve`, each with a value.
pub(crate) fn application(steps: &[(&str, &str)], more: &str) -> Bytes {
    let mut script = String::new();
    let mut entrypoint = vec!["/application".to_owned()];
    for (word, value) in steps {
        let word_of_fake = if *word == "serve" { "body" } else { word };
        script += &format!("# fake: {word_of_fake} {value}\n");
        entrypoint.extend([(*word).to_owned(), (*value).to_owned()]);
    }
    let entrypoint = serde_json::to_string(&entrypoint).unwrap();
    context(&format!("{script}FROM scratch\nCOPY application /application\n{more}\nENTRYPOINT {entrypoint}\n"))
}

/// A build context with this Dockerfile and the application's program.
pub(crate) fn context(dockerfile: &str) -> Bytes {
    archive(&[("Dockerfile", dockerfile.as_bytes(), 0o644), ("application", APPLICATION, 0o755)])
}

/// The instance's answer on a port, waited for.
pub(crate) async fn answer(instance: &Instance, port: u16) -> String {
    let wait = async {
        loop {
            match get(instance, port).await {
                Ok(answer) if !answer.is_empty() => return answer,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it answers soon")
}

/// One try to get an answer.
pub(crate) async fn get(instance: &Instance, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::new(instance.address, port)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The sandbox says whose it is.
pub(crate) async fn sandbox_answers(instance: &Instance) {
    let said = answer(instance, SANDBOX_PORT).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(said.split("\r\n\r\n").nth(1).map(str::trim), Some(instance.id.as_str()));
}
