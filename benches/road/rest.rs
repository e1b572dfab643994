//! What it costs when nobody comes: memory and CPU of the idle program, and memory of environments that sleep.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::engine::Engine;
use crate::program::{Program, proc_number};
use crate::{APP, Result};

/// How long the program is left alone, and watched.
const IDLE: Duration = Duration::from_secs(10);

/// After work it is left alone for this time before it counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures and tells.
#[expect(clippy::print_stdout, reason = "figures are the result")]
pub(crate) async fn idle(program: &Program) -> Result<()> {
    program.must(APP, "test", "sleep").await?;
    sleep(SETTLE).await;
    let (begin, before) = (Instant::now(), cpu_ms(program.pid()?)?);
    sleep(IDLE).await;
    let (used, seconds) = (cpu_ms(program.pid()?)? - before, begin.elapsed().as_secs_f64());
    let proc = format!("/proc/{}", program.pid()?);
    println!("\ne  the idle program, Live awake and Test asleep");
    println!(
        "   memory: VmRSS {:.1} MiB, PSS {}",
        mib(proc_number(Path::new(&format!("{proc}/status")), "VmRSS")),
        pss(program.pid()?)
    );
    println!(
        "   CPU: {:.2} ms a second ({:.2} % of a core) over {seconds:.0} s",
        used / seconds,
        used / seconds / 10.0
    );
    Ok(())
}

/// Makes `count` applications, puts all to sleep, and tells what they cost.
#[expect(clippy::print_stdout, reason = "figures are the result")]
pub(crate) async fn asleep(program: &Program, engine: &Engine, count: usize) -> Result<()> {
    sleep(SETTLE).await;
    let (before, own_before) = (available()?, own(program.pid()?));
    for number in 0..count {
        let app = format!("sleeper-{number}");
        program.create(&app).await?;
        program.source(&app).await?.push("HEAD").await?;
        program.must(&app, "test", "sleep").await?;
    }
    sleep(SETTLE).await;
    let (after, own_after) = (available()?, own(program.pid()?));
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let each = |kib: f64| kib / 1024.0 / count as f64;
    println!(
        "   a sleeping environment, over {count}: MemAvailable {:+.2} MiB each (all that the machine did meanwhile)",
        each(after - before)
    );
    println!("   of it: {:+.2} MiB of the program itself; {}", each(own_after - own_before), sandbox(engine).await?);
    Ok(())
}

/// What holds one sleeper's network: the sandbox's process, and the engine's helper above it.
async fn sandbox(engine: &Engine) -> Result<String> {
    let all = engine.with_label("dormouse.part=sandbox").await?;
    for id in all {
        let found = engine.inspect(&id).await?;
        let sleeper = found["Name"].as_str().is_some_and(|name| name.contains("-sleeper-"));
        if let (true, Some(pid)) = (sleeper, found["State"]["Pid"].as_u64()) {
            let status = format!("/proc/{pid}/status");
            let Some(parent) = proc_number(Path::new(&status), "PPid") else { continue };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ids of processes are small")]
            return Ok(format!("PSS of a sandbox {}, of its containerd-shim {}", pss(pid as u32), pss(parent as u32)));
        }
    }
    Ok("no sandbox is seen".to_owned())
}

/// Time on a processor of all threads, to the nanosecond.
fn cpu_ms(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended meanwhile is no fault.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(nanoseconds / 1e6)
}

fn available() -> Result<f64> {
    proc_number(Path::new("/proc/meminfo"), "MemAvailable").ok_or_else(|| "no MemAvailable".into())
}

fn own(pid: u32) -> f64 {
    proc_number(Path::new(&format!("/proc/{pid}/status")), "VmRSS").unwrap_or_default()
}

/// A process's share of memory; only root is told of others' processes.
fn pss(pid: u32) -> String {
    match proc_number(Path::new(&format!("/proc/{pid}/smaps_rollup")), "Pss") {
        Some(kib) => format!("{:.2} MiB", kib / 1024.0),
        None => "unknown (needs root)".to_owned(),
    }
}

fn mib(kib: Option<f64>) -> f64 {
    kib.unwrap_or_default() / 1024.0
}
