//! What a small request costs: processor time of the rival's process over the number of requests, on kept connections.
//!
//! The rivals take turns within each round, so that whatever else the machine does hits all alike.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::figures::{Samples, heading, row};
use crate::rivals::{Rival, Stage, Who};
use crate::{HOST, Result, gauge};

/// Of one turn.
const REQUESTS: u32 = 20_000;
const CONNECTIONS: u32 = 50;

/// A turn that takes longer hangs.
const WITHIN: Duration = Duration::from_secs(120);

/// What is spoken.
#[derive(Clone, Copy, Debug)]
enum Speech {
    Plain,
    Tls,
    Http2,
}

impl Speech {
    const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Http2];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "HTTP/1.1",
            Self::Tls => "HTTP/1.1 over TLS",
            Self::Http2 => "HTTP/2 over TLS",
        }
    }
}

/// Measures and tells.
pub(crate) async fn run(stage: &Stage, rounds: usize) -> Result<()> {
    let mut rivals = Vec::new();
    for who in Who::ALL {
        rivals.push(stage.rival(who).await?);
    }
    for speech in Speech::ALL {
        let all = in_turns(rivals.len(), rounds, async |at| turn_of(&rivals[at], speech).await).await?;
        tell(speech, &all);
    }
    Ok(())
}

/// What each of so many costs, forwards and backwards in turns.
pub(crate) async fn in_turns(
    rivals: usize,
    rounds: usize,
    mut cost: impl AsyncFnMut(usize) -> Result<f64>,
) -> Result<Vec<Samples>> {
    let mut all = vec![Samples::default(); rivals];
    for round in 0..=rounds {
        for turn in 0..rivals {
            let at = if round % 2 == 0 { turn } else { rivals - 1 - turn };
            let cost = cost(at).await?;
            // The first round is for nothing: pools fill, and memory is taken.
            if round > 0 {
                all[at].add(cost);
            }
        }
    }
    Ok(all)
}

#[expect(clippy::print_stdout, reason = "figures are the result")]
fn tell(speech: Speech, all: &[Samples]) {
    println!("\n{}", heading(&format!("CPU of a small request, µs: {} (load {})", speech.name(), gauge::load())));
    let best = all[0].median().min(all[1].median());
    for (who, samples) in Who::ALL.iter().zip(all) {
        println!("{}  ×{:.2}", row(who.name(), samples), samples.median() / best);
    }
}

/// Processor time per request, in microseconds.
async fn turn_of(rival: &Rival, speech: Speech) -> Result<f64> {
    let (scheme, at) = match speech {
        Speech::Plain => ("http", rival.http),
        Speech::Tls | Speech::Http2 => ("https", rival.https),
    };
    let mut command = Command::new("h2load");
    command.args(["-n", &REQUESTS.to_string(), "-c", &CONNECTIONS.to_string()]);
    if !matches!(speech, Speech::Http2) {
        command.arg("--h1");
    }
    command.arg(format!("--connect-to={at}")).arg(format!("{scheme}://{HOST}:{}/", at.port()));
    let before = gauge::cpu_us(rival.pid)?;
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(WITHIN, output).await.map_err(|_| "h2load hangs")??;
    let cost = gauge::cpu_us(rival.pid)? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let all = format!("status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx");
    if !text.contains(&all) {
        return Err(format!("not all were answered: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(cost / f64::from(REQUESTS))
}
