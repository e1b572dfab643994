//! HTTP Basic authentication (RFC 7617): who knows a password of the policy passes.
//!
//! Verifying takes tens of milliseconds on purpose, so it is done on threads of its own, a few at a time, and each verdict is
//! kept, under a keyed hash of name and password, never the password. Whoever has the right one is verified once for as long
//! as the policy stays, and is never behind those who guess. Who guesses waits in a bounded queue, in which a client and an
//! environment have only a part each.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dormouse_link::policy::{self, User};
use http::{HeaderMap, header};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clients::{Client, Clients, Full};
use crate::count::enter;
use crate::decide::refuse::Reason;
use crate::passwords;

/// The longest field that is looked at, in bytes.
const CREDENTIALS_MAX: usize = 1024;
/// Verifications that wait or run, in all; more get 503.
const VERIFIED_MAX: u32 = 64;
/// Of one environment; more get 503.
const VERIFIED_OF_ENVIRONMENT: u32 = 32;
/// Of one client; more get 429.
const VERIFIED_OF_CLIENT: u32 = 4;
/// How long one waits for its turn; then 503.
const TURN_WAIT: Duration = Duration::from_secs(10);
/// When a client that guesses too much may come again.
const GUESS_AGAIN: Duration = Duration::from_secs(5);
/// Wrong passwords of one environment that are remembered, so that repeating one costs nothing.
const WRONG_MAX: usize = 4096;

/// A keyed hash.
type Digest = [u8; 32];

/// Where passwords are verified; one for all workers and environments.
#[derive(Debug)]
pub(crate) struct Verifier {
    key: hmac::Key,
    at_a_time: Arc<Semaphore>,
    waiting: AtomicU32,
    clients: Clients<u32>,
}

impl Verifier {
    /// One that takes up to half of the processors.
    pub(crate) fn new(workers: usize) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            at_a_time: Arc::new(Semaphore::new(workers.div_ceil(2))),
            waiting: AtomicU32::new(0),
            clients: Clients::default(),
        })
    }

    fn digest(&self, credentials: &Credentials) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&credentials.name.len().to_be_bytes());
        context.update(credentials.name.as_bytes());
        context.update(&credentials.password);
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

struct Credentials {
    name: String,
    password: Vec<u8>,
}

impl Credentials {
    /// Of the one field that there is.
    fn of(fields: &HeaderMap) -> Option<Self> {
        let mut all = fields.get_all(header::AUTHORIZATION).iter();
        let (Some(field), None) = (all.next(), all.next()) else { return None };
        let (scheme, rest) = field.as_bytes().split_at_checked(6)?;
        if field.len() > CREDENTIALS_MAX || !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|&byte| byte == b':')?;
        let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
        Some(Self { name, password: decoded[colon + 1..].to_vec() })
    }
}

/// What an environment's passwords are, and which guesses were right.
#[derive(Debug)]
pub(super) struct Basic {
    policy: policy::Basic,
    waiting: AtomicU32,
    verdicts: Mutex<Verdicts>,
}

#[derive(Debug, Default)]
struct Verdicts {
    /// No more than there are users.
    right: HashSet<Digest>,
    wrong: HashSet<Digest>,
    /// Closed when the verdict is there, or given up.
    pending: HashMap<Digest, Arc<Semaphore>>,
}

enum Known {
    Right,
    Wrong,
    /// Somebody else asked for the same; then look again.
    Soon(Arc<Semaphore>),
    /// It is up to whoever asked now.
    No,
}

impl Basic {
    pub(super) fn new(policy: policy::Basic) -> Self {
        Self { policy, waiting: AtomicU32::new(0), verdicts: Mutex::default() }
    }

    pub(super) fn policy(&self) -> &policy::Basic {
        &self.policy
    }

