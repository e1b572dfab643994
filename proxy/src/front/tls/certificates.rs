//! Certificates by host: exact, else by the wildcard one label above.
//!
//! A certificate is bytes until its host is first asked for; so many are kept parsed, and those that were asked for least
//! lately are bytes again. A new version is a new slot, so nothing stale is ever offered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use dormouse_link::{Certificate, CertificateName, HOST_MAX_BYTES};
use tracing::warn;

use super::pair::{CertificateId, KeyPair};
use crate::live::hosts::Hosts;

/// Certificates that are kept parsed, at some 4 KiB each beyond their bytes.
const PARSED_MAX: usize = 4096;

/// See the module.
pub(crate) struct Certificates {
    hosts: Hosts<Arc<Slot>>,
    /// What is parsed, in the order in which it is looked at when there is too much.
    clock: Mutex<VecDeque<Weak<Slot>>>,
    parsed_max: usize,
}

struct Slot {
    certificate: Certificate,
    id: OnceLock<Option<CertificateId>>,
    /// `None` in it: what cannot be used is not tried again with every handshake.
    parsed: ArcSwapOption<Option<KeyPair>>,
    /// Since the clock last came by.
    used: AtomicBool,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        Self { hosts: Hosts::new(), clock: Mutex::default(), parsed_max: PARSED_MAX }
    }

    /// Sets or removes what is offered for a name.
    pub(crate) fn set(&self, name: &CertificateName, certificate: Option<Certificate>) {
        let new = |certificate| {
            Arc::new(Slot {
                certificate,
                id: OnceLock::new(),
                parsed: ArcSwapOption::empty(),
                used: AtomicBool::new(false),
            })
        };
        self.hosts.set(name.as_str(), certificate.map(new));
    }

    /// What a normalised host proves itself with.
    pub(crate) fn get(&self, host: &str, now: SystemTime) -> Option<KeyPair> {
        let slot = self.find(host)?;
        slot.used.store(true, Ordering::Relaxed);
        if let Some(parsed) = slot.parsed.load().as_ref() {
            return Option::clone(parsed);
        }
        let parsed = slot.parse(now);
        if slot.parsed.swap(Some(Arc::new(parsed.clone()))).is_none() {
            self.keep(&slot);
        }
        parsed
    }

    /// Which certificate a normalised host proves itself with, parsed or not.
    pub(crate) fn id(&self, host: &str) -> Option<CertificateId> {
        let slot = self.find(host)?;
        *slot.id.get_or_init(|| CertificateId::of_chain(&slot.certificate.chain))
    }

    fn find(&self, host: &str) -> Option<Arc<Slot>> {
        self.hosts.get(host).or_else(|| {
            let mut buffer = [0; HOST_MAX_BYTES];
            self.hosts.get(CertificateName::wildcard_of(host, &mut buffer)?)
        })
    }

    /// Counts one more as parsed, and lets go of others where there are too many.
    fn keep(&self, slot: &Arc<Slot>) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.push_back(Arc::downgrade(slot));
        while clock.len() > self.parsed_max {
            let Some(oldest) = clock.pop_front() else { return };
            let Some(slot) = oldest.upgrade() else { continue };
            // Each round takes a mark away, so it ends.
            if slot.used.swap(false, Ordering::Relaxed) {
                clock.push_back(oldest);
            } else {
                slot.parsed.store(None);
            }
        }
    }
}

impl Slot {
    fn parse(&self, now: SystemTime) -> Option<KeyPair> {
        let Certificate { host, chain, key } = &self.certificate;
        let pair = KeyPair::read(chain.as_bytes(), key.as_bytes())
            .inspect_err(|error| warn!(%host, error = error as &dyn std::error::Error, "a certificate cannot be used"))
            .ok()?;
        if let Err(error) = pair.in_date(now) {
            warn!(%host, %error, "a certificate is out of date, and offered for want of a better one");
        }
        Some(pair)
    }
}

