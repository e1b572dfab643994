//! `policy.access`: who is let in to an environment, and whether search engines are. All of it is checked before a wake.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{NETWORKS_MAX, pem};
use crate::fields::{is_of_messages, is_said_by_edges};
use crate::{HOST_MAX_BYTES, Network, normalise_authority};

/// Users of one environment.
const USERS_MAX: usize = 100;
/// Of a user's name and of a realm, in bytes.
const NAME_MAX_BYTES: usize = 64;
/// Memory that one verification may take, in KiB: 64 MiB.
const HASH_MEMORY_MAX: u32 = 64 << 10;
/// Passes over it.
const HASH_PASSES_MAX: u32 = 10;
/// Lanes.
const HASH_LANES_MAX: u32 = 4;
/// Of a hash as text, in bytes.
const HASH_MAX_BYTES: usize = 256;
/// The most that a bcrypt hash may cost: some 200 ms; one more is twice that.
const BCRYPT_COST_MAX: u32 = 12;
/// The least that there is.
const BCRYPT_COST_MIN: u32 = 4;
/// Characters of a bcrypt hash's salt, and of what follows it.
const BCRYPT_SALT: usize = 22;
const BCRYPT_HASH: usize = 31;
/// Of an authority's URL, in bytes.
const URL_MAX_BYTES: usize = 1024;
/// Of the certificates of its authorities, as PEM, in bytes.
const CA_MAX_BYTES: usize = 64 << 10;
/// Header fields that are copied from an authority's answer.
const COPIES_MAX: usize = 32;
/// The longest that an authority may take, in milliseconds.
const AUTHORITY_MS_MAX: u32 = 30_000;
/// How long it may take if it is not said.
const AUTHORITY_MS: NonZeroU32 = NonZeroU32::new(5000).expect("it is not 0");

/// Who is let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Access {
    /// Only clients of these networks, if there are any; others get 403.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
    /// No clients of these networks, whatever `allow` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Network>,
    /// Only who knows a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    /// Only whom somebody else lets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_auth: Option<ForwardAuth>,
    /// Whether search engines may index it; they may if it is not said. If not, `robots.txt` is answered by the edge and
    /// answers say `noindex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexed: Option<bool>,
}

/// HTTP Basic authentication (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Basic {
    /// What the password is for, shown to who is asked for it.
    #[serde(default = "realm")]
    pub realm: String,
    /// Who may come.
    pub users: Vec<User>,
    /// What becomes of the field with the password.
    #[serde(default)]
    pub authorization: Authorization,
}

/// Somebody with a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct User {
    /// Without a colon.
    pub name: String,
    /// Of the password.
    pub hash: PasswordHash,
}

/// A hash of a password as text: Argon2id, `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`, or bcrypt, `$2y$10$SALTHASH`. Never shown
/// in logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// What becomes of `Authorization` when its password was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authorization {
    /// The application does not get it.
    #[default]
    Remove,
    /// The application gets it.
    Keep,
}

/// Somebody else decides: asked for each request by a GET with the client's cookies and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct ForwardAuth {
    /// Who is asked: `http://` or `https://`, and whatever follows.
    pub url: String,
    /// Who certifies it, as PEM; over TLS alone. Whom the edge's system trusts, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Header fields of its answer that the application gets, and that no client can set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy: Vec<String>,
    /// How long it may take; then 503.
    #[serde(default = "authority_ms")]
    pub timeout_ms: NonZeroU32,
}

crate::object::only!(Access, Basic, User, ForwardAuth);

fn realm() -> String {
    "Restricted".to_owned()
}

fn authority_ms() -> NonZeroU32 {
    AUTHORITY_MS
}

/// What is wrong with rules of access.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Too many.
    #[error("{0} has at most {NETWORKS_MAX} networks")]
    Networks(&'static str),
    /// None, or too many.
    #[error("basic.users has from 1 to {USERS_MAX} users")]
    Users,
    /// It cannot be sent.
    #[error("basic: a name and a realm are 1 to {NAME_MAX_BYTES} printable characters, without \", \\ and colon")]
    Name,
    /// Which of two hashes counts?
    #[error("basic.users: {0:?} is there twice")]
    UserTwice(String),
    /// Not the form, or too expensive.
    #[error(
        "basic.users: the hash of {0:?} is Argon2id as text ($argon2id$v=19$m=…,t=…,p=…$…$…), with m up to {HASH_MEMORY_MAX}, t up to {HASH_PASSES_MAX}, p up to {HASH_LANES_MAX}, or bcrypt ($2y$COST$…) with a cost from {BCRYPT_COST_MIN} to {BCRYPT_COST_MAX}"
    )]
    Hash(String),
    /// It cannot be asked.
    #[error("forward_auth.url begins with http:// or https:// and a host, and has no user and no fragment")]
    Url,
    /// It certifies nobody.
    #[error(
        "forward_auth.ca is whole certificates as PEM, of up to {CA_MAX_BYTES} bytes, and for a url that begins with https://"
    )]
    Ca,
    /// It cannot be copied.
    #[error("forward_auth.copy: {0:?} is no field that can be copied")]
    Copy(String),
    /// Too many.
    #[error("forward_auth.copy has at most {COPIES_MAX} names")]
    Copies,
    /// Too long.
    #[error("forward_auth.timeout_ms is at most {AUTHORITY_MS_MAX}")]
    Timeout,
}

impl Access {
    /// Whether search engines may index it.
    pub fn is_indexed(&self) -> bool {
        self.indexed.unwrap_or(true)
    }

