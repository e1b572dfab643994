//! What people do with curl works in each protocol, and is recorded as it was.

use std::fs;
use std::path::Path;

use tokio::process::Command;

use crate::world::origins::{LARGE, LINES, TEXT, many, nginx};
use crate::world::part::Part;
use crate::world::{Edge, HOST, edge, records, soon};

/// How curl is told to speak, on which listener, and what comes of it in the records.
const PROTOCOLS: [(&str, &str, &str); 7] = [
    ("http", "--http1.0", "HTTP/1.0"),
    ("http", "--http1.1", "HTTP/1.1"),
    // Asks for an upgrade, which nobody has to grant (P13).
    ("http", "--http2", "HTTP/1.1"),
    ("http", "--http2-prior-knowledge", "HTTP/2"),
    ("https", "--http1.0", "HTTP/1.0"),
    ("https", "--http1.1", "HTTP/1.1"),
    ("https", "--http2", "HTTP/2"),
];

/// Runs curl; returns its status and the body that it got.
async fn curl(edge: &Edge, (scheme, protocol): (&str, &str), path: &str, words: &[&str]) -> (u16, Vec<u8>) {
    let port = edge.address(scheme).port();
    let into = edge.path("curl.out");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30", "--write-out", "%{http_code}", protocol]);
    command.arg("--connect-to").arg(format!("{HOST}:{port}:127.0.0.1:{port}"));
    command.arg("--cacert").arg(edge.path("own.pem")).arg("--output").arg(&into);
    command.args(words).arg(format!("{scheme}://{HOST}:{port}{path}")).kill_on_drop(true);
    let output = soon("curl", command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scheme} {protocol} {path} {words:?}: {said}");
    let status = String::from_utf8_lossy(&output.stdout).parse().unwrap();
    let body = fs::read(&into).unwrap_or_default();
    // Unless the next one goes on with it.
    if !words.contains(&"--continue-at") {
        let _ = fs::remove_file(&into);
    }
    (status, body)
}

/// All that is done in one protocol; how often.
async fn each(edge: &Edge, nginx: &Part, (how, recorded): ((&str, &str), &str), file: &Path) -> usize {
    let large = many(LARGE);
    let name = file.to_str().unwrap();
    let data = format!("@{name}");
    assert_eq!(curl(edge, how, "/files/large", &[]).await, (200, large.clone()));
    assert_eq!(curl(edge, how, "/files/large", &["--head"]).await.0, 200);
    assert_eq!(curl(edge, how, "/files/large", &["--range", "10-19"]).await, (206, large[10..20].to_vec()));
    fs::write(edge.path("curl.out"), &large[..1000]).unwrap();
    assert_eq!(curl(edge, how, "/files/large", &["--continue-at", "1000"]).await, (206, large.clone()));
    fs::remove_file(edge.path("curl.out")).unwrap();
    let text = TEXT.repeat(LINES).into_bytes();
    assert_eq!(curl(edge, how, "/files/text.txt", &["--compressed"]).await, (200, text));
    assert_eq!(curl(edge, how, "/seen/", &["--data", "a=b"]).await, (200, b"seen".to_vec()));
    // More than a megabyte has curl ask first whether it may. Over HTTP/2 it does not; and 7.88 waits for ever where the answer comes
    // before the body was sent, whatever it is told.
    let posts = !recorded.ends_with('2');
    if posts {
        assert_eq!(curl(edge, how, "/seen/", &["--data-binary", &data]).await, (200, b"seen".to_vec()));
    }
    let put = format!("/put/{}{}", how.0, how.1);
    for words in [&["--upload-file", name][..], &["--upload-file", name, "--header", "Expect: 100-continue"]] {
        let (status, _) = curl(edge, how, &put, words).await;
        assert!(status == 201 || status == 204, "{status}");
    }
    assert_eq!(curl(edge, how, &put, &[]).await, (200, large));
    let straight = crate::world::client::Client::connect(nginx.address).await.get(HOST, &put).await;
    assert_eq!(straight.body.len(), LARGE);
    assert_eq!(curl(edge, how, "/elsewhere", &[]).await.0, 302);
    10 + usize::from(posts)
}

#[tokio::test]
async fn p13_p17_p73_curl_gets_and_sends_what_it_is_told_in_each_protocol() {
    let nginx = nginx().await;
    let edge = edge(nginx.address).await;
    let file = edge.path("upload");
    fs::write(&file, many(LARGE)).unwrap();
    let mut done = 0;
    for (scheme, protocol, recorded) in PROTOCOLS {
        let count = each(&edge, &nginx, ((scheme, protocol), recorded), &file).await;
        let records = records(&edge, done + count).await;
        assert_eq!(records.len(), done + count, "{scheme} {protocol}: each is one request");
        for record in &records[done..] {
            let is_tls = scheme == "https";
            // nginx answers a POST before it has the body, and curl may leave with the rest of it.
            let is_whole = record["ended_by"] == "instance" || record["method"] == "POST";
            assert!(record["protocol"] == recorded && record["tls"] == is_tls && is_whole, "{record}");
        }
        done += count;
    }
}
