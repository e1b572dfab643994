//! The words of an answer of our own as HTML for people and as a problem (RFC 9457) for programs. No internals in either.

use crate::decide::refuse::{Reason, Refusal};
use crate::front::head::Reader;

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;margin:20vh auto;max-width:32rem;padding:0 1rem;\
                     color:#223;background:#fff}h1{font-size:1.5rem}@media(prefers-color-scheme:dark){body{color:#dde;\
                     background:#112}}";

/// Content type and content.
pub(crate) fn page(reason: Reason, refusal: &Refusal, reader: Reader) -> (&'static str, String) {
    let Refusal { status, title, detail, .. } = refusal;
    if reader == Reader::Program && matches!(reason, Reason::Redirect(_)) {
        return ("text/plain; charset=utf-8", format!("{detail}\n"));
    }
    if reader == Reader::Program {
        let problem = serde_json::json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
        return ("application/problem+json", problem.to_string());
    }
    let refresh = match (reason, refusal.retry_after) {
        (Reason::Waking, Some(seconds)) => format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
        _ => String::new(),
    };
    // All of it is ours: there is nothing of the request in it to escape.
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\">{refresh}<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>\
         <p>{detail}</p></html>\n"
    );
    ("text/html; charset=utf-8", html)
}
