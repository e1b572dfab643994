//! What a rule changes of the fields of requests or answers on their way.
//!
//! `set` takes the place of every field of its name, `add` comes beside those that are there, `remove` takes them away. A
//! field's twins with underscores are the field itself, for application servers take them for that. What frames a message, and
//! what an edge says of who asked, is nobody's to change; so is said where a rule is checked, and edges trust it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fields::{canonical, canonical_eq, is_editable_in_answers, is_editable_in_requests, is_token};
use crate::once;

/// Fields that a rule may change of requests, and of answers.
pub const EDITS_MAX: usize = 32;
/// Bytes of their names and values in all.
pub const EDITS_MAX_BYTES: usize = 8 << 10;
/// The longest name, in bytes.
const NAME_MAX_BYTES: usize = 64;

/// What is changed of a head's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Edits {
    /// Fields that are there once, and so; by name.
    #[serde(deserialize_with = "once::deserialize", skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Fields that are there, too.
    #[serde(deserialize_with = "once::deserialize", skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    /// Names of fields that are not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

crate::object::only!(Edits);

/// Whose fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Request,
    Answer,
}

/// What is done to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    Set,
    Add,
    Remove,
}

/// Why edits are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// More than [`EDITS_MAX`].
    #[error("at most {EDITS_MAX} fields are changed")]
    TooMany,
    /// More than [`EDITS_MAX_BYTES`].
    #[error("the names and values have at most {EDITS_MAX_BYTES} bytes in all")]
    TooLarge,
    /// It is no name.
    #[error("{0:?} is no field's name: a token of at most {NAME_MAX_BYTES} characters")]
    Name(String),
    /// It is no value.
    #[error("the value of {0} has other characters than visible ASCII, with spaces and tabs inside")]
    Value(String),
    /// It frames messages, belongs to connections, or is what an edge says itself.
    #[error("{0} is not a route's to change")]
    NotARoutes(String),
    /// It would not mean what it says.
    #[error("{0} can only be removed")]
    OnlyRemoved(String),
    /// It would be the edge's cookies, too.
    #[error("{0} can be added or removed, but not set")]
    NotSet(String),
    /// Of two edits one would not hold.
    #[error("{0} is changed twice")]
    Twice(String),
}

impl Edits {
    /// Whether an edge may make them.
    pub(super) fn check(&self, head: Head) -> Result<(), EditError> {
        let values = self.set.iter().map(|(name, value)| (Edit::Set, name, value.as_str()));
        let values = values.chain(self.add.iter().map(|(name, value)| (Edit::Add, name, value.as_str())));
        let edits: Vec<_> = values.chain(self.remove.iter().map(|name| (Edit::Remove, name, ""))).collect();
        if edits.len() > EDITS_MAX {
            return Err(EditError::TooMany);
        }
        if edits.iter().map(|(_, name, value)| name.len() + value.len()).sum::<usize>() > EDITS_MAX_BYTES {
            return Err(EditError::TooLarge);
        }
        for (at, (edit, name, value)) in edits.iter().enumerate() {
            check_name(*edit, name, head)?;
            let is_value = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t');
            if !is_value || value.trim() != *value {
                return Err(EditError::Value((*name).clone()));
            }
            let canonical = canonical(name);
            if edits[..at].iter().any(|(_, earlier, _)| canonical_eq(earlier.as_bytes(), &canonical)) {
                return Err(EditError::Twice((*name).clone()));
            }
        }
        Ok(())
    }
}

