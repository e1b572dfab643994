//! What the files say is served; what is wrong in them is told, and changes nothing.

use std::fs;
use std::sync::Arc;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) use crate::program::issue;
use crate::program::{Edge, folder, get, origin, refused, replace, write_table};

#[tokio::test]
async fn a_table_file_is_served_and_taken_again_when_it_changes() {
    let (one, two) = (origin("one").await, origin("two").await);
    let edge = Edge::start(folder(&[("a.example", &one)])).await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    assert_eq!(edge.get("b.example").await, Err(404));
    write_table(edge.folder(), &[("a.example", &two), ("b.example", &one)]);
    edge.until("a.example", Ok("two")).await;
    edge.until("b.example", Ok("one")).await;
    write_table(edge.folder(), &[("b.example", &one)]);
    edge.until("a.example", Err(404)).await;
    assert_eq!(edge.get("b.example").await, Ok("one".to_owned()));
}

#[tokio::test]
async fn a_bad_table_is_told_with_its_place_and_the_old_one_stays() {
    let one = origin("one").await;
    let mut edge = Edge::start(folder(&[("a.example", &one)])).await;
    replace(&edge.path("table.json"), r#"{"routes": [{"host": "a.example", "endpoints": []}]}"#);
    let line = edge.says("the files are not taken; what was served goes on").await;
    assert!(line.contains("table.json") && line.contains("routes[0]"), "{line}");
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    fs::remove_file(edge.path("table.json")).unwrap();
    edge.says("cannot read").await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    write_table(edge.folder(), &[("b.example", &one)]);
    edge.until("b.example", Ok("one")).await;
}

#[tokio::test]
async fn files_that_could_not_be_read_are_read_again_until_they_are() {
    let (one, two) = (origin("one").await, origin("two").await);
    let mut edge = Edge::start(folder(&[("a.example", &one)])).await;
    let pid = Pid::from_raw(edge.id().cast_signed());
    let descriptors = |limit| prlimit(pid, Resource::Nofile, limit).unwrap();
    let before = descriptors(Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) });
    write_table(edge.folder(), &[("a.example", &two)]);
    let line = edge.says("the files are not taken; what was served goes on").await;
    assert!(line.contains("cannot read") && line.contains("table.json"), "{line}");
    descriptors(before);
    edge.until("a.example", Ok("two")).await;
}

#[tokio::test]
async fn a_hup_signal_has_the_files_read_whether_they_seem_changed_or_not() {
    let one = origin("one").await;
    let mut edge = Edge::start(folder(&[("a.example", &one)])).await;
    edge.signal("HUP").await;
    edge.says("table file taken generation=2 changed=0").await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
}

/// What somebody who reads HTML gets.
async fn page(edge: &Edge, host: &str) -> String {
    let mut stream = TcpStream::connect(edge.address("http")).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_page_is_read_with_the_table_and_again_when_it_changes() {
    let one = origin("one").await;
    let folder = folder(&[]);
    let page_file = |text: &str| {
        format!(
            r#"{{"routes": [{{"host": "a.example", "environment": "a"}}, {{"host": "b.example", "environment": "b"}}],
            "environments": {{
              "a": {{"endpoints": ["{one}"], "policy": {{"maintenance": {{}}, "pages": {{"maintenance": {{"file": "{text}"}}}}}}}},
              "b": {{"endpoints": ["{one}"], "policy": {{"maintenance": {{}}, "pages": {{"maintenance": {{"file": "sub/page.html"}}}}}}}}}}}}"#,
            one = one.address
        )
    };
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/page.html"), "<p>first</p>").unwrap();
    replace(&folder.path().join("table.json"), &page_file("sub/page.html"));
    let mut edge = Edge::start(folder).await;
    assert_eq!(page(&edge, "a.example").await, "<p>first</p>");
    replace(&edge.path("sub/page.html"), "<p>second</p>");
    edge.says("generation=2").await;
    assert_eq!(
        (page(&edge, "a.example").await, page(&edge, "b.example").await),
        ("<p>second</p>".into(), "<p>second</p>".into())
    );
    // What cannot be shown is told with its place, and the page before it stays.
    for (text, words) in [(String::new(), "is empty"), ("x".repeat(65_537), "is larger than 65536 bytes")] {
        replace(&edge.path("sub/page.html"), &text);
        let line = edge.says(words).await;
        assert!(line.contains("environments.a.policy.pages.maintenance") && line.contains("sub/page.html"), "{line}");
    }
    assert_eq!(page(&edge, "a.example").await, "<p>second</p>");
    replace(&edge.path("table.json"), &page_file("none.html"));
    let line = edge.says("none.html").await;
    assert!(line.contains("environments.a.policy.pages.maintenance"), "{line}");
    // It comes.
    replace(&edge.path("sub/page.html"), "<p>third</p>");
    replace(&edge.path("none.html"), "<p>there</p>");
    edge.says("generation=3").await;
    assert_eq!(
        (page(&edge, "a.example").await, page(&edge, "b.example").await),
        ("<p>there</p>".into(), "<p>third</p>".into())
    );
}

