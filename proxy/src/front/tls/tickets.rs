//! Session tickets: what a client shows to resume its session without a full handshake.
//!
//! They are sealed with secrets from outside, so that every edge resumes what another one began; a proxy that was given none
//! makes its own, and hands them to the process that takes its place. A secret is used for [`LIFETIME`] at most, whatever outside says, is held in memory only, and never shown.
//! What it seals is of one listener and one policy for client certificates: resumption skips the verifier, so a ticket of one
//! must not open another.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use super::keys::{SECRET_BYTES, TicketKey, TicketKeys};

/// How long a secret is used, to seal or to open.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// After which time a proxy makes itself a new secret; older ones still open.
const OWN_PERIOD: Duration = Duration::from_secs(6 * 60 * 60);
/// How far the clocks of edges that share secrets may be apart: so much before its time a secret opens, but does not seal.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// Secrets of its own that a listener takes over from its predecessor; one that makes them by [`OWN_PERIOD`] has four or five.
const HANDED_MAX: usize = 8;
/// How often secrets are looked at for their age.
const TURN: Duration = Duration::from_secs(60);
/// Secrets whose begin is remembered, so that naming a later one does not make them last longer.
const KNOWN_MAX: usize = 64;
/// The largest ticket that is opened; a client certificate's chain is in it.
const TICKET_MAX_BYTES: usize = 32 << 10;

const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
/// Before the sealed part: which secret, and what makes the ticket's own key.
const HEAD_BYTES: usize = NAME_BYTES + SALT_BYTES + NONCE_LEN;

/// The tickets of one listener.
pub(crate) struct Tickets {
    /// What is sealed here and nowhere else.
    purpose: Vec<u8>,
    random: SystemRandom,
    /// What handshakes use.
    seals: ArcSwap<Vec<Arc<Seal>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    given: Vec<Arc<Seal>>,
    own: Vec<Arc<Seal>>,
    known: VecDeque<([u8; NAME_BYTES], SystemTime)>,
}

/// A secret as one listener uses it.
struct Seal {
    name: [u8; NAME_BYTES],
    root: Prk,
    begins: SystemTime,
    source: Source,
    /// What a successor needs; only of those that were made here.
    own: Option<TicketKey>,
}

/// What was given seals before what was made here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Own,
    Given,
}

/// There is no randomness.
#[derive(Debug, thiserror::Error)]
#[error("get random bytes for ticket keys")]
pub(crate) struct NoRandomness;

/// A length, for a derivation.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Seal {
    fn new(key: &TicketKey, purpose: &[u8], source: Source) -> Option<Self> {
        let root = Salt::new(HKDF_SHA256, b"dormouse session tickets").extract(key.secret());
        let root: Prk = root.expand(&[b"listener", purpose], HKDF_SHA256).ok()?.into();
        let mut name = [0; NAME_BYTES];
        root.expand(&[b"name"], Bytes(NAME_BYTES)).and_then(|okm| okm.fill(&mut name)).ok()?;
        let own = (source == Source::Own).then(|| key.clone());
        Some(Self { name, root, begins: key.not_before(), source, own })
    }

    /// Each ticket has a key of its own: however many tickets all edges seal with a secret, no nonce comes twice.
    fn key(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let purpose = [b"ticket", salt];
        let okm = self.root.expand(&purpose, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }

    /// How long it may seal yet; `None` before and after its time.
    fn remains(&self, now: SystemTime) -> Option<Duration> {
        let age = now.duration_since(self.begins).ok()?;
        LIFETIME.checked_sub(age).filter(|rest| !rest.is_zero())
    }

    fn opens(&self, now: SystemTime) -> bool {
        match now.duration_since(self.begins) {
            Ok(age) => age < LIFETIME,
            Err(early) => early.duration() <= SKEW,
        }
    }

    fn is_over(&self, now: SystemTime) -> bool {
        now.duration_since(self.begins).is_ok_and(|age| age >= LIFETIME)
    }
}

impl Tickets {
    /// For a listener, and the digest of its policy for client certificates; with a secret of its own.
    pub(crate) fn new(listener: &str, policy: &[u8; 32], now: SystemTime) -> Result<Self, NoRandomness> {
        let tickets = Self {
            purpose: [listener.as_bytes(), &[0], policy].concat(),
            random: SystemRandom::new(),
            seals: ArcSwap::default(),
            state: Mutex::default(),
        };
        tickets.turn(now);
        if tickets.sealing(now).is_some() { Ok(tickets) } else { Err(NoRandomness) }
    }

