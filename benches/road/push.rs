//! How long a developer waits: from `git push` to the new version before a visitor's eyes, and to the push's own end.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::figures::{Samples, heading, row};
use crate::program::{Program, Source};
use crate::visitor::get;
use crate::{Result, TEST};

/// The pause between two looks at the page.
const PAUSE: Duration = Duration::from_millis(5);

/// A version that is not there by then does not come.
const WITHIN: Duration = Duration::from_secs(60);

/// Measures and tells.
#[expect(clippy::print_stdout, reason = "figures are the result")]
pub(crate) async fn run(program: &Program, source: &Source, times: usize) -> Result<()> {
    let (mut served, mut ended) = (Samples::default(), Samples::default());
    for number in 0..times {
        let message = format!("version {number} of the measured page");
        source.commit(&message).await?;
        let begin = Instant::now();
        let seen = async {
            while !get(program.http, TEST, "/").await?.text.contains(&message) {
                sleep(PAUSE).await;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(begin.elapsed())
        };
        let pushed = async {
            source.push("HEAD").await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(begin.elapsed())
        };
        let (seen, pushed) = timeout(WITHIN, async { tokio::try_join!(seen, pushed) }).await??;
        served.add_time(seen);
        ended.add_time(pushed);
    }
    println!("\n{}", heading("from git push, ms"));
    println!("{}", row("d  to the new version before a visitor", &served));
    println!("{}", row("   to the end of the push", &ended));
    Ok(())
}