/// Whether a certificate may take the place of an older one; else why not, in words for its owner.
///
/// One that is out of date is no use to browsers, but is better than none to programs that do not look: it is offered where
/// there is no better one, and its operator hears of it.
pub(crate) fn fits(new: &Certificate, old: Option<&Certificate>, now: SystemTime) -> Result<(), String> {
    if old == Some(new) {
        return Ok(());
    }
    let pair = KeyPair::read(new.chain.as_bytes(), new.key.as_bytes()).map_err(|error| in_full(&error))?;
    if let Err(error) = pair.in_date(now) {
        if old.is_some_and(|old| KeyPair::parse(old.chain.as_bytes(), old.key.as_bytes(), now).is_ok()) {
            return Err(in_full(&error));
        }
        warn!(host = %new.host, %error, "a certificate is out of date, and taken for want of a better one");
    }
    if !pair.covers(&new.host) {
        warn!(host = %new.host, "a certificate does not name the host it is for: browsers will refuse it");
    }
    Ok(())
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::super::pair::tests::{at, made};
    use super::*;

    fn certificate(name: &str) -> Certificate {
        let (chain, key) = made(&[name]);
        Certificate { host: name.parse().expect("a name"), chain: chain.into(), key: key.into() }
    }

    fn with(names: &[&str]) -> Certificates {
        let certificates = Certificates::new();
        for name in names {
            let certificate = certificate(name);
            certificates.set(&certificate.host.clone(), Some(certificate));
        }
        certificates
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard_of_one_label() {
        let certificates = with(&["a.b.example", "*.b.example"]);
        let id = |host: &str| certificates.id(host);
        assert!(id("a.b.example").is_some() && id("x.b.example").is_some());
        assert_ne!(id("a.b.example"), id("x.b.example"));
        assert_eq!(id("x.b.example"), id("y.b.example"));
        for none in ["b.example", "x.y.b.example", "example", "c.example"] {
            assert!(id(none).is_none() && certificates.get(none, at(1500)).is_none(), "{none}");
        }
        let got = certificates.get("y.b.example", at(1500)).expect("a pair");
        assert_eq!(Some(got.id()), id("y.b.example"), "parsed or not, it is the same one");
    }

    #[test]
    fn so_many_are_kept_parsed_and_the_least_lately_used_are_not() {
        let names: Vec<String> = (0..6).map(|number| format!("{number}.example")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut certificates = with(&names);
        certificates.parsed_max = 4;
        let is_parsed = |name: &str| certificates.find(name).expect("a slot").parsed.load().is_some();
        for name in &names[..4] {
            certificates.get(name, at(1500)).expect("a pair");
        }
        // The clock comes round once, takes all marks away, and the oldest goes.
        certificates.get(names[4], at(1500)).expect("a pair");
        assert!(!is_parsed(names[0]));
        certificates.get(names[1], at(1500)).expect("a pair");
        certificates.get(names[5], at(1500)).expect("a pair");
        assert!(is_parsed(names[1]) && !is_parsed(names[2]), "the one that was used stays");
        assert_eq!(names.iter().filter(|name| is_parsed(name)).count(), 4);
        assert!(certificates.get(names[0], at(1500)).is_some(), "it is parsed again when it is needed");
    }

    #[test]
    fn p52_an_update_replaces_nothing_by_something_worse() {
        let (good, newer) = (certificate("a.example"), certificate("a.example"));
        let unfit = Certificate { key: Arc::clone(&newer.key), ..good.clone() };
        assert_eq!(fits(&newer, Some(&good), at(1500)), Ok(()));
        assert_eq!(fits(&good, None, at(1500)), Ok(()));
        let why = fits(&unfit, None, at(1500)).expect_err("another's key");
        assert!(why.starts_with("use the key with the certificate: "), "{why}");
        assert_eq!(fits(&good, None, at(3000)), Ok(()), "it is better than none");
        assert_eq!(fits(&newer, Some(&good), at(3000)), Ok(()), "the old one is no better");
        let late = |old: &Certificate| {
            let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("a name");
            params.not_before = time::OffsetDateTime::from_unix_timestamp(1000).expect("a time");
            let key = rcgen::KeyPair::generate().expect("a key");
            let chain = params.self_signed(&key).expect("a certificate").pem().into();
            let valid = Certificate { chain, key: key.serialize_pem().into(), ..old.clone() };
            fits(old, Some(&valid), at(3000))
        };
        assert_eq!(late(&good), Err("use a certificate that expired at 1970-01-01T00:33:20Z".to_owned()));
    }
}
