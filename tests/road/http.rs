//! A visitor: one request to the edge, by host name.

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nothing here takes longer; what does has hung.
const WITHIN: Duration = Duration::from_secs(90);

/// What a visitor got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

/// A visitor whose connections are kept alive, as a browser's are.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    client: reqwest::Client,
    edge: SocketAddr,
}

impl Visitor {
    pub(crate) fn new(edge: SocketAddr) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(WITHIN).build().expect("a client");
        Self { client, edge }
    }

    /// A visitor with a new connection for each request.
    pub(crate) fn fleeting(edge: SocketAddr) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(WITHIN).pool_max_idle_per_host(0);
        Self { client: client.build().expect("a client"), edge }
    }

    pub(crate) async fn get(&self, host: &str, path: &str) -> reqwest::Result<Answer> {
        self.send(self.client.get(self.url(path)), host).await
    }

    pub(crate) async fn post(&self, host: &str, path: &str, body: Vec<u8>) -> reqwest::Result<Answer> {
        self.send(self.client.post(self.url(path)).body(body), host).await
    }

    /// As a browser goes to a page.
    pub(crate) async fn navigate(&self, host: &str) -> reqwest::Result<Answer> {
        let request = self.client.get(self.url("/")).header("accept", "text/html").header("sec-fetch-dest", "document");
        self.send(request, host).await
    }

    /// With a password.
    pub(crate) async fn get_as(&self, host: &str, user: &str, password: &str) -> reqwest::Result<Answer> {
        self.send(self.client.get(self.url("/")).basic_auth(user, Some(password)), host).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.edge)
    }

    async fn send(&self, request: reqwest::RequestBuilder, host: &str) -> reqwest::Result<Answer> {
        let response = request.header("host", host).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await? })
    }
}

/// One request over TLS, trusting only the authority of `ca`: the whole answer as text.
pub(crate) async fn over_tls(edge: SocketAddr, ca: &std::path::Path, host: &str) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).expect("the authority's certificate");
    roots.add(ca).expect("it is one");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(edge).await?;
    let name = host.to_owned().try_into().expect("a host name");
    let mut stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        Ok(_) => {}
        // A close without close_notify ends an answer that has its length.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
