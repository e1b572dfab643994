//! What operators ask: `/healthz`, `/readyz`, `/metrics`, `/table` for what this edge believes, `/connections` for what it has
//! to carry. On the feed's thread. Visitors' listeners know none of these.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dormouse_link::{Body as Told, Object, Table};
use http::Method;
use prometheus::TEXT_FORMAT;
use prometheus::process_collector::ProcessCollector;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::config::Limits;
use crate::drain::Phase;
use crate::edge::Edge;
use crate::front::conn::{Conn, Transport};
use crate::front::fence::Framing;
use crate::front::gate::{self, Gate};
use crate::front::head::{Connection, Head};
use crate::metrics::{Believed, scrape as scrape_text};

/// Connections at a time; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 64;
/// Texts of metrics that are being written at a time; more are answered by 503.
const SCRAPES_MAX: usize = 4;

/// What answers are made of, beside the edge.
struct Desk {
    table: Rc<RefCell<Table>>,
    process: ProcessCollector,
    scrapes: Arc<Semaphore>,
}

/// Serves until its thread ends; stays up while the proxy ends, so that `/readyz` can say so. Where the socket was handed over,
/// only the connections stay.
pub(crate) async fn serve(listener: TcpListener, edge: Arc<Edge>, table: Rc<RefCell<Table>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let scrapes = Arc::new(Semaphore::new(SCRAPES_MAX));
    let desk = Rc::new(Desk { table, process: ProcessCollector::for_self(), scrapes });
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
                let (edge, desk) = (Arc::clone(&edge), Rc::clone(&desk));
                tokio::task::spawn_local(async move {
                    connection(Conn::new(Transport::Plain(stream.into()), &edge.limits), &edge, &desk).await;
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

async fn connection(mut conn: Conn, edge: &Edge, desk: &Desk) {
    let limits: &Limits = &edge.limits;
    loop {
        let idle = Instant::now() + limits.keep_alive;
        // Its connections end with the thread, so that whoever asks hears to the last that the proxy is ending.
        let Gate::Head(head) = gate::next(&mut conn, limits, idle, pending()).await else { return };
        let keep = head.framing == Framing::Empty && head.connection == Connection::KeepAlive;
        let answer = answer(&head, edge, desk);
        conn.discard(head.bytes);
        let connection = if keep { "keep-alive" } else { "close" };
        let Answer { status, content_type, body } = &answer;
        let reason = http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        let text = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\
             Connection: {connection}\r\n\r\n",
            reason.unwrap_or_default(),
            body.len(),
        );
        let written = tokio::time::timeout(limits.client_write, async {
            conn.write_all(text.as_bytes()).await?;
            if head.method != Method::HEAD {
                conn.write_all(body.as_bytes()).await?;
            }
            conn.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) || !keep {
            return;
        }
    }
}

/// What is answered.
struct Answer {
    status: u16,
    content_type: &'static str,
    body: Body,
}

/// A text of metrics is large where there are many environments: it counts as one of [`SCRAPES_MAX`] until it is written.
struct Body {
    text: String,
    _scrape: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Body {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl Answer {
    fn json(status: u16, value: &Value) -> Self {
        Self { status, content_type: "application/json", body: Body { text: value.to_string(), _scrape: None } }
    }
}

fn answer(head: &Head, edge: &Edge, desk: &Desk) -> Answer {
    if head.method != Method::GET && head.method != Method::HEAD {
        return Answer::json(405, &json!({"error": "only GET and HEAD are served"}));
    }
    match head.path() {
        "/healthz" => Answer::json(200, &json!({"healthy": true})),
        "/readyz" => {
            let ready = edge.is_ready();
            Answer::json(if ready { 200 } else { 503 }, &json!({"ready": ready}))
        }
        "/metrics" => metrics(edge, desk),
        "/table" => Answer::json(200, &shown(&desk.table.borrow(), edge)),
        "/connections" => Answer::json(200, &connections(edge)),
        _ => {
            let known = "there are /healthz, /readyz, /metrics, /table and /connections";
            Answer::json(404, &json!({"error": known}))
        }
    }
}

fn metrics(edge: &Edge, desk: &Desk) -> Answer {
    let Ok(scrape) = Arc::clone(&desk.scrapes).try_acquire_owned() else {
        return Answer::json(503, &json!({"error": "others are being told the metrics right now"}));
    };
    let table = desk.table.borrow();
    let mut believed = Believed { term: table.term.0, generation: table.generation.0, ..Believed::default() };
    for object in table.objects.values() {
        *match object.body {
            Told::Route(_) => &mut believed.routes,
            Told::Environment(_) => &mut believed.environments,
            Told::Certificate(_) => &mut believed.certificates,
        } += 1;
    }
    let text = scrape_text(edge, &desk.process, &believed);
    Answer { status: 200, content_type: TEXT_FORMAT, body: Body { text, _scrape: Some(scrape) } }
}

/// How many there are, in all, of each listener and of each worker; and whether that is too much.
fn connections(edge: &Edge) -> Value {
    let mut shown = edge.budget.shown();
    shown["workers"] = edge.balance.shown();
    shown["retries"] = edge.signals.tally.shown();
    shown["overload"] = edge.overload.shown();
    shown
}

/// Hashes of passwords can be guessed by whoever has them.
fn without_hashes(mut environment: Value) -> Value {
    if let Some(Value::Array(users)) = environment.pointer_mut("/body/policy/access/basic/users") {
        users.iter_mut().filter_map(Value::as_object_mut).for_each(|user| drop(user.remove("hash")));
    }
    environment
}

/// The table without keys and hashes, and for how long nothing of it has changed.
fn shown(table: &Table, edge: &Edge) -> Value {
    let object = |object: &Object| match &object.body {
        Told::Certificate(certificate) => json!({
            "version": object.version,
            "organisation": object.organisation,
            "body": {"kind": "certificate", "host": certificate.host},
        }),
        Told::Route(_) => serde_json::to_value(object).unwrap_or_default(),
        Told::Environment(_) => without_hashes(serde_json::to_value(object).unwrap_or_default()),
    };
    let objects: Vec<Value> = table.objects.values().map(object).collect();
    let age_ms = edge.signals.now().saturating_sub(edge.metrics.updated.load(Ordering::Relaxed));
    json!({"term": table.term, "generation": table.generation, "age_ms": age_ms, "objects": objects})
}
