//! The cookie by which a browser comes back to the same instance.
//!
//! It holds a tag: a MAC over environment and instance, by a key that all edges of a group share. So it says nothing of where
//! instances are, nobody makes one up, one environment's is nothing in another, and an instance that was started again has
//! the tag it had. Tags are made with a version of a cell; of a request they are only compared.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use dormouse_link::{Endpoint, EnvironmentId, FieldToken};

use crate::decide::fields::Fields;
use crate::decide::headers::Scheme;

/// Of a tag; 128 bits are enough against guessing.
const TAG_BYTES: usize = 16;
/// Of the environment's part in a cookie's name.
const NAME_BYTES: usize = 4;

/// What cookies are signed with; the same on all edges of a group. Never shown.
#[derive(Clone)]
pub struct StickySecret([u8; 32]);

/// The same, ready for use.
pub(crate) struct StickyKey(Key);

/// What a cookie holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag([u8; TAG_BYTES]);

/// The cookies of one version of a cell.
#[derive(Debug)]
pub(crate) struct Sticky {
    name: String,
    /// Of each endpoint, in their order.
    tags: Box<[Tag]>,
}

impl StickySecret {
    /// Takes random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// One of this process alone; nothing where there is no randomness.
    pub(crate) fn make() -> Option<Self> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).ok()?;
        Some(Self(secret))
    }
}

/// A text is no [`StickySecret`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key for cookies is 64 hex digits")]
pub struct StickySecretError;

impl std::str::FromStr for StickySecret {
    type Err = StickySecretError;

    fn from_str(text: &str) -> Result<Self, StickySecretError> {
        bytes_of_hex(text.as_bytes()).map(Self).ok_or(StickySecretError)
    }
}

/// Exactly so many bytes.
fn bytes_of_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = (digit(0)? << 4) | digit(1)?;
    }
    Some(bytes)
}

impl fmt::Debug for StickySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickySecret")
    }
}

impl StickyKey {
    pub(crate) fn new(secret: &StickySecret) -> Self {
        Self(Key::new(HMAC_SHA256, &secret.0))
    }

    fn sign<const N: usize>(&self, parts: &[&str]) -> [u8; N] {
        let mut context = Context::with_key(&self.0);
        for part in parts {
            // With their lengths, so that no two lists of parts are one text.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let signed = context.sign();
        std::array::from_fn(|at| signed.as_ref().get(at).copied().unwrap_or_default())
    }
}

/// Shows no secret.
impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyKey")
    }
}

impl Tag {
    fn parse(text: &[u8]) -> Option<Self> {
        bytes_of_hex(text).map(Self)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Sticky {
    pub(crate) fn new(
        key: &StickyKey,
        environment: &EnvironmentId,
        endpoints: &[Endpoint],
        name: Option<&FieldToken>,
    ) -> Self {
        let named = || {
            // Environments may share a host, by paths.
            let part: [u8; NAME_BYTES] = key.sign(&["cookie name", environment.as_str()]);
            format!("dormouse-{:08x}", u32::from_be_bytes(part))
        };
        let tag = |endpoint: &Endpoint| Tag(key.sign(&["instance", environment.as_str(), endpoint.instance.as_str()]));
        Self {
            name: name.map_or_else(named, |name| name.as_str().to_owned()),
            tags: endpoints.iter().map(tag).collect(),
        }
    }

    /// What a request shows, if it is a tag at all.
    pub(crate) fn shown(&self, fields: Fields<'_>) -> Option<Tag> {
        Tag::parse(fields.cookie(&self.name)?)
    }

    /// Whose tag it is.
    pub(crate) fn find(&self, tag: &Tag) -> Option<usize> {
        self.tags.iter().position(|other| verify_slices_are_equal(&other.0, &tag.0).is_ok())
    }

    /// The field that makes a browser come back to an endpoint, unless it does already.
    pub(crate) fn set(&self, index: usize, shown: Option<&Tag>, scheme: Scheme) -> Option<String> {
        let tag = self.tags.get(index)?;
        let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
        (shown != Some(tag)).then(|| format!("{}={tag}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use dormouse_link::InstanceId;

    use super::*;

    fn sticky(secret: u8, environment: &str, instances: &[&str]) -> Sticky {
        let endpoint = |name: &&str| Endpoint::new(InstanceId::new(*name), ([127, 0, 0, 1], 9001).into());
        let endpoints: Vec<_> = instances.iter().map(endpoint).collect();
        Sticky::new(
            &StickyKey::new(&StickySecret::new([secret; 32])),
            &EnvironmentId::new(environment),
            &endpoints,
            None,
        )
    }

    /// What a browser sends after an answer.
    fn returned(set: &str) -> String {
        format!("GET / HTTP/1.1\r\nCookie: other=1; {}\r\n\r\n", set.split(';').next().expect("a cookie"))
    }

    fn found(sticky: &Sticky, head: &str) -> Option<usize> {
        sticky.find(&sticky.shown(Fields::Lines(head.as_bytes()))?)
    }

    #[test]
    fn a_secret_is_64_hex_digits_and_never_shown() {
        let secret: StickySecret = "C0ffee01".repeat(8).parse().expect("a secret");
        assert_eq!(secret.0[..4], [0xc0, 0xff, 0xee, 0x01]);
        let shown = format!("{secret:?} {:?}", StickyKey::new(&secret));
        assert!(!shown.contains("192") && !shown.to_lowercase().contains("c0ff"), "{shown}");
        for text in ["", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert!(text.parse::<StickySecret>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cookie_names_its_instance_and_nothing_else() {
        let one = sticky(1, "shop", &["127.0.0.1:9001", "127.0.0.1:9002"]);
        let set = one.set(1, None, Scheme::Https).expect("a cookie");
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{set}");
        assert!(!set.contains("127") && !set.contains("900"), "no address in {set}");
        assert!(!one.set(1, None, Scheme::Http).expect("a cookie").contains("Secure"));
        let head = returned(&set);
        assert_eq!(found(&one, &head), Some(1));
        let shown = one.shown(Fields::Lines(head.as_bytes()));
        assert_eq!(one.set(1, shown.as_ref(), Scheme::Http), None, "it has it already");
        assert!(one.set(0, shown.as_ref(), Scheme::Http).is_some());
        let after = sticky(1, "shop", &["x", "127.0.0.1:9002"]);
        assert_eq!(found(&after, &head), Some(1), "the instance is known by its id, wherever it stands");
        assert_eq!(found(&sticky(1, "shop", &["x"]), &head), None, "it is gone");
    }

    #[test]
    fn a_cookie_of_another_environment_or_key_or_of_ones_own_making_is_nothing() {
        let one = sticky(1, "shop", &["a", "b"]);
        let set = one.set(0, None, Scheme::Http).expect("a cookie");
        let value = set.split(';').next().and_then(|pair| pair.split('=').nth(1)).expect("a value").to_owned();
        for other in [sticky(1, "blog", &["a", "b"]), sticky(2, "shop", &["a", "b"]), sticky(1, "sho", &["pa", "b"])] {
            let head = format!("GET / HTTP/1.1\r\nCookie: {}={value}\r\n\r\n", other.name);
            assert!(other.shown(Fields::Lines(head.as_bytes())).is_some());
            assert_eq!(found(&other, &head), None);
        }
        for made_up in ["", "a", "127.0.0.1:9001", &"0".repeat(32), &"g".repeat(32), &value[1..], &format!("{value}0")]
        {
            let head = format!("GET / HTTP/1.1\r\nCookie: {}={made_up}\r\n\r\n", one.name);
            assert_eq!(found(&one, &head), None, "{made_up}");
        }
    }
}
