//! A visitor: one request on a connection, read to its end.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::Result;

/// Whoever is not answered by then will not be.
const WITHIN: Duration = Duration::from_secs(30);

/// The pause between two tries to connect.
const PAUSE: Duration = Duration::from_millis(1);

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// How long it was held for a wake, in milliseconds, as the answer itself says.
    pub(crate) fn woke_ms(&self) -> Option<f64> {
        let line = self.text.lines().find(|line| line.to_ascii_lowercase().starts_with("server-timing: wake;dur="))?;
        line.split_once("dur=")?.1.trim().parse().ok()
    }
}

/// A request on a connection of its own.
pub(crate) async fn get(at: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    let asked = async {
        let mut socket = TcpStream::connect(at).await?;
        socket.set_nodelay(true)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let bytes = timeout(WITHIN, asked).await.map_err(|_| format!("{host} did not answer in {WITHIN:?}"))??;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status line")?;
    Ok(Answer { status, text })
}

/// Asks again and again until there is an answer with status 200.
pub(crate) async fn until_answered(at: SocketAddr) -> Result<()> {
    let end = Instant::now() + WITHIN;
    while !get(at, "localhost", "/").await.is_ok_and(|answer| answer.status == 200) {
        if Instant::now() > end {
            return Err(format!("nothing answered at {at} in {WITHIN:?}").into());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
