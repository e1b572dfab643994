//! The words of an answer of our own: HTML for people, its environment's page or one of ours, and a problem (RFC 9457) for
//! programs. No internals in any of them, and nothing of the request but its id.

use bytes::Bytes;
use dormouse_link::policy::Page;

use crate::decide::pages::{filled, of};
use crate::decide::refuse::{Reason, Refusal};
use crate::exchange::Exchange;
use crate::front::head::Reader;

const HTML: &str = "text/html; charset=utf-8";

const STYLE: &str = "\
    :root{color-scheme:light dark;--ink:#1d2433;--soft:#5b6478;--paper:#f4f5f8;--line:#d9dde6;--go:#4a6fd0}\
    @media(prefers-color-scheme:dark){:root{--ink:#e6e9f0;--soft:#a0a8ba;--paper:#14171f;--line:#2c3240;--go:#8aa6f0}}\
    *{box-sizing:border-box}\
    body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--paper);color:var(--ink);\
    font:1rem/1.6 system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif}\
    main{width:100%;max-width:34rem}\
    h1{margin:0 0 .5rem;font-size:clamp(1.6rem,6vw,2.2rem);line-height:1.2;font-weight:650;overflow-wrap:break-word}\
    p{margin:0;font-size:1.1rem}\
    footer{margin-top:2rem;padding-top:.75rem;border-top:1px solid var(--line);color:var(--soft);font-size:.85rem;\
    overflow-wrap:anywhere}";

/// A bar in which something moves, slowly, for as long as a site wakes.
const PROGRESS: &str = "\
    .wait+footer{margin-top:.5rem;border:0}\
    .wait{height:.25rem;margin-top:2rem;border-radius:.25rem;background:var(--line);overflow:hidden}\
    .wait i{display:block;width:35%;height:100%;border-radius:inherit;background:var(--go);\
    animation:go 2s ease-in-out infinite alternate}\
    @keyframes go{from{transform:translateX(0)}to{transform:translateX(186%)}}\
    @media(prefers-reduced-motion:reduce){.wait i{width:100%;animation:none;opacity:.5}}";

/// Content type and content.
pub(crate) fn page(reason: Reason, refusal: &Refusal, exchange: &Exchange) -> (&'static str, Bytes) {
    let Refusal { status, title, detail, .. } = refusal;
    if exchange.reader == Reader::Program && matches!(reason, Reason::Redirect(_)) {
        return ("text/plain; charset=utf-8", format!("{detail}\n").into());
    }
    if exchange.reader == Reader::Program {
        let problem = serde_json::json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
        return ("application/problem+json", problem.to_string().into());
    }
    let id = &exchange.record.request_id;
    (HTML, own(reason, refusal, exchange).unwrap_or_else(|| ours(reason, refusal, id)))
}

/// The page that the environment has for it.
fn own(reason: Reason, refusal: &Refusal, exchange: &Exchange) -> Option<Bytes> {
    let offer = exchange.cell.as_ref()?.offer();
    match of(offer.environment.as_ref()?.policy.pages.as_deref()?, reason)? {
        Page::Text(text) => Some(filled(text, refusal, &exchange.record.request_id)),
        // Not served: it was refused with its object.
        Page::File(_) => None,
    }
}

/// Small, whole in itself, and without scripts. All of it is ours: there is nothing in it to escape.
fn ours(reason: Reason, refusal: &Refusal, request_id: &str) -> Bytes {
    let Refusal { status, title, detail, .. } = refusal;
    let (more, foot) = if reason == Reason::Waking {
        let bar = "<div class=\"wait\" role=\"progressbar\" aria-label=\"Starting\"><i></i></div>";
        (PROGRESS, format!("{bar}<footer>It comes by itself; there is nothing to do.</footer>"))
    } else {
        ("", format!("<footer>{status} &middot; request {request_id}</footer>"))
    };
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><meta name=\"robots\" content=\"noindex\"><title>{title}</title>\
         <style>{STYLE}{more}</style></head><body><main><h1>{title}</h1><p>{detail}</p>{foot}</main></body></html>\n"
    )
    .into()
}
