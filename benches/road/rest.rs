//! What it costs when nobody comes: memory and CPU of the idle program, and memory of environments that sleep.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::engine::Engine;
use crate::figures::Samples;
use crate::program::{Program, proc_number};
use crate::{APP, Result};

/// How long the program is left alone, and watched.
const IDLE: Duration = Duration::from_secs(10);

/// After work it is left alone for this time before it counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

/// How often the machine's memory is looked at, and the pause between two looks.
const LOOKS: usize = 9;
const LOOK: Duration = Duration::from_millis(200);

/// Measures and tells.
#[expect(clippy::print_stdout, reason = "figures are the result")]
pub(crate) async fn idle(program: &Program) -> Result<()> {
    program.must(APP, "test", "sleep").await?;
    sleep(SETTLE).await;
    let (begin, before) = (Instant::now(), cpu_ms(program.pid()?)?);
    sleep(IDLE).await;
    let (used, seconds) = (cpu_ms(program.pid()?)? - before, begin.elapsed().as_secs_f64());
    println!("\ne  the idle program, Live awake and Test asleep");
    let (rss, pss) = (own(program.pid()?) / 1024.0, pss(&program.pid()?.to_string()).unwrap_or_default());
    println!("   memory: VmRSS {rss:.1} MiB, PSS {pss:.1} MiB");
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
    let (before, own_before) = (available().await?, own(program.pid()?));
    for number in 0..count {
        let app = format!("sleeper-{number}");
        program.create(&app).await?;
        program.source(&app).await?.push("HEAD").await?;
        program.must(&app, "test", "sleep").await?;
    }
    sleep(SETTLE).await;
    let (after, own_after) = (available().await?, own(program.pid()?));
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let each = |kib: f64| kib / 1024.0 / count as f64;
    println!(
        "   a sleeping environment, over {count}: MemAvailable fell by {:.2} MiB each (with all that the machine did)",
        each(before - after)
    );
    println!(
        "   of it: {:+.2} MiB of the program itself, {} (MiB)",
        each(own_after - own_before),
        sandboxes(engine).await?
    );
    Ok(())
}

/// What holds the sleepers' networks: the sandboxes' processes, and the engine's helper above each.
async fn sandboxes(engine: &Engine) -> Result<String> {
    let (mut sandboxes, mut shims) = (Samples::default(), Samples::default());
    for id in engine.with_label("dormouse.part=sandbox").await? {
        // Somebody else's may be gone by now.
        let Ok(found) = engine.inspect(&id).await else { continue };
        let sleeper = found["Name"].as_str().is_some_and(|name| name.contains("-sleeper-"));
        let Some(pid) = found["State"]["Pid"].as_u64().filter(|_| sleeper) else { continue };
        let shim = proc_number(Path::new(&format!("/proc/{pid}/status")), "PPid").unwrap_or_default();
        for (of, samples) in [(pid.to_string(), &mut sandboxes), (shim.to_string(), &mut shims)] {
            pss(&of).into_iter().for_each(|mib| samples.add(mib));
        }
    }
    Ok(match sandboxes.len() {
        0 => "its sandbox unknown (needs root)".to_owned(),
        _ => format!(
            "PSS of its sandbox {:.2}, of the sandbox's containerd-shim {:.2}",
            sandboxes.median(),
            shims.median()
        ),
    })
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

/// In KiB; the median of a few looks, because others come and go.
async fn available() -> Result<f64> {
    let mut looks = Samples::default();
    for _ in 0..LOOKS {
        looks.add(proc_number(Path::new("/proc/meminfo"), "MemAvailable").ok_or("no MemAvailable")?);
        sleep(LOOK).await;
    }
    Ok(looks.median())
}

fn own(pid: u32) -> f64 {
    proc_number(Path::new(&format!("/proc/{pid}/status")), "VmRSS").unwrap_or_default()
}

/// A process's share of memory, in MiB; only root is told of others' processes.
fn pss(pid: &str) -> Option<f64> {
    proc_number(Path::new(&format!("/proc/{pid}/smaps_rollup")), "Pss:").map(|kib| kib / 1024.0)
}
