//! What is asked of every site by whoever only looks around: answered here where a site is not to be indexed.

use std::borrow::Cow;

use http::Method;

use super::NotPassed;
use crate::front::head::Head;
use crate::lane::answer::Answer;

/// What search engines are told (RFC 9309).
const NOBODY: &str = "User-agent: *\nDisallow: /\n";
/// Where they look for it.
const ROBOTS: &str = "/robots.txt";
/// What browsers ask for unasked.
const FAVICON: &str = "/favicon.ico";
/// How long search engines need not ask again.
const CACHE: &str = "max-age=3600";

/// Answers `robots.txt`.
pub(super) fn answer(head: &Head) -> Result<(), NotPassed> {
    if head.path() != ROBOTS || !matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let field = |name: &'static str, value: &str| (Cow::Borrowed(name), value.to_owned());
    let fields = vec![
        field("Content-Type", "text/plain; charset=utf-8"),
        field("Cache-Control", CACHE),
        field("X-Robots-Tag", "noindex"),
    ];
    Err(NotPassed::Answered("robots", Box::new(Answer { status: 200, fields, body: NOBODY.into() })))
}

/// Answers `favicon.ico` of a site that is not awake: it is not worth a wake.
pub(super) fn asleep(head: &Head) -> Result<(), NotPassed> {
    if head.path() != FAVICON || !matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let fields = vec![(Cow::Borrowed("Cache-Control"), "no-store".to_owned())];
    Err(NotPassed::Answered("favicon", Box::new(Answer { status: 404, fields, body: bytes::Bytes::new() })))
}
