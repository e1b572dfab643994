//! What an HTTP/2 answer holds of its proxy's own memory while its client does not take it, of a hundred on one connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::idle::{Speech, config, frame, tls};
use crate::rivals::{Rival, Stage, Who};
use crate::{HOST, Result, gauge};

/// Streams at a time, as many as either rival allows.
const STREAMS: u8 = 100;
/// By then either has read as much of the origin as it does.
const REST: Duration = Duration::from_secs(3);
/// An answer whose head takes longer hangs.
const WITHIN: Duration = Duration::from_secs(20);

/// Measures and tells.
#[expect(clippy::print_stdout, reason = "figures are the result")]
pub(crate) async fn run(stage: &Stage) -> Result<()> {
    println!("\n{:58} {:>9}", format!("memory of an unread HTTP/2 answer, KiB ({STREAMS} of them)"), "each");
    for who in [Who::Bare, Who::Dormouse] {
        let rival = stage.rival(who).await?;
        // What is taken once is not counted.
        held_by(&rival, 1).await?;
        let each = held_by(&rival, STREAMS).await?;
        println!("{:58} {each:9.1}", who.name());
    }
    Ok(())
}

/// KiB for each stream.
async fn held_by(rival: &Rival, streams: u8) -> Result<f64> {
    let before = gauge::own_kib(rival.pid)?;
    let mut stream = tls(rival.https, &config(Speech::Http2)?).await?;
    // SETTINGS_INITIAL_WINDOW_SIZE is 0: no part of a body may come.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat()).await?;
    let mut head = vec![0x82, 0x87, 0x04, 6];
    head.extend_from_slice(b"/large");
    head.extend_from_slice(&[0x01, u8::try_from(HOST.len())?]);
    head.extend_from_slice(HOST.as_bytes());
    for number in 0..streams {
        stream.write_all(&frame(1, 5, 2 * number + 1, &head)).await?;
    }
    let mut heads = 0;
    while heads < streams {
        let mut prefix = [0; 9];
        timeout(WITHIN, stream.read_exact(&mut prefix)).await??;
        let mut payload = vec![0; usize::from(prefix[1]) << 8 | usize::from(prefix[2])];
        timeout(WITHIN, stream.read_exact(&mut payload)).await??;
        match prefix[3] {
            1 => heads += 1,
            3 | 7 => return Err("a stream was refused".into()),
            _ => {}
        }
    }
    sleep(REST).await;
    Ok((gauge::own_kib(rival.pid)? - before) / f64::from(streams))
}