#[tokio::test]
async fn it_does_not_start_with_files_that_cannot_be_served() {
    let one = origin("one").await;
    let good = folder(&[("a.example", &one)]);
    let path = |name: &str| good.path().join(name).to_str().unwrap().to_owned();
    issue(good.path(), "own", &["a.example"]);
    issue(good.path(), "other", &["b.example"]);
    fs::write(path("text"), "this is no PEM").unwrap();
    for (chain, key, words) in [
        ("missing", "own.key", "cannot read"),
        ("text", "own.key", "read the certificate chain as PEM"),
        ("own.pem", "text", "read the private key as PEM"),
        ("own.pem", "other.key", "use the key with the certificate"),
    ] {
        let (code, said) =
            refused(good.path(), &["--http", "127.0.0.1:0", "--cert", &path(chain), "--key", &path(key)]).await;
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(words) && said.contains(chain) && said.contains("hint: "), "{said}");
    }
    let paged = r#"{"routes": [{"host": "a.example", "environment": "a"}], "environments": {"a": {"endpoints": ["127.0.0.1:1"],
        "policy": {"pages": {"waking": {"file": "away.html"}}}}}}"#;
    for (table, words) in [
        (paged, "environments.a.policy.pages.waking"),
        ("", "EOF while parsing"),
        ("{\"routes\": [{}]}", "missing field `host` at line 1"),
        ("\u{7f}", "line 1 column 1"),
    ] {
        replace(&good.path().join("table.json"), table);
        let (code, said) = refused(good.path(), &["--http", "127.0.0.1:0"]).await;
        assert_eq!(code, 78, "{said}");
        assert!(
            said.contains(words) && said.contains(if table == paged { "away.html" } else { "table.json" }),
            "{said}"
        );
    }
}

#[tokio::test]
async fn the_command_line_says_what_is_missing() {
    let good = folder(&[]);
    for (words, code, said) in [
        (vec!["--cert", "x"], 64, "--key <FILE>"),
        (vec!["--key", "x"], 64, "--cert <FILE>"),
        (vec!["--http", "127.0.0.1:1", "--https", "127.0.0.1:1"], 78, "--http and --https are both 127.0.0.1:1"),
        (vec!["--workers", "0"], 64, "--workers"),
        (vec!["--drain", "soon"], 64, "a time is a number and its unit"),
    ] {
        let (got, text) = refused(good.path(), &words).await;
        assert!(got == code && text.contains(said), "{words:?} ended with {got}: {text}");
    }
}

#[tokio::test]
async fn p51_each_name_gets_its_certificate_and_others_the_listeners_own() {
    let origin = origin("one").await;
    let one = origin.address;
    let folder = folder(&[]);
    issue(folder.path(), "a", &["a.example"]);
    issue(folder.path(), "own", &["b.example"]);
    let table = format!(
        r#"{{"routes": [{{"host": "a.example", "endpoints": ["{one}"]}}, {{"host": "b.example", "endpoints": ["{one}"]}}],
            "certificates": [{{"host": "a.example", "chain": "a.pem", "key": "a.key"}}]}}"#
    );
    replace(&folder.path().join("table.json"), &table);
    let own = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let words = ["--https", "127.0.0.1:0", "--cert", &own("own.pem"), "--key", &own("own.key")];
    let mut edge = Edge::with(folder, &words).await;
    assert_eq!(over_tls(&edge, "a.pem", "a.example").await, Ok("one".to_owned()));
    assert_eq!(over_tls(&edge, "own.pem", "b.example").await, Ok("one".to_owned()));
    // A chain whose key is another's changes nothing; with its key it is taken.
    fs::copy(edge.path("own.pem"), edge.path("old.pem")).unwrap();
    let key = issue(edge.folder(), "new", &["b.example"]);
    replace(&edge.path("own.pem"), &fs::read_to_string(edge.path("new.pem")).unwrap());
    edge.says("the certificate of the listener").await;
    assert_eq!(over_tls(&edge, "old.pem", "b.example").await, Ok("one".to_owned()));
    replace(&edge.path("own.key"), &key);
    edge.says("generation=2").await;
    assert_eq!(over_tls(&edge, "new.pem", "b.example").await, Ok("one".to_owned()));
}

#[tokio::test]
async fn told_to_stop_it_ends_well_and_at_once_when_nothing_runs() {
    for signal in ["TERM", "INT"] {
        let mut edge = Edge::start(folder(&[])).await;
        edge.signal(signal).await;
        assert!(edge.ended().await.success());
    }
}

/// One request of a client that trusts nothing but that file.
pub(crate) async fn over_tls(edge: &Edge, trusted: &str, host: &str) -> Result<String, u16> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(edge.path(trusted)).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TcpStream::connect(edge.address("https")).await.unwrap();
    get(TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap(), host).await
}