    /// The value of `WWW-Authenticate`.
    pub(super) fn challenge(&self) -> String {
        format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.policy.realm)
    }

    /// Whether the fields have a right password. Cancel-safe: a verification that nobody waits for is not begun.
    pub(super) async fn check(
        self: &Arc<Self>,
        verifier: &Verifier,
        client: Option<IpAddr>,
        fields: &HeaderMap,
    ) -> Result<(), Reason> {
        let credentials = Credentials::of(fields).ok_or(Reason::Unauthorized)?;
        let digest = verifier.digest(&credentials);
        loop {
            match self.known(digest) {
                Known::Right => return Ok(()),
                Known::Wrong => return Err(Reason::Unauthorized),
                Known::Soon(verdict) => drop(verdict.acquire().await),
                Known::No => {
                    let mut pending = Pending { basic: self, digest, verdict: None };
                    let _place = Place::take(verifier, self, Client::of(client))?;
                    let turn = timeout(TURN_WAIT, Arc::clone(&verifier.at_a_time).acquire_owned()).await;
                    // It is never closed.
                    let running = turn.map_err(|_| Reason::AccessBusy)?.map_err(|_| Reason::Internal)?;
                    let (hash, whose) = verified_against(&self.policy.users, &credentials.name);
                    let (hash, password) = (hash.to_owned(), credentials.password);
                    let verified = tokio::task::spawn_blocking(move || {
                        let _running = running;
                        passwords::is_of(&hash, &password)
                    });
                    let is_right = verified.await.map_err(|_| Reason::Internal)? && whose == Whose::Theirs;
                    pending.verdict = Some(is_right);
                    return if is_right { Ok(()) } else { Err(Reason::Unauthorized) };
                }
            }
        }
    }

    fn known(&self, digest: Digest) -> Known {
        let mut verdicts = self.verdicts();
        if verdicts.right.contains(&digest) {
            Known::Right
        } else if verdicts.wrong.contains(&digest) {
            Known::Wrong
        } else if let Some(verdict) = verdicts.pending.get(&digest) {
            Known::Soon(Arc::clone(verdict))
        } else {
            verdicts.pending.insert(digest, Arc::new(Semaphore::new(0)));
            Known::No
        }
    }

    fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose hash a password is verified against.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    /// That of the name's user.
    Theirs,
    /// Somebody else's: the name is nobody's.
    StandIns,
}

/// The hash for a name. Users' may differ in what they cost, and for a name that is nobody's there is one too: one that stays,
/// through restarts, on every edge and mostly through changes of the policy, so that how long it takes does not tell such names
/// from others. Which one is the hashes' secret.
fn verified_against<'u>(users: &'u [User], name: &str) -> (&'u str, Whose) {
    let by_hash = |user: &&User| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, user.hash.0.as_bytes());
        Digest::try_from(hmac::sign(&key, name.as_bytes()).as_ref()).unwrap_or_default()
    };
    // Looked for in any case, for looking takes time as well.
    let stand_in = users.iter().max_by_key(by_hash).map(|user| user.hash.0.as_str()).unwrap_or_default();
    let user = users.iter().find(|user| user.name == name);
    user.map_or((stand_in, Whose::StandIns), |user| (&user.hash.0, Whose::Theirs))
}

/// A verification under way; its drop says the verdict, if there is one, to all who wait for it.
struct Pending<'b> {
    basic: &'b Basic,
    digest: Digest,
    verdict: Option<bool>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut verdicts = self.basic.verdicts();
        match self.verdict {
            Some(true) => {
                verdicts.right.insert(self.digest);
            }
            Some(false) => {
                if verdicts.wrong.len() >= WRONG_MAX
                    && let Some(any) = verdicts.wrong.iter().next().copied()
                {
                    verdicts.wrong.remove(&any);
                }
                verdicts.wrong.insert(self.digest);
            }
            None => {}
        }
        if let Some(verdict) = verdicts.pending.remove(&self.digest) {
            verdict.close();
        }
    }
}

/// A place among those that wait to be verified; freed with its drop.
struct Place<'v> {
    verifier: &'v Verifier,
    basic: &'v Basic,
    client: Client,
}

impl<'v> Place<'v> {
    fn take(verifier: &'v Verifier, basic: &'v Basic, client: Client) -> Result<Self, Reason> {
        let full = |Full| Reason::TooManyRequests { retry_after: GUESS_AGAIN };
        verifier.clients.enter(client, VERIFIED_OF_CLIENT).map_err(full)?;
        if enter(&basic.waiting, VERIFIED_OF_ENVIRONMENT).is_none() {
            verifier.clients.leave(client);
            return Err(Reason::AccessBusy);
        }
        if enter(&verifier.waiting, VERIFIED_MAX).is_none() {
            verifier.clients.leave(client);
            basic.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(Reason::AccessBusy);
        }
        Ok(Self { verifier, basic, client })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.verifier.waiting.fetch_sub(1, Ordering::SeqCst);
        self.basic.waiting.fetch_sub(1, Ordering::SeqCst);
        self.verifier.clients.leave(self.client);
    }
}

#[cfg(test)]
mod tests;
