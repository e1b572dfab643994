//! How an environment's requests are to be treated: what its owner said, by the document or by an everyday word, and what edges
//! are told. Pure; what a policy may say is checked by `link`, as for table files.

use std::collections::BTreeMap;

use dormouse_link::policy::{Access, Basic, Maintenance, PasswordHash, Pause, User};
use dormouse_link::{Invalid, Policy};

use crate::model::{Environment, LIVE};

/// The longest policy as JSON, in bytes. All pages at their largest are 448 KiB, and JSON writes some bytes (quotes, line ends) as two or
/// more: they fit if those are no more than half of them. Each look at an environment reads it.
const POLICY_MAX_BYTES: usize = 768 * 1024;

/// What is said of a policy by single words; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// Everybody gets a page that says so, or nobody.
    pub maintenance: Option<bool>,
    /// Requests wait for its end, or do not.
    pub pause: Option<bool>,
    /// Search engines may index it, or not.
    pub indexed: Option<bool>,
    /// Hashes of passwords by name, to set or to remove.
    pub passwords: BTreeMap<String, Option<PasswordHash>>,
}

/// Why a policy is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    /// An edge could not serve by it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It is no table.
    #[error("a policy has at most {POLICY_MAX_BYTES} bytes as JSON")]
    TooLong,
}

impl Words {
    /// Whether nothing is said.
    pub(crate) fn is_empty(&self) -> bool {
        self.maintenance.is_none() && self.pause.is_none() && self.indexed.is_none() && self.passwords.is_empty()
    }

    /// The policy that was `before`, with what is said. What is on already stays as it is.
    pub(crate) fn changed(self, before: &Policy) -> Result<Policy, PolicyError> {
        let mut policy = before.clone();
        match self.maintenance {
            Some(true) => drop(policy.maintenance.get_or_insert_with(|| Box::new(Maintenance::default()))),
            Some(false) => policy.maintenance = None,
            None => {}
        }
        match self.pause {
            Some(true) => _ = policy.pause.get_or_insert_with(Pause::default),
            Some(false) => policy.pause = None,
            None => {}
        }
        let mut access = policy.access.take().map_or_else(Access::default, |access| *access);
        if self.indexed.is_some() {
            access.indexed = self.indexed;
        }
        for (name, hash) in self.passwords {
            set_password(&mut access, name, hash);
        }
        policy.access = (access != Access::default()).then(|| Box::new(access));
        checked(policy)
    }
}

/// Whoever is the last one that goes takes the question for a password along.
fn set_password(access: &mut Access, name: String, hash: Option<PasswordHash>) {
    let basic = access.basic.get_or_insert_with(|| Basic::of(Vec::new()));
    basic.users.retain(|user| user.name != name);
    basic.users.extend(hash.map(|hash| User { name, hash }));
    if basic.users.is_empty() {
        access.basic = None;
    }
}

/// A policy that an edge can serve by.
pub(crate) fn checked(policy: Policy) -> Result<Policy, PolicyError> {
    policy.check()?;
    let length = serde_json::to_vec(&policy).map_or(usize::MAX, |text| text.len());
    if length > POLICY_MAX_BYTES { Err(PolicyError::TooLong) } else { Ok(policy) }
}

/// What edges are told: only Live is for search engines, unless its owner says otherwise.
pub(crate) fn published(environment: &Environment) -> Policy {
    let mut policy = environment.policy.clone();
    if environment.name.as_str() != LIVE {
        policy.access.get_or_insert_default().indexed.get_or_insert(false);
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::environment;

    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn said(text: &str) -> Policy {
        checked(serde_json::from_str(text).expect(text)).expect(text)
    }

    fn password(name: &str, hash: Option<&str>) -> Words {
        let hash = hash.map(|hash| PasswordHash(hash.to_owned()));
        Words { passwords: [(name.to_owned(), hash)].into(), ..Words::default() }
    }

    #[test]
    fn only_live_is_for_search_engines_unless_it_is_said() {
        let indexed = |name: &str, text: &str| {
            let environment = Environment { policy: said(text), ..environment(name) };
            published(&environment).access.is_none_or(|access| access.is_indexed())
        };
        for text in ["{}", r#"{"maintenance": {}}"#, r#"{"access": {"deny": ["192.0.2.1"]}}"#] {
            assert_eq!((indexed("test", text), indexed("live", text)), (false, true), "{text}");
        }
        for (text, is) in [(r#"{"access": {"indexed": true}}"#, true), (r#"{"access": {"indexed": false}}"#, false)] {
            assert_eq!((indexed("test", text), indexed("live", text)), (is, is), "{text}");
        }
    }

    #[test]
    fn what_is_on_already_stays_as_it_is_and_off_is_as_if_nothing_was_said() {
        let before = said(r#"{"maintenance": {"allow": ["192.0.2.0/24"]}, "limits": {"concurrency": 5}}"#);
        let on = Words { maintenance: Some(true), pause: Some(true), ..Words::default() };
        let after = on.changed(&before).expect("it is sound");
        assert_eq!(after.maintenance, before.maintenance);
        assert_eq!(after.pause, Some(Pause::default()));
        let off = Words { maintenance: Some(false), pause: Some(false), ..Words::default() };
        assert_eq!(off.changed(&after).expect("it is sound"), said(r#"{"limits": {"concurrency": 5}}"#));
    }

    #[test]
    fn a_password_is_added_replaced_and_the_last_one_takes_the_question_along() {
        let one = password("ann", Some(HASH)).changed(&Policy::default()).expect("it is sound");
        let names = |policy: &Policy| -> Vec<String> {
            let basic = policy.access.as_ref().and_then(|access| access.basic.as_ref());
            basic.into_iter().flat_map(|basic| &basic.users).map(|user| user.name.clone()).collect()
        };
        let two = password("bob", Some(HASH)).changed(&one).expect("it is sound");
        assert_eq!(names(&two), ["ann", "bob"]);
        let other = HASH.replace("AAAA$", "BBBB$");
        assert_eq!(names(&password("ann", Some(&other)).changed(&two).expect("it is sound")), ["bob", "ann"]);
        let one = password("ann", None).changed(&two).expect("it is sound");
        assert_eq!(names(&password("nobody", None).changed(&one).expect("it is sound")), ["bob"]);
        assert!(password("bob", None).changed(&one).expect("it is sound").is_default());
    }

    #[test]
    fn a_word_that_makes_no_sound_policy_is_refused() {
        for (name, hash) in [("ann", "secret"), ("a:b", HASH), ("", HASH)] {
            let refused = password(name, Some(hash)).changed(&Policy::default()).expect_err(name).to_string();
            assert!(refused.starts_with("policy.access: basic"), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
