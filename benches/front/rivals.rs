//! Who is measured: Dormouse as anybody runs it, and the bare proxy, each a process of its own before the same origin.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::{HOST, Result, bare, origin};

/// The table that most is measured with.
const TABLE: &str = "table.json";

/// Whoever is not ready by then hangs.
const WITHIN: Duration = Duration::from_secs(30);

/// Threads that serve visitors, of each rival.
pub(crate) const WORKERS: &str = "2";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Bare, with threads that steal each other's work, as is Pingora's default.
    Bare,
    /// Bare, with threads that do not.
    BareApart,
    Dormouse,
    /// Dormouse that writes an access record for each request.
    DormouseLogging,
}

impl Who {
    pub(crate) const ALL: [Self; 4] = [Self::Bare, Self::BareApart, Self::Dormouse, Self::DormouseLogging];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare Pingora, work stealing",
            Self::BareApart => "bare Pingora, threads apart",
            Self::Dormouse => "Dormouse",
            Self::DormouseLogging => "Dormouse with an access log",
        }
    }
}

/// What they have in common.
pub(crate) struct Stage {
    folder: TempDir,
    origin: SocketAddr,
    _origin: Child,
}

/// A running rival; it ends with its drop.
pub(crate) struct Rival {
    _child: Child,
    pub(crate) pid: u32,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    /// Where it tells its metrics.
    pub(crate) admin: Option<SocketAddr>,
}

impl Stage {
    pub(crate) async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        std::fs::write(folder.path().join("chain.pem"), made.cert.pem())?;
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem())?;
        let (child, ready) = start(Command::new(std::env::current_exe()?).arg(origin::ROLE)).await?;
        let origin = address(&ready, "origin")?;
        let table = json!({ "routes": [{ "host": HOST, "endpoints": [origin] }, { "host": "127.0.0.1", "endpoints": [origin] }] });
        std::fs::write(folder.path().join(TABLE), table.to_string())?;
        Ok(Self { folder, origin, _origin: child })
    }

    /// Writes a table of hosts that all lead to the origin by one environment; returns the file's name.
    pub(crate) fn table(&self, hosts: impl Iterator<Item = String>) -> Result<String> {
        let routes: Vec<_> = hosts.map(|host| json!({ "host": host, "environment": "all" })).collect();
        let name = format!("table-{}.json", routes.len());
        let table = json!({ "environments": { "all": { "endpoints": [self.origin] } }, "routes": routes });
        std::fs::write(self.path(&name), table.to_string())?;
        Ok(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn rival(&self, who: Who) -> Result<Rival> {
        match who {
            Who::Bare => self.bare("steals").await,
            Who::BareApart => self.bare("apart").await,
            Who::Dormouse => self.dormouse(TABLE, &[]).await,
            Who::DormouseLogging => self.dormouse(TABLE, &self.logging("usual")).await,
        }
    }

    async fn bare(&self, stealing: &str) -> Result<Rival> {
        let (http, https) = (free()?, free()?);
        let mut command = Command::new(std::env::current_exe()?);
        command.args([bare::ROLE, &self.origin.to_string(), &http.to_string(), &https.to_string()]);
        command.arg(self.path("chain.pem")).arg(self.path("key.pem")).args([WORKERS, stealing]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        for at in [http, https] {
            let end = Instant::now() + WITHIN;
            while TcpStream::connect(at).await.is_err() {
                if Instant::now() > end {
                    return Err("the bare proxy did not get ready".into());
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(Rival { pid: child.id().ok_or("it ended")?, _child: child, http, https, admin: None })
    }

    /// The words that turn the access log on, for one that nobody else writes to.
    pub(crate) fn logging(&self, of: &str) -> [String; 2] {
        ["--access-log".to_owned(), format!("file:{}", self.path(&format!("access-{of}.log")).display())]
    }

    /// Dormouse with a table of this stage, and words of its own.
    pub(crate) async fn dormouse(&self, table: &str, words: &[String]) -> Result<Rival> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command.args(["edge", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--workers", WORKERS]);
        command.arg("--table").arg(self.path(table));
        command.arg("--cert").arg(self.path("chain.pem")).arg("--key").arg(self.path("key.pem")).args(words);
        let (child, ready) = start(command.env("DORMOUSE_LOG", "error")).await?;
        let (http, https) = (address(&ready, "http")?, address(&ready, "https")?);
        let admin = address(&ready, "admin").ok();
        Ok(Rival { pid: child.id().ok_or("it ended")?, _child: child, http, https, admin })
    }
}

/// Starts a child and waits for its ready line.
async fn start(command: &mut Command) -> Result<(Child, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut ready = String::new();
    timeout(WITHIN, BufReader::new(child.stdout.take().ok_or("a pipe")?).read_line(&mut ready)).await??;
    Ok((child, ready))
}

fn address(ready: &str, listener: &str) -> Result<SocketAddr> {
    let mut words = ready.split_whitespace().filter_map(|word| word.split_once('='));
    let found = words.find(|(name, _)| *name == listener).ok_or_else(|| format!("no {listener} in {ready:?}"))?;
    Ok(found.1.parse()?)
}

/// An address that nobody has now: Pingora does not say which port it took.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
