use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;

/// An engine at a socket that says `said` to whoever asks, and then nothing more.
fn engine_that_says(folder: &Path, said: String) -> String {
    let path = folder.join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        let mut open: Vec<UnixStream> = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            drop(client.read(&mut [0; 1024]).await);
            drop(client.write_all(said.as_bytes()).await);
            open.push(client);
        }
    });
    format!("unix://{}", path.display())
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn refusal(address: &str) -> EngineError {
    Docker::connect(Some(address), "test").await.err().expect("it cannot be used")
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone.sock");
    for address in [gone.to_str().unwrap(), "tcp://127.0.0.1:1", "ssh://somewhere", "nonsense"] {
        let error = refusal(address).await;
        assert!(matches!(&error, EngineError::Unavailable { address: said, .. } if said == address), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_silent_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let begun = tokio::time::Instant::now();
    let error = refusal(&engine_that_says(folder.path(), String::new())).await;
    assert!(matches!(error, EngineError::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed() <= ANSWER_WITHIN + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_falls_silent_in_mid_answer_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned();
    let error = refusal(&engine_that_says(folder.path(), half)).await;
    assert!(matches!(error, EngineError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn an_engine_that_hangs_is_found_before_a_visitor_loses_patience() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        // It says its version, once, and takes what comes then without a word.
        let (mut first, _) = listener.accept().await.unwrap();
        drop(first.read(&mut [0; 1024]).await);
        first.write_all(answer(r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#).as_bytes()).await.unwrap();
        let mut open = vec![first];
        while let Ok((client, _)) = listener.accept().await {
            open.push(client);
        }
    });
    let engine = Docker::connect(path.to_str(), "test").await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = engine.stop(&InstanceId::new("i"), Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(error, EngineError::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed() < PULSE_EVERY + PULSE_WITHIN + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&engine_that_says(folder.path(), answer(r#"{"ApiVersion":"1.40"}"#))).await;
    let EngineError::TooOld { found, needed, .. } = &error else { panic!("{error:?}") };
    assert_eq!((found.as_str(), needed.as_str()), ("1.40", "1.41"));
    let folder = tempfile::tempdir().unwrap();
    let new = engine_that_says(folder.path(), answer(r#"{"ApiVersion":"1.41"}"#));
    assert!(Docker::connect(Some(&new), "test").await.is_ok());
}

#[tokio::test]
async fn an_engine_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&engine_that_says(folder.path(), answer("<html>"))).await;
    assert!(matches!(error, EngineError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn an_installation_is_named_by_a_label() {
    for bad in ["", "Upper", "a/b", "a b", "-a", &"x".repeat(41)] {
        let refused = Docker::connect(Some("tcp://127.0.0.1:1"), bad).await;
        assert!(matches!(refused, Err(EngineError::Refused { .. })), "{bad:?}");
    }
}