    /// Takes these secrets in place of those that were given before.
    pub(crate) fn give(&self, keys: &TicketKeys, now: SystemTime) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seals = keys.iter().filter_map(|key| Seal::new(key, &self.purpose, Source::Given));
        let seals: Vec<_> = seals.map(|seal| Arc::new(state.know(seal))).collect();
        state.given = seals;
        drop(state);
        self.turn(now);
    }

    /// The secrets that were made here and are in use, for a successor.
    pub(crate) fn own(&self) -> Vec<TicketKey> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.own.iter().filter_map(|seal| seal.own.clone()).collect()
    }

    /// Takes the secrets that a predecessor made for the same listener, in place of the one that was made at the start, which has
    /// sealed nothing yet. Both seal with the same one then, and each resumes what the other one began.
    pub(crate) fn inherit(&self, keys: impl Iterator<Item = TicketKey>, now: SystemTime) {
        let seals = keys.take(HANDED_MAX).filter_map(|key| Seal::new(&key, &self.purpose, Source::Own));
        // One from the future would seal for longer than a day.
        let usable = seals.filter(|seal| seal.remains(now).is_some()).map(Arc::new);
        let usable: Vec<_> = usable.collect();
        if usable.is_empty() {
            return;
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).own = usable;
        self.turn(now);
    }

    /// Forgets what is too old, and makes a secret where it is time for one.
    pub(crate) fn turn(&self, now: SystemTime) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let had = !state.given.is_empty();
        state.given.retain(|seal| !seal.is_over(now));
        state.own.retain(|seal| !seal.is_over(now));
        if had && state.given.is_empty() {
            warn!("every ticket key that was given is too old: this edge uses its own, which no other edge has");
        }
        let is_fresh = |seal: &Arc<Seal>| now.duration_since(seal.begins).is_ok_and(|age| age < OWN_PERIOD);
        if !state.own.iter().any(is_fresh) {
            match self.make(now) {
                Some(seal) => state.own.push(Arc::new(seal)),
                None => error!("there is no randomness for a new ticket key"),
            }
        }
        self.seals.store(Arc::new(state.given.iter().chain(&state.own).map(Arc::clone).collect()));
    }

    fn make(&self, now: SystemTime) -> Option<Seal> {
        let mut secret = [0; SECRET_BYTES];
        self.random.fill(&mut secret).ok()?;
        Seal::new(&TicketKey::new(secret, now), &self.purpose, Source::Own)
    }

    fn sealing(&self, now: SystemTime) -> Option<(Arc<Seal>, Duration)> {
        let seals = self.seals.load();
        let usable = seals.iter().filter_map(|seal| Some((seal, seal.remains(now)?)));
        let best = usable.max_by_key(|(seal, _)| (seal.source, seal.begins));
        best.map(|(seal, remains)| (Arc::clone(seal), remains))
    }

    fn seal(&self, plain: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let (seal, _) = self.sealing(now)?;
        let mut ticket = Vec::with_capacity(HEAD_BYTES + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&seal.name);
        ticket.resize(HEAD_BYTES, 0);
        self.random.fill(&mut ticket[NAME_BYTES..]).ok()?;
        ticket.extend_from_slice(plain);
        let (head, sealed) = ticket.split_at_mut(HEAD_BYTES);
        let (head, nonce) = head.split_at(NAME_BYTES + SALT_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let key = seal.key(&head[NAME_BYTES..])?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(head), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_MAX_BYTES {
            return None;
        }
        let (head, sealed) = ticket.split_at_checked(HEAD_BYTES)?;
        let (head, nonce) = head.split_at(NAME_BYTES + SALT_BYTES);
        let seals = self.seals.load();
        // The name is no secret: it is in every ticket.
        let seal = seals.iter().find(|seal| seal.name == head[..NAME_BYTES] && seal.opens(now))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let len = seal.key(&head[NAME_BYTES..])?.open_in_place(nonce, Aad::from(head), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}

impl State {
    /// Dates a seal by the earliest begin that was ever named for it.
    fn know(&mut self, seal: Seal) -> Seal {
        if let Some((_, begins)) = self.known.iter_mut().find(|(name, _)| *name == seal.name) {
            *begins = seal.begins.min(*begins);
            return Seal { begins: *begins, ..seal };
        }
        self.known.push_back((seal.name, seal.begins));
        if self.known.len() > KNOWN_MAX {
            self.known.pop_front();
        }
        seal
    }
}

/// Keeps the secrets of all listeners young, for as long as it is polled.
pub(crate) async fn turn(tickets: Vec<Arc<Tickets>>) {
    let mut period = interval(TURN);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        for tickets in &tickets {
            tickets.turn(SystemTime::now());
        }
    }
}

/// Shows no secret.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// What is left to the secret: the client need not keep a ticket for longer.
    fn lifetime(&self) -> u32 {
        let remains = self.sealing(SystemTime::now()).map_or(Duration::ZERO, |(_, remains)| remains);
        u32::try_from(remains.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, SystemTime::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, SystemTime::now())
    }
}

#[cfg(test)]
mod tests;
