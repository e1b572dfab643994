//! What a rule changes of fields, ready to be applied: to heads of HTTP/1 by [`super::headers::for_instance`], to streams and
//! answers by the lane.
//!
//! Pure. Whatever names and values are in here, were checked with the route.

use dormouse_link::{canonical, canonical_eq};
use http::{HeaderMap, HeaderName, HeaderValue};

/// See the module.
#[derive(Debug)]
pub(crate) struct Edits {
    /// Names of fields that go, in the form in which twins are one.
    removed: Box<[Box<str>]>,
    /// Fields that come after that.
    written: Box<[(HeaderName, HeaderValue)]>,
}

impl Edits {
    pub(crate) fn new(said: &dormouse_link::Edits) -> Self {
        let removed = said.set.keys().chain(&said.remove);
        let written = said.set.iter().chain(&said.add);
        let field = |(name, value): (&String, &String)| Some((name.parse().ok()?, value.parse().ok()?));
        Self {
            removed: removed.map(|name| canonical(name).into()).collect(),
            written: written.filter_map(field).collect(),
        }
    }

    /// Whether a field of that name goes.
    pub(crate) fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| canonical_eq(name, removed))
    }

    /// The names of those that go.
    pub(crate) fn removed_from(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        headers.keys().filter(|name| self.removes(name.as_str().as_bytes())).cloned().collect()
    }

    /// The fields that come.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.written.iter().map(|(name, value)| (name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_go_with_their_field_and_what_is_added_takes_nothing_away() {
        let said = r#"{"set": {"X-Set": "1"}, "add": {"X-Add": "2"}, "remove": ["X_Gone"]}"#;
        let edits = Edits::new(&serde_json::from_str(said).expect(said));
        let names = ["x-set", "x_set", "x-add", "x_add", "x-gone", "x_gone", "x-sets"];
        let headers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("mine"))).collect();
        let mut removed: Vec<_> = edits.removed_from(&headers).iter().map(ToString::to_string).collect();
        removed.sort_unstable();
        assert_eq!(removed, ["x-gone", "x-set", "x_gone", "x_set"]);
        let written: Vec<_> = edits.written().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(written, [("x-set", &b"1"[..]), ("x-add", b"2")]);
    }
}
