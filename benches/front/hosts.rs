//! What a small request costs by the number of hosts in the table, without and with what operators turn on: an access log, and
//! metrics that are scraped each second.
//!
//! Requests are spread evenly over all hosts. h2load asks for one, so the visitors are the bench's own. The hosts lead to one
//! environment, so that all rivals have one pool of connections to the origin.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::cpu::in_turns;
use crate::figures::{heading, row};
use crate::rivals::{Rival, Stage, Who};
use crate::{Result, gauge, origin};

/// Hosts of a table.
const SIZES: [u64; 3] = [1, 10_000, 100_000];
/// Of one turn, over all connections.
const REQUESTS: u64 = 20_000;
const CONNECTIONS: u64 = 50;
/// Between two scrapes: far oftener than anybody scrapes.
const SCRAPE: Duration = Duration::from_secs(1);
/// A turn that takes longer hangs.
const WITHIN: Duration = Duration::from_secs(120);
/// The longest answer that is waited for, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// Whose turn it is, and among how many hosts it is asked.
struct Contender {
    name: String,
    rival: Rival,
    hosts: u64,
}

/// Measures and tells.
#[expect(clippy::print_stdout, reason = "figures are the result")]
pub(crate) async fn run(stage: &Stage, rounds: usize) -> Result<()> {
    let mut all = Vec::new();
    for who in [Who::Bare, Who::BareApart] {
        all.push(Contender { name: who.name().to_owned(), rival: stage.rival(who).await?, hosts: 1 });
    }
    for hosts in SIZES {
        let table = stage.table((0..hosts).map(host))?;
        let log = stage.logging(&hosts.to_string());
        let observed = [&log[..], &["--admin".to_owned(), "127.0.0.1:0".to_owned()]].concat();
        for (with, words) in [("", &[][..]), (", logging and scraped", &observed)] {
            let rival = stage.dormouse(&table, words).await?;
            all.push(Contender { name: format!("Dormouse, hosts: {hosts}{with}"), rival, hosts });
        }
    }
    let costs = in_turns(all.len(), rounds, async |at| {
        let asked = turn_of(&all[at]);
        timeout(WITHIN, asked).await.map_err(|_| "a turn hangs")?
    });
    let costs = costs.await?;
    println!("\n{}", heading(&format!("CPU of a small request, µs: by hosts, HTTP/1.1 (load {})", gauge::load())));
    let best = costs[0].median().min(costs[1].median());
    for (contender, samples) in all.iter().zip(&costs) {
        println!("{}  ×{:.2}", row(&contender.name, samples), samples.median() / best);
    }
    Ok(())
}

fn host(number: u64) -> String {
    format!("app-{number}.example.com")
}

/// Processor time per request, in microseconds.
async fn turn_of(contender: &Contender) -> Result<f64> {
    let Contender { rival, hosts, .. } = contender;
    let before = gauge::cpu_us(rival.pid)?;
    let visitors = (0..CONNECTIONS).map(|number| visit(rival.http, *hosts, number));
    tokio::select! {
        done = try_join_all(visitors) => drop(done?),
        failed = scrape(rival.admin) => failed?,
    }
    Ok((gauge::cpu_us(rival.pid)? - before) / REQUESTS as f64)
}

/// A connection that asks for one host after the other.
async fn visit(at: SocketAddr, hosts: u64, number: u64) -> Result<()> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(ANSWER_MAX);
    for turn in 0..REQUESTS / CONNECTIONS {
        let host = host(scattered(number * REQUESTS + turn) % hosts);
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        answer.clear();
        while !answer.ends_with(origin::BODY) {
            if stream.read_buf(&mut answer).await? == 0 || answer.len() >= ANSWER_MAX {
                return Err(format!("{host} has no answer: {}", String::from_utf8_lossy(&answer)).into());
            }
            if !b"HTTP/1.1 200".starts_with(&answer[..answer.len().min(12)]) {
                return Err(format!("{host} is not served: {}", String::from_utf8_lossy(&answer)).into());
            }
        }
    }
    Ok(())
}

/// Asks for the metrics again and again, if there are any; ends only if that fails.
async fn scrape(admin: Option<SocketAddr>) -> Result<()> {
    let Some(at) = admin else { return std::future::pending().await };
    let mut every = interval(SCRAPE);
    loop {
        every.tick().await;
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await?;
        if !text.starts_with(b"HTTP/1.1 200") {
            return Err(format!("no metrics: {}", String::from_utf8_lossy(&text)).into());
        }
    }
}

/// SplitMix64 of a number.
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}
