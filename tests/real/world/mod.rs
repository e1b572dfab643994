//! An edge in front of a server of others.

#[path = "../../../proxy/tests/edge/world/client.rs"]
#[expect(dead_code, reason = "the tests of the data plane need more of it")]
pub(crate) mod client;
#[path = "../../../proxy/tests/edge/world/http2/client.rs"]
#[expect(dead_code, reason = "the tests of the data plane need more of it")]
pub(crate) mod http2;
pub(crate) mod origins;
pub(crate) mod part;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

pub(crate) use crate::program::{Edge, soon};
use crate::program::{issue, replace};

/// The host that every edge here serves.
pub(crate) const HOST: &str = "a.example";

/// An edge that speaks HTTP/1 and HTTP/2 on its plain listener and over TLS, and keeps records.
pub(crate) async fn edge(to: SocketAddr) -> Edge {
    edge_with(to, json!({})).await
}

/// The same with a policy.
pub(crate) async fn edge_with(to: SocketAddr, policy: Value) -> Edge {
    let folder = tempfile::tempdir().unwrap();
    let table = json!({
        "environments": {"one": {"endpoints": [to], "policy": policy}},
        "routes": [{"host": HOST, "environment": "one"}],
    });
    replace(&folder.path().join("table.json"), &table.to_string());
    issue(folder.path(), "own", &[HOST]);
    let own = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cert, key, records) = (own("own.pem"), own("own.key"), format!("file:{}", own("access.log")));
    let words = [
        ["--http", "127.0.0.1:0"],
        ["--https", "127.0.0.1:0"],
        ["--admin", "127.0.0.1:0"],
        ["--cert", &cert],
        ["--key", &key],
        ["--access-log", &records],
    ];
    let words: Vec<_> = words.into_iter().flatten().chain(["--http2-prior-knowledge"]).collect();
    Edge::with(folder, &words).await
}

/// The access records, once there are so many.
pub(crate) async fn records(edge: &Edge, count: usize) -> Vec<Value> {
    soon("access records", async {
        loop {
            let text = std::fs::read_to_string(edge.path("access.log")).unwrap_or_default();
            let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            if records.len() >= count {
                return records;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}
