//! The target of a request (RFC 9112 section 3.2): origin form, absolute form, or the `*` of OPTIONS.

use http::Method;

use super::Form;
use crate::decide::refuse::Reason;

/// A fragment is never sent (RFC 9112 section 3.2), and browsers escape the others; parsers differ in what they make of them.
const NOT_IN_TARGETS: &[u8] = b"#\"<>";

/// Whether there is a backquote in the path, where browsers escape it; in a query they do not.
fn has_backquote(target: &str) -> bool {
    target.split('?').next().is_some_and(|path| path.contains('`'))
}

/// See the module.
pub(super) struct Target<'a> {
    pub(super) origin_form: String,
    pub(super) form: Form,
    pub(super) authority: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    pub(super) fn parse(target: &'a str, method: &Method) -> Result<Self, Reason> {
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && !NOT_IN_TARGETS.contains(&byte))
            || has_backquote(target)
        {
            return Err(Reason::BadHead);
        }
        if target.starts_with('/') || (target == "*" && *method == Method::OPTIONS) {
            return Ok(Self { origin_form: target.to_owned(), form: Form::Origin, authority: None });
        }
        let scheme_end = target.find("://").ok_or(Reason::BadHead)?;
        if !matches!(target[..scheme_end].to_ascii_lowercase().as_str(), "http" | "https") {
            return Err(Reason::BadHead);
        }
        let rest = &target[scheme_end + 3..];
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let origin_form = match path {
            // It asks for the server itself (RFC 9112 section 3.2.4).
            "" if *method == Method::OPTIONS => "*".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        Ok(Self { origin_form, form: Form::Absolute, authority: Some(authority.as_bytes()) })
    }
}
