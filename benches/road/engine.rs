//! The Docker Engine, asked directly: no client program whose own start would be measured, and nothing of Dormouse.
//!
//! Used for what Dormouse is compared with, and to look at what it made. One connection a call.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::Result;

/// The API version of the oldest engine that Dormouse works with.
const VERSION: &str = "v1.41";

/// The longest answer that is read.
const ANSWER_MAX: u64 = 16 << 20;

/// The label of what is made here.
const LABEL: &str = "dormouse.bench";

/// An engine, and what was made on it.
pub(crate) struct Engine {
    socket: PathBuf,
    /// The value of [`LABEL`], and the name of the network.
    name: String,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Self { socket: "/var/run/docker.sock".into(), name: format!("dormouse-bench-{}", std::process::id()) }
    }

    /// Makes an ordinary bridge network that [`Engine::clean`] removes, and returns its name.
    pub(crate) async fn network(&self) -> Result<&str> {
        let body = json!({ "Name": self.name, "CheckDuplicate": true, "Driver": "bridge" });
        self.call("POST", "/networks/create", Some(&body)).await?;
        Ok(&self.name)
    }

    /// One call: the document that it answers, `null` where it has none.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut socket = UnixStream::connect(&self.socket).await.map_err(|error| {
            format!("no Docker Engine at {}: {error}; this compares with one on this machine", self.socket.display())
        })?;
        let body = body.map(Value::to_string).unwrap_or_default();
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let request = format!(
            "{method} /{VERSION}{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, text) = answer.split_once("\r\n\r\n").ok_or("the engine did not answer")?;
        let ok = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2') || status == "304");
        if !ok {
            return Err(format!("the engine to {method} {path}: {}", text.trim()).into());
        }
        Ok(serde_json::from_str(text).unwrap_or(Value::Null))
    }

    pub(crate) async fn inspect(&self, container: &str) -> Result<Value> {
        self.call("GET", &format!("/containers/{container}/json"), None).await
    }

    /// The ids of containers with a label, running or not.
    pub(crate) async fn with_label(&self, label: &str) -> Result<Vec<String>> {
        let filters = json!({ "label": [label] }).to_string();
        let filters: String = filters.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let list = self.call("GET", &format!("/containers/json?all=true&filters={filters}"), None).await?;
        let ids = list.as_array().into_iter().flatten();
        Ok(ids.filter_map(|found| found["Id"].as_str().map(str::to_owned)).collect())
    }

    /// Makes a container that [`Engine::clean`] removes.
    pub(crate) async fn create(&self, mut body: Value) -> Result<String> {
        body["Labels"] = json!({ LABEL: self.name });
        let made = self.call("POST", "/containers/create", Some(&body)).await?;
        Ok(made["Id"].as_str().ok_or("a container has an id")?.to_owned())
    }

    pub(crate) async fn start(&self, container: &str) -> Result<()> {
        self.call("POST", &format!("/containers/{container}/start"), None).await.map(drop)
    }

    pub(crate) async fn stop(&self, container: &str) -> Result<()> {
        self.call("POST", &format!("/containers/{container}/stop?t=10"), None).await.map(drop)
    }

    /// Its address in the network.
    pub(crate) async fn address(&self, container: &str) -> Result<std::net::IpAddr> {
        let found = self.inspect(container).await?;
        let address = found["NetworkSettings"]["Networks"][&self.name]["IPAddress"].as_str().unwrap_or_default();
        Ok(address.parse()?)
    }

    /// Removes what was made here.
    pub(crate) async fn clean(&self) -> Result<()> {
        for container in self.with_label(&format!("{LABEL}={}", self.name)).await? {
            self.call("DELETE", &format!("/containers/{container}?force=true&v=true"), None).await?;
        }
        let networks = self.call("GET", "/networks", None).await?;
        if networks.as_array().into_iter().flatten().any(|network| network["Name"] == self.name.as_str()) {
            self.call("DELETE", &format!("/networks/{}", self.name), None).await?;
        }
        Ok(())
    }
}
