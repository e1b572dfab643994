//! 2 000 requests a second on Live while it is deployed again and again, and on Test while it falls asleep and wakes:
//! what fails is counted, and must be nothing.
//!
//! On Live most of it comes from `h2load`, a generator of others; the crowd brings new connections and requests that must
//! not be asked twice. On Test the crowd comes in bursts that begin at ever other moments of the sleep: under an unbroken
//! stream of requests nothing would ever sleep.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::crowd::{Crowd, Plan, Tally};
use crate::program::{Program, Source};
use crate::{APP, LIVE, Result, TEST};

/// The clients of h2load, and how often each asks in a second.
const CLIENTS: u32 = 20;
const CLIENT_RATE: u32 = 90;

/// One run of h2load; the next follows at once, so that the load lasts as long as the deployments.
const ROUND_SECONDS: u32 = 5;

/// Between two requests of one visitor of the crowd.
const EVERY: Duration = Duration::from_millis(50);

/// A burst on Test.
const BURST: Duration = Duration::from_millis(1_000);

/// Requests that come during a sleep may call it off; so many more sleeps than wanted are tried.
const SLEEPS_MAX: usize = 4;

/// A round of h2load that takes longer hangs.
const ROUND_WITHIN: Duration = Duration::from_secs(60);

/// Loads Live while two commits take turns on it, `deployments` times.
pub(crate) async fn deployments(program: &Program, source: &Source, deployments: usize) -> Result<u64> {
    for name in ["one", "other"] {
        source.commit(&format!("the {name} version")).await?;
        source.tag(name).await?;
        source.push(name).await?;
    }
    program.must(APP, "live", "deploy").await?;
    // 200 of 2 000 a second, half of them on new connections.
    let plan = Plan { at: program.http, host: LIVE, stays: 5, fresh: 5, every: EVERY };
    let crowd = Crowd::gather(&plan);
    crowd.ask();
    let begin = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let loaded = h2load_until(program, over.clone());
    let deployed = async {
        let result = alternate(program, source, deployments).await;
        over.store(true, Ordering::SeqCst);
        result
    };
    let (loaded, deployed) = tokio::join!(loaded, deployed);
    let seconds = begin.elapsed().as_secs_f64();
    let crowd = crowd.end().await;
    deployed?;
    // h2load was seen to hang after the loaded container had been killed: what the crowd saw is told all the same.
    let loaded = loaded.unwrap_or_else(|error| {
        let mut tally = Tally::default();
        tally.fail(error.to_string(), 1);
        tally
    });
    tell(
        &format!("Live, {deployments} deployments in {seconds:.0} s"),
        &[("h2load, kept connections", loaded), ("crowd, half on new connections, half POST", crowd)],
    )
}

async fn alternate(program: &Program, source: &Source, deployments: usize) -> Result<()> {
    for number in 0..deployments {
        source.push(["one", "other"][number % 2]).await?;
        program.must(APP, "live", "deploy").await?;
    }
    Ok(())
}

/// Loads Test in bursts while it is put to sleep, until it has slept and was woken `sleeps` times.
pub(crate) async fn sleeps(program: &Program, sleeps: usize) -> Result<u64> {
    let plan = Plan { at: program.http, host: TEST, stays: 90, fresh: 10, every: EVERY };
    let crowd = Crowd::gather(&plan);
    let (mut slept, mut tried) = (0, 0_usize);
    let begin = Instant::now();
    while slept < sleeps && tried < sleeps * SLEEPS_MAX {
        tried += 1;
        // From as it begins to long after it is over, in steps that never repeat at the same moment of it.
        let after = Duration::from_millis(tried as u64 * 37 % 400);
        let (done, ()) = tokio::join!(program.ask(APP, "test", "sleep"), async {
            sleep(after).await;
            crowd.ask();
            sleep(BURST).await;
            crowd.pause();
        });
        slept += usize::from(done?.ok);
        // And at once the next one, while answers of this burst are still under way.
        program.must(APP, "test", "wake").await?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let tally = crowd.end().await;
    tell(
        &format!("Test, {slept} sleeps and wakes ({tried} tried) in {seconds:.0} s, in bursts"),
        &[("crowd, a tenth on new connections, half POST", tally)],
    )
}

/// Prints and returns how many requests failed.
#[expect(clippy::print_stdout, reason = "figures are the result")]
fn tell(title: &str, tallies: &[(&str, Tally)]) -> Result<u64> {
    println!("\nload: {title}");
    println!("   {:48} {:>9} {:>7} {:>9} {:>9} {:>9}", "", "answered", "failed", "p50 ms", "p99 ms", "most ms");
    for (name, tally) in tallies {
        let times = &tally.times;
        let (p50, p99, most) = (times.at(0.5), times.at(0.99), times.at(1.0));
        println!("   {name:48} {:9} {:7} {p50:9.1} {p99:9.1} {most:9.1}", tally.answered, tally.failures());
        for (kind, count) in &tally.failed {
            println!("      failed: {count} × {kind}");
        }
    }
    Ok(tallies.iter().map(|(_, tally)| tally.failures()).sum())
}

/// Runs h2load round after round until it is over.
async fn h2load_until(program: &Program, over: Arc<AtomicBool>) -> Result<Tally> {
    let mut all = Tally::default();
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("requests");
    while !over.load(Ordering::SeqCst) {
        all.merge(h2load(program, &log).await?);
    }
    Ok(all)
}

async fn h2load(program: &Program, log: &Path) -> Result<Tally> {
    let requests = CLIENTS * CLIENT_RATE * ROUND_SECONDS;
    let mut command = Command::new("h2load");
    command.args(["--h1", "--clients", &CLIENTS.to_string(), "--rps", &CLIENT_RATE.to_string()]);
    command.args(["--requests", &requests.to_string(), "--log-file"]).arg(log);
    // Its own Host names the URL's: a second one by --header would be refused, and rightly so.
    command
        .arg(format!("--connect-to={}", program.http))
        .arg(format!("http://{LIVE}/health"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(ROUND_WITHIN, command.output()).await.map_err(|_| "h2load hangs")?;
    let output = output.map_err(|error| format!("h2load: {error}; scripts/install.sh installs it"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut tally = Tally::default();
    // A line for each request that was answered: when it began (µs), its status, how long it took (µs).
    for line in std::fs::read_to_string(log)?.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next().and_then(|took| took.parse::<f64>().ok())) {
            (Some(_), Some("200"), Some(took)) => {
                tally.answered += 1;
                tally.times.add(took / 1_000.0);
            }
            (_, status, _) => tally.fail(format!("status {}", status.unwrap_or("unknown")), 1),
        }
    }
    std::fs::remove_file(log)?;
    let known = tally.answered + tally.failures();
    if tally.answered == 0 {
        // It asks the faster, the faster it is refused.
        return Err(format!("h2load got no answer at all: {said}").into());
    }
    if known < u64::from(requests) {
        let line = said.lines().find(|line| line.starts_with("requests:")).unwrap_or("it said nothing");
        eprintln!("h2load: {line}");
        tally.fail("not answered".to_owned(), u64::from(requests) - known);
    }
    Ok(tally)
}
