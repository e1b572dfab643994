//! Spans of requests to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! A thread of its own takes them from the proxy's queue and sends them together. What the collector does not take in time is
//! dropped and counted; no request waits for it, and the end of the program only for a moment.

use std::str::FromStr;

use dormouse_proxy::Share;
#[cfg(not(feature = "otlp"))]
use dormouse_proxy::Spans;

use crate::failure::{Exit, Failure};

/// Where a collector takes spans: an `http` URL, without a path that of the standard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(String);

/// Where spans go, and of which requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// To whom.
    pub to: Collector,
    /// Of so many of the traces that begin here.
    pub share: Share,
}

/// A share of traces, as people say it: a number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(pub Share);

/// Why what was said is no share.
const NO_SHARE: &str = "a share is a number from 0 to 1, like 0.25";
/// The longest number that is one, in bytes.
const SHARE_MAX_BYTES: usize = 20;

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // No sign and no exponent: 1e-3 is more easily misread than 0.001.
        let plain = text.len() <= SHARE_MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        text.parse().ok().filter(|_| plain).and_then(Share::of).map(Self).ok_or_else(|| NO_SHARE.to_owned())
    }
}

impl TryFrom<f64> for Sample {
    type Error = String;

    fn try_from(ratio: f64) -> Result<Self, String> {
        Share::of(ratio).map(Self).ok_or_else(|| NO_SHARE.to_owned())
    }
}

/// The path of spans (OTLP specification, OTLP/HTTP).
const PATH: &str = "/v1/traces";
/// The longest URL.
const URL_MAX_BYTES: usize = 2048;

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = reqwest::Url::parse(text).ok().filter(|url| {
            let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
            url.scheme() == "http" && url.has_host() && plain && text.len() <= URL_MAX_BYTES && text.is_ascii()
        });
        let Some(mut url) = url.filter(|_| !text.bytes().any(|byte| byte.is_ascii_control())) else {
            return Err("give http://HOST:PORT of a collector".to_owned());
        };
        if url.path() == "/" {
            url.set_path(PATH);
        }
        Ok(Self(url.into()))
    }
}

/// What runs until the last span was sent.
pub(crate) struct Exporter {
    #[cfg(feature = "otlp")]
    ended: std::sync::mpsc::Receiver<()>,
}

#[cfg(not(feature = "otlp"))]
pub(crate) fn start(_: &Export, _: (&str, &str)) -> Result<(Spans, Exporter), Failure> {
    Err(Failure::new(Exit::Configuration, "this program was built without OTLP").hint("leave --otlp away"))
}

#[cfg(feature = "otlp")]
pub(crate) use export::start;

impl Exporter {
    /// Waits for the last spans, for a moment; every proxy that leaves some has ended before.
    pub(crate) fn finish(self) {
        #[cfg(feature = "otlp")]
        let _ended = self.ended.recv_timeout(export::END);
    }
}

#[cfg(feature = "otlp")]
mod export {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;

