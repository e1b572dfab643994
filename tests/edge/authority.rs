//! An authority over TLS that the system's roots are to prove: `SSL_CERT_FILE` says where they are.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::program::{Edge, Origin, command, origin};

const ANY: &str = "127.0.0.1:0";

/// An edge that asks `url` about its requests, and trusts whom a file names.
async fn asking(url: &str, to: &Origin, roots: &Path) -> Edge {
    let folder = tempfile::tempdir().unwrap();
    let policy = json!({"access": {"forward_auth": {"url": url}}});
    let table = json!({"environments": {"shop": {"endpoints": [to.address], "policy": policy}},
        "routes": [{"host": "a.example", "environment": "shop"}]});
    std::fs::write(folder.path().join("table.json"), table.to_string()).unwrap();
    let mut command = command(folder.path(), &["--http", ANY]);
    command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
    Edge::spawn(Arc::new(folder), command).await
}

#[tokio::test]
async fn an_authority_over_tls_is_proved_by_the_systems_roots_and_told_once_if_it_is_not() {
    let (one, authority) = (origin("one").await, origin("authority").await);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("own.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("own.key"), made.signing_key.serialize_pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("other.pem"), other.cert.pem()).unwrap();
    let table = json!({"routes": [{"host": "*", "endpoints": [authority.address]}]});
    std::fs::write(path("table.json"), table.to_string()).unwrap();
    let (own, key) = (path("own.pem"), path("own.key"));
    let words = ["--https", ANY, "--cert", own.to_str().unwrap(), "--key", key.to_str().unwrap()];
    // An edge with TLS before the authority.
    let before = Edge::spawn(Arc::new(tempfile::tempdir().unwrap()), command(folder.path(), &words)).await;
    let url = format!("https://{}/check", before.address("https"));

    let edge = asking(&url, &one, &own).await;
    assert_eq!(edge.get("a.example").await.as_deref(), Ok("one"));
    for (roots, words) in
        [("other.pem", "invalid peer certificate: "), ("nowhere.pem", "this system trusts no authority")]
    {
        let mut edge = asking(&url, &one, &path(roots)).await;
        for _ in 0..5 {
            assert_eq!(edge.get("a.example").await, Err(503), "{roots}");
        }
        edge.signal("TERM").await;
        let log = edge.all().await;
        let told: Vec<_> = log.iter().filter(|line| line.contains("an authority does not answer")).collect();
        assert!(told.len() == 1 && told[0].contains(words), "{roots}: {log:#?}");
    }
}
