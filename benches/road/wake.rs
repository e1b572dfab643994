//! What a wake costs beside what it cannot do without: the start of a container by the bare engine, once as everybody
//! starts it and once joined to a network that is there already. In turns, so that what else the machine does hits all alike.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::engine::Engine;
use crate::figures::{Samples, heading, row};
use crate::program::{Program, Step, clock};
use crate::visitor::{get, until_answered};
use crate::{APP, Result, TEST};

/// After a stop the engine has things to tidy up; each start waits this long, so that it does not pay for them.
const REST: Duration = Duration::from_millis(300);

/// Two containers to compare with, stopped.
struct Rivals {
    bridged: String,
    joined: String,
    sandbox: SocketAddr,
}

/// What was measured.
#[derive(Default)]
struct Measured {
    bridged: Samples,
    joined: Samples,
    woken: Samples,
    /// Of each wake: what the answer's Server-Timing says, and the access record.
    held: Samples,
    record: Vec<(&'static str, Samples)>,
    /// Of each wake: until the control plane began to start it, until Docker had, until it was seen to answer, until the
    /// visitor had the answer.
    phases: [Samples; 4],
}

const PHASES: [&str; 4] = [
    "  request -> the control plane calls for the start",
    "  -> Docker has started the container",
    "  -> the application was seen to answer",
    "  -> the visitor has the answer",
];

const FIELDS: [&str; 4] = ["held_ms", "connect_ms", "first_byte_ms", "total_ms"];

/// Measures and tells.
pub(crate) async fn run(program: &Program, engine: &Engine, times: usize) -> Result<()> {
    let rivals = rivals(program, engine).await?;
    let mut measured =
        Measured { record: FIELDS.map(|field| (field, Samples::default())).into(), ..Default::default() };
    // Once for nothing: the first of everything is slower.
    once(program, engine, &rivals, &mut Measured::default()).await?;
    for _ in 0..times {
        once(program, engine, &rivals, &mut measured).await?;
    }
    tell(&measured);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "figures are the result")]
fn tell(measured: &Measured) {
    println!("\n{}", heading("from a stopped container to an answer, ms"));
    println!("{}", row("a  docker start, bridged as usual", &measured.bridged));
    println!("{}", row("b  docker start, joined to a running sandbox", &measured.joined));
    println!("{}", row("c  request to the sleeping environment", &measured.woken));
    for (name, samples) in PHASES.iter().zip(&measured.phases) {
        println!("{}", row(name, samples));
    }
    println!("{}", row("  held, as Server-Timing says", &measured.held));
    for (field, samples) in &measured.record {
        println!("{}", row(&format!("  {field} of the access record"), samples));
    }
    let ratio = |of: &Samples, to: &Samples| of.median() / to.median();
    let (more, a, b) = (measured.woken.median() - measured.joined.median(), &measured.bridged, &measured.joined);
    println!(
        "medians: c/b {:.2}, c/a {:.2}, b/a {:.2}; c-b {more:.1} ms",
        ratio(&measured.woken, b),
        ratio(&measured.woken, a),
        ratio(b, a)
    );
}

async fn once(program: &Program, engine: &Engine, rivals: &Rivals, measured: &mut Measured) -> Result<()> {
    let begin = Instant::now();
    engine.start(&rivals.bridged).await?;
    let at = engine.address(&rivals.bridged).await?;
    until_answered(SocketAddr::new(at, 80)).await?;
    measured.bridged.add_time(begin.elapsed());
    engine.stop(&rivals.bridged).await?;
    sleep(REST).await;

    let begin = Instant::now();
    engine.start(&rivals.joined).await?;
    until_answered(rivals.sandbox).await?;
    measured.joined.add_time(begin.elapsed());
    engine.stop(&rivals.joined).await?;

    program.must(APP, "test", "sleep").await?;
    sleep(REST).await;
    wake(program, measured).await?;
    sleep(REST).await;
    Ok(())
}

async fn wake(program: &Program, measured: &mut Measured) -> Result<()> {
    let (begin, at) = (Instant::now(), clock());
    let answer = get(program.http, TEST, "/").await?;
    let (took, answered) = (begin.elapsed(), clock());
    if answer.status != 200 {
        return Err(format!("the sleeper answered {}", answer.status).into());
    }
    measured.woken.add_time(took);
    if let Some(ms) = answer.woke_ms() {
        measured.held.add(ms);
    }
    let steps = program.steps_since(at);
    let when = |name: &str| steps.iter().find(|Step { text, .. }| text.contains(name)).map(|step| step.at);
    if let (Some(launch), Some(probe), Some(serve)) = (when("Launch("), when("Probe("), when("Move(Serve)")) {
        let moments = [at, launch, probe, serve, answered];
        for (pair, phase) in moments.windows(2).zip(&mut measured.phases) {
            phase.add(pair[1] - pair[0]);
        }
    }
    // The record is written after the answer, by a thread of its own.
    sleep(REST).await;
    let record = program.newest_record()?;
    for (field, samples) in &mut measured.record {
        if let Some(ms) = record[*field].as_f64() {
            samples.add(ms);
        }
    }
    Ok(())
}

/// Two stopped containers of the very image that Test runs: one as `docker run` makes it, one as Dormouse makes it, joined
/// to a sandbox as Dormouse makes it.
async fn rivals(program: &Program, engine: &Engine) -> Result<Rivals> {
    get(program.http, TEST, "/").await?;
    sleep(REST).await;
    let record = program.newest_record()?;
    let instance = record["instance"].as_str().ok_or("the record names the instance")?;
    let (mut app, mut sandbox) = (Value::Null, Value::Null);
    for id in engine.with_label(&format!("dormouse.instance={instance}")).await? {
        let found = engine.inspect(&id).await?;
        match found["Config"]["Labels"]["dormouse.part"].as_str() {
            Some("app") => app = found,
            _ => sandbox = found,
        }
    }
    let network = engine.network().await?;
    let host = json!({ "NetworkMode": network });
    let bridged = engine.create(json!({ "Image": app["Config"]["Image"], "HostConfig": host })).await?;
    let sandbox = like(engine, &sandbox, network).await?;
    engine.start(&sandbox).await?;
    let at = SocketAddr::new(engine.address(&sandbox).await?, 80);
    let joined = like(engine, &app, &format!("container:{sandbox}")).await?;
    Ok(Rivals { bridged, joined, sandbox: at })
}

/// A container like another one, in another network.
async fn like(engine: &Engine, other: &Value, network: &str) -> Result<String> {
    let (config, mut host) = (&other["Config"], other["HostConfig"].clone());
    host["NetworkMode"] = json!(network);
    let healthcheck = &config["Healthcheck"];
    let body =
        json!({ "Image": config["Image"], "Env": config["Env"], "Healthcheck": healthcheck, "HostConfig": host });
    engine.create(body).await
}
