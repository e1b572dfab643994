//! What operators ask: `/healthz`, `/readyz`, `/table` for what this edge believes, `/connections` for what it has to carry.
//! On the feed's thread.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;

use dormouse_link::{Body, Object, Table};
use http::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::config::Limits;
use crate::drain::Phase;
use crate::edge::Edge;
use crate::front::conn::{Conn, Transport};
use crate::front::fence::Framing;
use crate::front::gate::{self, Gate};
use crate::front::head::{Connection, Head};

/// Connections at a time; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 64;

/// Serves until its thread ends; stays up while the proxy ends, so that `/readyz` can say so. Where the socket was handed over,
/// only the connections stay.
pub(crate) async fn serve(listener: TcpListener, edge: Arc<Edge>, table: Rc<RefCell<Table>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut phase = edge.phase.clone();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        // Each arm is cancel-safe.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(Phase::is_handed_over) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (edge, table) = (Arc::clone(&edge), Rc::clone(&table));
                tokio::task::spawn_local(async move {
                    connection(Conn::new(Transport::Plain(stream.into()), &edge.limits), &edge, &table).await;
                    drop(place);
                });
            }
            Err(error) => {
                if let Some(left_out) = edge.quiet.say(edge.signals.now()) {
                    warn!(%error, left_out, "an admin connection could not be accepted");
                }
                sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(mut conn: Conn, edge: &Edge, table: &RefCell<Table>) {
    let limits: &Limits = &edge.limits;
    loop {
        let idle = Instant::now() + limits.keep_alive;
        // Its connections end with the thread, so that whoever asks hears to the last that the proxy is ending.
        let Gate::Head(head) = gate::next(&mut conn, limits, idle, pending()).await else { return };
        let keep = head.framing == Framing::Empty && head.connection == Connection::KeepAlive;
        let answer = answer(&head, edge, table);
        conn.discard(head.bytes);
        let connection = if keep { "keep-alive" } else { "close" };
        let (status, body) = answer;
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let text = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\
             Connection: {connection}\r\n\r\n{}",
            reason.unwrap_or_default(),
            body.len(),
            if head.method == Method::HEAD { "" } else { &body },
        );
        let written = tokio::time::timeout(limits.client_write, conn.write_all(text.as_bytes())).await;
        if !keep || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

fn answer(head: &Head, edge: &Edge, table: &RefCell<Table>) -> (u16, String) {
    if head.method != Method::GET && head.method != Method::HEAD {
        return (405, json!({"error": "only GET and HEAD are served"}).to_string());
    }
    match head.path() {
        "/healthz" => (200, json!({"healthy": true}).to_string()),
        "/readyz" => {
            let ready = *edge.ready.borrow() && matches!(*edge.phase.borrow(), Phase::Serving);
            (if ready { 200 } else { 503 }, json!({"ready": ready}).to_string())
        }
        "/table" => (200, shown(&table.borrow()).to_string()),
        "/connections" => (200, connections(edge).to_string()),
        _ => (404, json!({"error": "there are /healthz, /readyz, /table and /connections"}).to_string()),
    }
}

/// How many there are, in all and of each worker.
fn connections(edge: &Edge) -> Value {
    let mut shown = edge.budget.shown();
    shown["workers"] = edge.balance.shown();
    shown
}

/// Hashes of passwords can be guessed by whoever has them.
fn without_hashes(mut environment: Value) -> Value {
    if let Some(Value::Array(users)) = environment.pointer_mut("/body/policy/access/basic/users") {
        users.iter_mut().filter_map(Value::as_object_mut).for_each(|user| drop(user.remove("hash")));
    }
    environment
}

/// The table without keys.
fn shown(table: &Table) -> Value {
    let object = |object: &Object| match &object.body {
        Body::Certificate(certificate) => json!({
            "version": object.version,
            "organisation": object.organisation,
            "body": {"kind": "certificate", "host": certificate.host},
        }),
        Body::Route(_) => serde_json::to_value(object).unwrap_or_default(),
        Body::Environment(_) => without_hashes(serde_json::to_value(object).unwrap_or_default()),
    };
    let objects: Vec<Value> = table.objects.values().map(object).collect();
    json!({"term": table.term, "generation": table.generation, "objects": objects})
}
