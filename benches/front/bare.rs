//! A bare Pingora proxy, to compare with: its own server and listeners, one upstream, no more hooks than it needs, and every
//! setting that speaks for it.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::modules::http::HttpModules;
use pingora::prelude::{HttpPeer, http_proxy_service};
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;

use crate::Result;

/// The word that starts the bench as a bare proxy.
pub(crate) const ROLE: &str = "be-bare";

/// Idle connections to the origin that are kept, as many as Dormouse keeps.
const POOLED: usize = 1024;

struct Bare {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    /// None of Pingora's: the one that it would set up is for compression.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

/// Serves until it is killed. Told: origin, HTTP address, HTTPS address, chain, key, threads, and whether threads steal
/// each other's work.
pub(crate) fn run(told: &[&str]) -> Result<()> {
    let [origin, http, https, chain, key, threads, stealing] = told else { return Err("seven words".into()) };
    let conf = ServerConf {
        threads: threads.parse()?,
        work_stealing: *stealing == "steals",
        upstream_keepalive_pool_size: POOLED,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let peer = HttpPeer::new(origin.parse::<SocketAddr>()?, false, String::new());
    let mut service = http_proxy_service(&server.configuration, Bare { peer });
    service.add_tcp(http);
    let mut tls = TlsSettings::intermediate(chain, key)?;
    tls.enable_h2();
    service.add_tls_with_settings(https, None, tls);
    server.add_service(service);
    server.run_forever();
}