    pub(super) fn check(&self) -> Result<(), AccessError> {
        for (name, networks) in [("allow", &self.allow), ("deny", &self.deny)] {
            if networks.len() > NETWORKS_MAX {
                return Err(AccessError::Networks(name));
            }
        }
        self.basic.as_ref().map_or(Ok(()), Basic::check)?;
        self.forward_auth.as_ref().map_or(Ok(()), ForwardAuth::check)
    }
}

impl Basic {
    /// Of these users, and nothing else said.
    pub fn of(users: Vec<User>) -> Self {
        Self { realm: realm(), users, authorization: Authorization::default() }
    }

    fn check(&self) -> Result<(), AccessError> {
        if self.users.is_empty() || self.users.len() > USERS_MAX {
            return Err(AccessError::Users);
        }
        if !is_plain(&self.realm) {
            return Err(AccessError::Name);
        }
        for (index, user) in self.users.iter().enumerate() {
            if !is_plain(&user.name) || user.name.contains(':') {
                return Err(AccessError::Name);
            }
            if self.users[..index].iter().any(|other| other.name == user.name) {
                return Err(AccessError::UserTwice(user.name.clone()));
            }
            if !user.hash.is_bearable() {
                return Err(AccessError::Hash(user.name.clone()));
            }
        }
        Ok(())
    }
}

fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

impl PasswordHash {
    /// Whether it is a hash, and verifying costs no more than an edge can bear.
    fn is_bearable(&self) -> bool {
        self.is_argon() || self.is_bcrypt()
    }

    /// As `htpasswd -B` and others write it. `$2x$` is left out: it is for hashes of a faulty implementation.
    fn is_bcrypt(&self) -> bool {
        let Some(rest) = ["$2y$", "$2b$", "$2a$"].iter().find_map(|begin| self.0.strip_prefix(begin)) else {
            return false;
        };
        let Some((cost, rest)) = rest.split_once('$') else { return false };
        let is_cost = cost.len() == 2
            && cost.bytes().all(|byte| byte.is_ascii_digit())
            && cost.parse().is_ok_and(|cost| (BCRYPT_COST_MIN..=BCRYPT_COST_MAX).contains(&cost));
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"./".contains(&byte);
        is_cost
            && rest.len() == BCRYPT_SALT + BCRYPT_HASH
            && rest.bytes().all(base64)
            // Whole bytes: what is left of the last character of each is zero.
            && b".Oeu".contains(&rest.as_bytes()[BCRYPT_SALT - 1])
            && rest.as_bytes().last().is_some_and(|last| b".CGKOSWaeimquy26".contains(last))
    }

    fn is_argon(&self) -> bool {
        let mut parts = self.0.split('$');
        let begins = [Some(""), Some("argon2id"), Some("v=19")].into_iter().all(|begin| parts.next() == begin);
        let costs = parts.next().and_then(costs);
        let base64 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte));
        let of_length = |text: Option<&str>, least: usize| text.is_some_and(|text| text.len() >= least && base64(text));
        let [memory, passes, lanes] = costs.unwrap_or_default();
        begins
            && self.0.len() <= HASH_MAX_BYTES
            && (8 * lanes.max(1)..=HASH_MEMORY_MAX).contains(&memory)
            && (1..=HASH_PASSES_MAX).contains(&passes)
            && (1..=HASH_LANES_MAX).contains(&lanes)
            // 8 bytes of salt, 16 of hash.
            && of_length(parts.next(), 11)
            && of_length(parts.next(), 22)
            && parts.next().is_none()
    }
}

/// Memory, passes and lanes.
fn costs(text: &str) -> Option<[u32; 3]> {
    let mut costs = text.split(',');
    let mut next = |name: &str| costs.next()?.strip_prefix(name)?.parse().ok();
    let all = [next("m=")?, next("t=")?, next("p=")?];
    costs.next().is_none().then_some(all)
}

impl ForwardAuth {
    /// Host, perhaps with a port, and the rest, from its `/` on or empty.
    fn parts(&self) -> Option<(&str, &str)> {
        let rest = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        Some((authority, path))
    }

    /// Whether it is asked over TLS.
    pub fn is_secure(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// The host that is asked, normalised; requests to it are not asked for.
    pub fn host(&self) -> Option<String> {
        let mut bytes = [0; HOST_MAX_BYTES];
        Some(normalise_authority(self.parts()?.0.as_bytes(), &mut bytes).ok()?.to_owned())
    }

    fn check(&self) -> Result<(), AccessError> {
        let graphic = |byte: u8| byte.is_ascii_graphic() && !b"#@\"<>\\^`{|}".contains(&byte);
        if self.url.len() > URL_MAX_BYTES || !self.url.bytes().all(graphic) || self.host().is_none() {
            return Err(AccessError::Url);
        }
        let bearable = |ca: &str| ca.len() <= CA_MAX_BYTES && pem::are_certificates(ca);
        if self.ca.as_ref().is_some_and(|ca| !self.is_secure() || !bearable(ca)) {
            return Err(AccessError::Ca);
        }
        if self.copy.len() > COPIES_MAX {
            return Err(AccessError::Copies);
        }
        if let Some(name) = self.copy.iter().find(|name| !can_be_copied(name)) {
            return Err(AccessError::Copy(name.clone()));
        }
        if self.timeout_ms.get() > AUTHORITY_MS_MAX {
            return Err(AccessError::Timeout);
        }
        Ok(())
    }
}

fn can_be_copied(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.bytes().all(token)
        && !is_of_messages(name.as_bytes())
        && !is_said_by_edges(name.as_bytes())
}
