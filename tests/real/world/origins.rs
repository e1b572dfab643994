//! The servers: each says what it got, or answers as the path asks.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{AppendHeaders, IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::part::{Part, beside, python, server};

/// gunicorn with workers of a kind.
pub(crate) async fn gunicorn(kind: &str) -> Part {
    let mut command = python("gunicorn");
    command.args(["wsgi:application", "--bind", "127.0.0.1:0", "--worker-class", kind]);
    if kind == "gthread" {
        command.args(["--threads", "4"]);
    }
    command.args(["--worker-tmp-dir", "/dev/shm", "--no-control-socket"]);
    Part::saying(command, "Listening at: http://").await
}

pub(crate) async fn uvicorn() -> Part {
    let mut command = python("uvicorn");
    command.args(["asgi:application", "--host", "127.0.0.1", "--port", "0", "--no-use-colors"]);
    Part::saying(command, "running on http://").await
}

/// Node that closes what is idle for so long.
pub(crate) async fn node(keep_alive_ms: u32) -> Part {
    let mut command = Command::new("node");
    command.arg(beside("node/origin.js")).arg(keep_alive_ms.to_string());
    Part::saying(command, "serves at ").await
}

/// nginx with files: `large`, `text`, and what is PUT under `/put/`.
pub(crate) async fn nginx() -> Part {
    Part::at(|folder, address| {
        for name in ["put", "bodies"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        files(folder);
        let config = fs::read_to_string(beside("nginx/nginx.conf")).unwrap();
        let config = config.replace("ADDRESS", &address.to_string()).replace("FOLDER", folder.to_str().unwrap());
        fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut command = server("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        command
    })
    .await
}

/// Apache httpd with a CGI program that says what it got, and the same files under `/files/`.
pub(crate) async fn apache() -> Part {
    Part::at(|folder, address| {
        files(folder);
        for name in ["gateway.py", "echo.py"] {
            fs::copy(beside("python").join(name), folder.join(name)).unwrap();
            fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(folder.join("run")).unwrap();
        fs::set_permissions(folder.join("run"), Permissions::from_mode(0o777)).unwrap();
        let mut command = server("apache2");
        let config = beside("apache/httpd.conf");
        command.args(["-D", "FOREGROUND", "-f"]).arg(config);
        command.env("FOLDER", folder).env("ADDRESS", address.to_string());
        command
    })
    .await
}

/// What is in the file `large`: more than any buffer on the way.
pub(crate) const LARGE: usize = 3 << 20;
/// What is in the file `text`, which compresses well.
pub(crate) const TEXT: &str = "all work and no play makes a dull proxy\n";
/// Lines of it.
pub(crate) const LINES: usize = 1000;

fn files(folder: &Path) {
    let files = folder.join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("large"), many(LARGE)).unwrap();
    fs::write(files.join("text.txt"), TEXT.repeat(LINES)).unwrap();
}

/// So many bytes of the pattern that all origins know.
pub(crate) fn many(count: usize) -> Vec<u8> {
    (0..251).cycle().take(count).collect()
}

/// hyper, under axum, until it is dropped.
pub(crate) async fn hyper() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, mut serving) = (listener.local_addr().unwrap(), JoinSet::new());
    let router = Router::new().fallback(said);
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, serving)
}

async fn said(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/cookies" {
        let set = |value| ("set-cookie", value);
        return (AppendHeaders([set("a=1; Path=/"), set("b=2"), set("a=3")]), "cookies").into_response();
    }
    if path == "/elsewhere" {
        return (StatusCode::FOUND, [("location", "//elsewhere.example:81/../x?y#z")]).into_response();
    }
    let Ok(body) = to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    match path[1..].split_once('/') {
        Some(("bytes", count)) => many(count.parse().unwrap()).into_response(),
        Some(("parts", count)) => {
            let bytes = many(count.parse().unwrap());
            let parts: Vec<_> = bytes.chunks(7001).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
            Body::from_stream(futures_util::stream::iter(parts)).into_response()
        }
        Some(("status", status)) => {
            (StatusCode::from_bytes(status.as_bytes()).unwrap(), [("etag", "\"one\"")]).into_response()
        }
        _ => {
            let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()]
            };
            let fields: Vec<_> = head.headers.iter().map(pair).collect();
            let what = json!({
                "method": head.method.as_str(), "target": head.uri.to_string(), "fields": fields,
                "length": body.len(), "digest": digest(&body),
            });
            ([("content-type", "application/json")], what.to_string()).into_response()
        }
    }
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
