//! P60: the Autobahn cases of WebSocket (by kosoku), at a server that many use, directly and through the edge. Case by case the
//! verdict is the same: whatever an end makes of a frame, the edge makes no difference.
//!
//! Not the whole of the suite, which takes minutes and asks the server more than the edge: of compression (12, 13) one case of each
//! section, and of large messages in small fragments (9.3, 9.4) not the four that this server is too slow for by itself.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::program::{Edge, replace, soon};
use crate::world::part::{beside, python};

/// What is asked of it.
const CASES: [&str; 11] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*.3", "13.*.3"];
const LEFT_OUT: [&str; 4] = ["9.3.1", "9.3.2", "9.4.1", "9.4.2"];
/// How many there are, at least.
const CASES_LEAST: usize = 300;

/// What became of a case: of its messages, of its end, and the code of that.
type Verdict = (String, String, Value);

#[tokio::test]
async fn p60_each_case_has_the_same_verdict_through_the_edge() {
    let (_server, direct) = echo().await;
    let folder = tempfile::tempdir().unwrap();
    replace(&folder.path().join("table.json"), &json!({"routes": [{"host": "*", "endpoints": [direct]}]}).to_string());
    let edge = Edge::start(folder).await;
    let through = verdicts(edge.address("http"), &edge.path("through")).await;
    let direct = verdicts(direct, &edge.path("direct")).await;
    assert!(direct.len() >= CASES_LEAST, "{}", direct.len());
    let good = direct.values().filter(|verdict| verdict.0 == "OK").count();
    assert!(good > direct.len() * 9 / 10, "the server itself is good: {direct:?}");
    let mut differ = direct.iter().filter(|(case, verdict)| through.get(*case) != Some(*verdict));
    let first = differ.next().map(|(case, verdict)| (case, verdict, through.get(case)));
    assert_eq!(first, None, "and {} more", differ.count());
    assert_eq!(through.len(), direct.len());
}

/// The server, and where it is.
async fn echo() -> (Child, SocketAddr) {
    let mut command = Command::from(python("python"));
    command.arg(beside("python/websocket_echo.py")).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    soon("its port", BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)).await.unwrap();
    (child, SocketAddr::from(([127, 0, 0, 1], line.trim().parse().unwrap())))
}

/// Runs the cases at an address.
async fn verdicts(at: SocketAddr, reports: &Path) -> BTreeMap<String, Verdict> {
    let mut command = Command::from(python("kosoku"));
    command.arg(at.to_string()).args(["--parallelism", "4", "--outdir"]).arg(reports).kill_on_drop(true);
    command.args(CASES.iter().flat_map(|cases| ["--include", cases]));
    command.args(LEFT_OUT.iter().flat_map(|case| ["--exclude", case]));
    // It fails where a case does; which ones, is in the report.
    soon("the cases", command.output()).await.unwrap();
    let report: Value = serde_json::from_slice(&fs::read(reports.join("index.json")).unwrap()).unwrap();
    let agents = report.as_object().unwrap();
    let cases = agents.values().flat_map(|cases| cases.as_object().unwrap());
    let text = |of: &Value| of.as_str().unwrap().to_owned();
    let verdict =
        |case: &Value| (text(&case["behavior"]), text(&case["behaviorClose"]), case["remoteCloseCode"].clone());
    cases.map(|(case, what)| (case.clone(), verdict(what))).collect()
}
