//! Slow clients by a tool of others, `slowhttptest`, in its three modes: meanwhile everybody else is served.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::figures::{Samples, heading, row};
use crate::rivals::{Rival, Stage, Who};
use crate::{HOST, Result};

/// Slow connections at a time, opened within a second.
const SLOW: &str = "200";
/// How long they go on, in seconds.
const LASTS: &str = "15";
/// Between two requests of the others.
const EVERY: Duration = Duration::from_millis(20);
/// Whoever of the others is not answered by then was not served.
const WITHIN: Duration = Duration::from_secs(5);
/// A run that takes longer hangs.
const RUN_WITHIN: Duration = Duration::from_secs(60);

/// Slow heads, slow bodies, slow readers.
const MODES: [(&str, &str, &[&str]); 3] = [
    ("slow heads (-H)", "", &["-H", "-i", "1"]),
    ("slow bodies (-B)", "", &["-B", "-i", "1", "-s", "8192"]),
    ("slow readers (-X)", "large", &["-X", "-w", "64", "-y", "128", "-n", "1", "-z", "16"]),
];

/// Measures and tells; fails if one of the others was not served.
#[expect(clippy::print_stdout, reason = "figures are the result")]
pub(crate) async fn run(stage: &Stage) -> Result<()> {
    let rival = stage.rival(Who::Dormouse).await?;
    println!("\n{}", heading(&format!("others' answers beside {SLOW} slow clients, ms")));
    let mut all = Samples::default();
    for (name, path, mode) in MODES {
        let mut command = Command::new("slowhttptest");
        command.args(mode).args(["-c", SLOW, "-r", SLOW, "-l", LASTS, "-p", "3", "-x", "16"]);
        command.arg("-u").arg(format!("http://{}/{path}", rival.http));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("slowhttptest: {error}"))?;
        let begin = Instant::now();
        let mut times = Samples::default();
        while child.try_wait()?.is_none() {
            let asked = Instant::now();
            timeout(WITHIN, ask(&rival)).await.map_err(|_| format!("{name}: somebody else was not served"))??;
            times.add_time(asked.elapsed());
            if begin.elapsed() > RUN_WITHIN {
                return Err(format!("{name}: it hangs").into());
            }
            sleep(EVERY).await;
        }
        println!("{}", row(name, &times));
        all.merge(times);
    }
    println!("{}", row("all", &all));
    Ok(())
}

/// One request on a new connection.
async fn ask(rival: &Rival) -> Result<()> {
    let mut stream = TcpStream::connect(rival.http).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("somebody else got {answer:?}").into()) }
}
