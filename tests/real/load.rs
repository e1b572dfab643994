//! Many requests of h2load, in each protocol: all are answered, and records and metrics have each of them once.

use tokio::process::Command;

use crate::world::origins::nginx;
use crate::world::{HOST, edge, records, soon};

/// Requests of one run: all together are fewer than the queue of records has places.
const REQUESTS: usize = 1500;

#[tokio::test]
async fn every_request_of_h2load_is_answered_recorded_and_counted_once() {
    let nginx = nginx().await;
    let edge = edge(nginx.address).await;
    let (http, https) = (edge.address("http").port(), edge.address("https").port());
    let runs = [
        ("http", http, "HTTP/1.1", &["--h1", "-c", "16"][..]),
        ("http", http, "HTTP/2", &["-c", "8", "-m", "10"]),
        ("https", https, "HTTP/1.1", &["--npn-list=http/1.1", "-c", "8"]),
        ("https", https, "HTTP/2", &["-c", "8", "-m", "10"]),
    ];
    for (scheme, port, _, words) in runs {
        let mut command = Command::new("h2load");
        command.args(["-n", &REQUESTS.to_string()]);
        command.args(words).arg("--connect-to").arg(format!("127.0.0.1:{port}"));
        command.arg(format!("{scheme}://{HOST}:{port}/seen/")).kill_on_drop(true);
        let output = soon("h2load", command.output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let all = format!("{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all), "{scheme} {words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(&format!("status codes: {REQUESTS} 2xx")), "{said}");
    }
    let records = records(&edge, runs.len() * REQUESTS).await;
    assert_eq!(records.len(), runs.len() * REQUESTS);
    let metrics = crate::program::get_path(
        tokio::net::TcpStream::connect(edge.address("admin")).await.unwrap(),
        "admin",
        "/metrics",
    );
    let metrics = metrics.await.unwrap();
    for (protocol, tls) in [("HTTP/1.1", false), ("HTTP/2", false), ("HTTP/1.1", true), ("HTTP/2", true)] {
        let is_one = |record: &&serde_json::Value| record["protocol"] == protocol && record["tls"] == tls;
        assert_eq!(records.iter().filter(is_one).count(), REQUESTS, "{protocol} {tls}");
    }
    for protocol in ["HTTP/1.1", "HTTP/2"] {
        let lines = metrics.lines().filter(|line| line.starts_with("dormouse_requests_total{"));
        let lines = lines.filter(|line| line.contains(&format!("protocol=\"{protocol}\"")));
        let counts = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
        assert_eq!(counts.sum::<f64>(), 2.0 * REQUESTS as f64, "{protocol}: {metrics}");
    }
    assert!(records.iter().all(|record| record["status"] == 200 && record["ended_by"] == "instance"));
}
