//! What being let in changes of a request's fields: the password goes, the words of whoever let it in come, and nobody else's
//! in their place.
//!
//! Pure; found out by the checks, applied to heads of HTTP/1 by [`super::headers::for_instance`] and to streams by the lane.

use dormouse_link::canonical_eq;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) drops_authorization: bool,
    /// Fields of the authority's answer, and the names that it alone may set.
    pub(crate) copied: Vec<(HeaderName, Option<HeaderValue>)>,
}

impl Granted {
    /// Whether a client's field of that name is not passed on.
    pub(crate) fn removes(&self, name: &[u8]) -> bool {
        self.copied.iter().any(|(copied, _)| canonical_eq(name, copied.as_str()))
            || (self.drops_authorization && canonical_eq(name, header::AUTHORIZATION.as_str()))
    }

    /// The names of those that are not passed on.
    pub(crate) fn removed_from(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        headers.keys().filter(|name| self.removes(name.as_str().as_bytes())).cloned().collect()
    }

    /// The authority's words.
    pub(crate) fn set(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.copied.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_authority_sets_the_fields_that_it_is_asked_for() {
        let granted = Granted {
            drops_authorization: true,
            copied: vec![
                (HeaderName::from_static("x-user"), Some(HeaderValue::from_static("ann"))),
                (HeaderName::from_static("x-groups"), None),
            ],
        };
        let names = ["x-user", "x_user", "x-groups", "x_groups", "authorization", "x-users", "cookie"];
        let headers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("mine"))).collect();
        let mut removed: Vec<_> = granted.removed_from(&headers).iter().map(ToString::to_string).collect();
        removed.sort_unstable();
        assert_eq!(removed, ["authorization", "x-groups", "x-user", "x_groups", "x_user"]);
        let set: Vec<_> = granted.set().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(set, [("x-user", &b"ann"[..])]);
    }
}