    use dormouse_proxy::{Span, Spans, Told};
    use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceState};
    use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId};
    use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
    use tracing::warn;

    use super::{Exit, Export, Exporter, Failure};

    /// Spans that are sent together.
    const BATCH_MAX: usize = 512;
    /// How long spans gather: to be woken for each would cost more than to send it.
    const GATHER: Duration = Duration::from_millis(200);
    /// How long a collector may take.
    const EXPORT: Duration = Duration::from_secs(5);
    /// How long the end of the program waits for it.
    pub(super) const END: Duration = Duration::from_secs(3);

    /// Starts the thread; `edge` and `region` are told with all spans.
    pub(crate) fn start(what: &Export, (edge, region): (&str, &str)) -> Result<(Spans, Exporter), Failure> {
        let cannot = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(Exit::CannotCreate, "cannot export spans").because(error)
        };
        let client = reqwest::Client::builder().timeout(EXPORT).no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().map_err(|error| cannot(&error))?;
        let exporter = SpanExporter::builder().with_http().with_http_client(client);
        let exporter = exporter.with_endpoint(&what.to.0).with_timeout(EXPORT).build();
        let mut exporter = exporter.map_err(|error| cannot(&error))?;
        exporter.set_resource(&Resource::builder_empty().with_attributes(resource(edge, region)).build());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| cannot(&error))?;
        let (spans, queued) = Spans::queue(what.share);
        let told = spans.told();
        let (ending, ended) = sync_channel(1);
        let thread = std::thread::Builder::new().name("dormouse-otlp".into());
        let run = move || {
            runtime.block_on(export(&exporter, &queued, &told));
            drop(ending);
        };
        thread.spawn(run).map_err(|error| cannot(&error))?;
        Ok((spans, Exporter { ended }))
    }

    /// Until there can be no more. Only this runs on the thread, so that it may wait for the queue as it is.
    async fn export(exporter: &SpanExporter, queued: &Receiver<Span>, told: &Arc<Told>) {
        let scope = InstrumentationScope::builder("dormouse").with_version(env!("CARGO_PKG_VERSION")).build();
        let mut failing = false;
        while let Ok(first) = queued.recv() {
            std::thread::park_timeout(GATHER);
            let rest = queued.try_iter().take(BATCH_MAX - 1);
            let batch: Vec<_> = std::iter::once(first).chain(rest).map(|span| data(span, &scope)).collect();
            let count = batch.len() as u64;
            match tokio::time::timeout(EXPORT, exporter.export(batch)).await {
                Ok(Ok(())) => {
                    told.exported(count);
                    failing = false;
                }
                failed => {
                    told.lost(count);
                    if !std::mem::replace(&mut failing, true) {
                        let error = failed.map_or_else(|_| "it took too long".to_owned(), |said| format!("{said:?}"));
                        warn!(error, "the collector does not take spans; they are dropped and counted");
                    }
                }
            }
        }
    }

    fn resource(edge: &str, region: &str) -> [KeyValue; 4] {
        [
            KeyValue::new("service.name", "dormouse"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", edge.to_owned()),
            KeyValue::new("dormouse.region", region.to_owned()),
        ]
    }

    /// By the conventions for HTTP servers, and names of our own for what those do not have.
    fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
        let context = |id: u64| {
            let (trace, id) = (TraceId::from_bytes(span.trace.to_be_bytes()), SpanId::from_bytes(id.to_be_bytes()));
            SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default())
        };
        let failed = span.status >= 500 || (span.status == 0 && span.ended_by == "proxy");
        let name = match span.method.as_str() {
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "TRACE" => span.method.clone(),
            _ => "HTTP".to_owned(),
        };
        let end_time = span.began + span.took;
        let (span_context, parent) = (context(span.id), span.parent);
        let version = span.protocol.strip_prefix("HTTP/").unwrap_or_default();
        let mut attributes = vec![
            KeyValue::new("http.request.method", span.method),
            KeyValue::new("url.path", span.path),
            KeyValue::new("url.scheme", if span.tls { "https" } else { "http" }),
            KeyValue::new("server.address", span.host),
            KeyValue::new("network.protocol.version", version),
            KeyValue::new("dormouse.request_id", span.request_id),
            KeyValue::new("dormouse.app", span.app),
            KeyValue::new("dormouse.environment", span.environment),
            KeyValue::new("dormouse.deployment", i64::try_from(span.deployment).unwrap_or_default()),
            KeyValue::new("dormouse.instance", span.instance),
            KeyValue::new("dormouse.held_ms", i64::try_from(span.held_ms).unwrap_or(i64::MAX)),
            KeyValue::new("dormouse.ended_by", span.ended_by),
        ];
        if span.status > 0 {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(span.status)));
        }
        if !span.refused.is_empty() {
            attributes.push(KeyValue::new("error.type", span.refused));
        }
        SpanData {
            span_context,
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_be_bytes())),
            parent_span_is_remote: parent.is_some(),
            span_kind: SpanKind::Server,
            name: name.into(),
            start_time: span.began,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: scope.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_plain_number_from_0_to_1() {
        for (text, ratio) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1.0", 1.0), (".5", 0.5)] {
            assert_eq!(text.parse().ok(), Share::of(ratio).map(Sample), "{text}");
            assert_eq!(Sample::try_from(ratio).ok(), Share::of(ratio).map(Sample));
        }
        for bad in ["", ".", "-0.1", "+1", "1.01", "2", "1e-3", "25%", "NaN", "inf", "0.0.1", " 1", &"0".repeat(21)] {
            assert!(bad.parse::<Sample>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_collector_is_a_plain_url() {
        let of = |text: &str| text.parse::<Collector>().map(|collector| collector.0);
        assert_eq!(of("http://127.0.0.1:4318").as_deref(), Ok("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(of("http://c/otlp/v1/traces").as_deref(), Ok("http://c/otlp/v1/traces"));
        for bad in ["", "c:4318", "https://c", "http://", "http://u:p@c", "http://c/#x", "ftp://c", "http://c\n"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