fn check_name(edit: Edit, name: &str, head: Head) -> Result<(), EditError> {
    if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.bytes().all(is_token) {
        return Err(EditError::Name(name.chars().take(NAME_MAX_BYTES).collect()));
    }
    let is = |field| canonical_eq(name.as_bytes(), field);
    let is_editable = match head {
        Head::Request => is_editable_in_requests(name.as_bytes()),
        Head::Answer => is_editable_in_answers(name.as_bytes()),
    };
    match (head, edit) {
        _ if !is_editable => Err(EditError::NotARoutes(name.to_owned())),
        // It says which way a request came; whoever invents that hides circles.
        (Head::Request, Edit::Set | Edit::Add) if is("via") => Err(EditError::OnlyRemoved(name.to_owned())),
        (Head::Answer, Edit::Set) if is("set-cookie") => Err(EditError::NotSet(name.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str, head: Head) -> Result<(), EditError> {
        serde_json::from_str::<Edits>(json).expect(json).check(head)
    }

    fn set(name: &str, value: &str) -> Edits {
        Edits { set: BTreeMap::from([(name.to_owned(), value.to_owned())]), ..Edits::default() }
    }

    #[test]
    fn p25_no_edit_touches_what_frames_a_message_in_any_spelling() {
        for name in [
            "Content-Length",
            "content_length",
            "Content.Length",
            "Transfer-Encoding",
            "TRANSFER_ENCODING",
            "transfer--encoding",
            "Connection",
            "Keep-Alive",
            "Proxy_Connection",
            "Upgrade",
            "TE",
            "Trailer",
            "Host",
            "Expect",
            "HTTP2-Settings",
        ] {
            for head in [Head::Request, Head::Answer] {
                let not = Err(EditError::NotARoutes(name.to_owned()));
                assert_eq!(set(name, "1").check(head), not);
                assert_eq!(checked(&format!(r#"{{"add": {{"{name}": "1"}}}}"#), head), not);
                assert_eq!(checked(&format!(r#"{{"remove": ["{name}"]}}"#), head), not);
            }
        }
        for name in ["Content-Encoding", "content_encoding", "Proxy-Authenticate"] {
            assert_eq!(set(name, "x").check(Head::Answer), Err(EditError::NotARoutes(name.to_owned())));
        }
    }

    #[test]
    fn p25_no_edit_says_who_asked_and_p26_none_uses_internal_names() {
        for name in [
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded-Proto",
            "Forwarded",
            "X-Real-IP",
            "X-Request-Id",
            "True-Client-IP",
            "X-Client-IP",
            "Proxy",
            "traceparent",
            "tracestate",
            "X-Dormouse-Wake",
            "x_dormouse-any",
        ] {
            assert_eq!(set(name, "1").check(Head::Request), Err(EditError::NotARoutes(name.to_owned())));
        }
        for name in ["X-Forwarded-Prefix", "X-User", "X_User", "Authorization", "Cookie", "Accept-Encoding", "CF-Ray"] {
            assert_eq!(set(name, "1").check(Head::Request), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_name_is_a_token_and_a_value_one_line_of_visible_characters() {
        for name in ["", "a b", "a:", "a\r\nb", "ä", &"x".repeat(65)] {
            let said = set(name, "1").check(Head::Answer).expect_err(name);
            assert!(matches!(said, EditError::Name(_)), "{said}");
            assert!(!said.to_string().contains(['\r', '\n']) && said.to_string().len() < 200, "{said}");
        }
        for value in ["a\r\nb", "a\nb", "a\rb", "a\0", "\u{7f}", "ä", " a", "a ", "\t"] {
            assert_eq!(set("x", value).check(Head::Answer), Err(EditError::Value("x".to_owned())), "{value:?}");
        }
        for value in ["", "a", "a b\tc", "default-src 'self'; img-src *"] {
            assert_eq!(set("x", value).check(Head::Answer), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn a_field_is_changed_in_one_way_only() {
        for json in [
            r#"{"set": {"X-A": "1"}, "remove": ["x-a"]}"#,
            r#"{"set": {"X-A": "1"}, "add": {"X_A": "1"}}"#,
            r#"{"set": {"X-A": "1", "x-a": "2"}}"#,
            r#"{"remove": ["X-A", "X-A"]}"#,
        ] {
            assert!(matches!(checked(json, Head::Request), Err(EditError::Twice(_))), "{json}");
        }
        let twice = serde_json::from_str::<Edits>(r#"{"set": {"X-A": "1", "X-A": "2"}}"#);
        assert!(twice.expect_err("one would not hold").to_string().contains("X-A is there twice"));
        assert!(serde_json::from_str::<Edits>(r#"{"append": {}}"#).is_err());
    }

    #[test]
    fn via_can_be_left_unsaid_and_cookies_of_the_edge_stay() {
        assert_eq!(checked(r#"{"remove": ["Via"]}"#, Head::Request), Ok(()));
        for json in [r#"{"set": {"Via": "1.1 x"}}"#, r#"{"add": {"via": "1.1 x"}}"#] {
            assert!(matches!(checked(json, Head::Request), Err(EditError::OnlyRemoved(_))), "{json}");
            assert_eq!(checked(json, Head::Answer), Ok(()), "{json}");
        }
        assert_eq!(set("Set-Cookie", "a=b").check(Head::Answer), Err(EditError::NotSet("Set-Cookie".to_owned())));
        for json in [r#"{"add": {"Set-Cookie": "a=b"}}"#, r#"{"remove": ["Set-Cookie"]}"#] {
            assert_eq!(checked(json, Head::Answer), Ok(()), "{json}");
        }
    }

    #[test]
    fn edits_have_a_number_and_a_size() {
        let many =
            |count: usize| Edits { remove: (0..count).map(|at| format!("x-{at}")).collect(), ..Edits::default() };
        assert_eq!(many(EDITS_MAX).check(Head::Request), Ok(()));
        assert_eq!(many(EDITS_MAX + 1).check(Head::Request), Err(EditError::TooMany));
        assert_eq!(set("x", &"v".repeat(EDITS_MAX_BYTES - 1)).check(Head::Request), Ok(()));
        assert_eq!(set("x", &"v".repeat(EDITS_MAX_BYTES)).check(Head::Request), Err(EditError::TooLarge));
    }
}
