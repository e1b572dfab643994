//! The local certificate authority: HTTPS on the first day, for names that no public authority signs.
//!
//! It is made at the first start and kept in the data folder; people who trust `ca.pem` trust every environment's
//! certificate. The key never leaves its file, which only its owner can read. Called at the start, and by whoever publishes
//! certificates.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dormouse_link::{Certificate, Host};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;

/// The certificate, for people to trust.
pub const CA_FILE: &str = "ca.pem";

/// Its key, for nobody.
pub const KEY_FILE: &str = "ca.key";

/// How long the authority is good for.
const CA_LIFETIME: Duration = days(3650);

/// How long what it issues is good for: the most that clients accept of a public authority, and some of any.
const LEAF_LIFETIME: Duration = days(397);

/// Certificates are good from this long ago, for clients whose clock is late.
const EARLIER: Duration = days(1);

/// The largest file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 64 << 10;

/// A certificate authority that signs for any host.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// Others than its owner could have read the key.
    #[error(
        "use {path}: it is readable for others (mode {mode:03o}); if nobody else knows it, run: chmod 600 {path}",
        path = path.display()
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// One file is there without the other.
    #[error("find {missing}, which belongs to {found}: bring it back, or remove {found} too", missing = missing.display(), found = found.display())]
    Half {
        /// The file that is there.
        found: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// What a file holds is no certificate authority, or the two do not belong together.
    #[error("read the certificate authority in {}: bring both files back, or remove both", path.display())]
    Content {
        /// In which folder.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Option<rcgen::Error>,
    },
    /// A certificate could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
}

impl Authority {
    /// The authority in a folder that is there; makes it where there is none.
    pub fn open_or_create(folder: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        let (certificate, key) = (folder.join(CA_FILE), folder.join(KEY_FILE));
        match (certificate.exists(), key.exists()) {
            (true, true) => Self::open(folder, &certificate, &key),
            // The key is written first, so this is what a start that was cut off leaves: nobody has seen the certificate.
            (false, _) => Self::create(&certificate, &key, now),
            (true, false) => Err(AuthorityError::Half { found: certificate, missing: key }),
        }
    }

    /// Its own certificate, PEM: what people may trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A new key, and a certificate that names exactly `host`.
    pub fn issue(&self, host: &Host, now: SystemTime) -> Result<Certificate, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![match address(host) {
            Some(address) => SanType::IpAddress(address),
            None => SanType::DnsName(host.as_str().try_into()?),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now, LEAF_LIFETIME);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certificate { host: host.clone().into(), chain: certificate.pem().into(), key: key.serialize_pem().into() })
    }

    fn open(folder: &Path, certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let mode = fs::metadata(key).map_err(file("read", key))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(AuthorityError::Open { path: key.to_owned(), mode });
        }
        let (key, certificate) = (read(key)?, read(certificate)?);
        let content = |source| AuthorityError::Content { path: folder.to_owned(), source: Some(source) };
        let key = KeyPair::from_pem(&key).map_err(content)?;
        let params = params(&key);
        if !belongs(&certificate, &key) {
            return Err(AuthorityError::Content { path: folder.to_owned(), source: None });
        }
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    fn create(certificate: &Path, key: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(&pair);
        (params.not_before, params.not_after) = validity(now, CA_LIFETIME);
        let made = params.self_signed(&pair)?.pem();
        write(key, 0o600, &pair.serialize_pem())?;
        write(certificate, 0o644, &made)?;
        Ok(Self { issuer: Issuer::new(params, pair), certificate: made })
    }
}

/// Never shows the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

/// The address that a host is, where it is one and no name.
fn address(host: &Host) -> Option<IpAddr> {
    let text = host.as_str();
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse().ok()
}

fn validity(now: SystemTime, lifetime: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let from = OffsetDateTime::from(now) - EARLIER;
    (from, from + lifetime)
}

/// What the authority is called and may do. Follows from its key alone, so that what it signs refers to the certificate in
/// the file: a change here would disown the authorities that are there.
fn params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name(key));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Two authorities in one browser can be told apart by the end of their keys.
fn name(key: &KeyPair) -> String {
    let public = key.public_key_raw();
    let end = &public[public.len().saturating_sub(4)..];
    format!("Dormouse local CA {}", end.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Whether this is the certificate of this key's authority.
fn belongs(certificate: &str, key: &KeyPair) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(certificate.as_bytes()) else { return false };
    let has = |part: &[u8]| certificate.windows(part.len()).any(|window| window == part);
    has(key.public_key_raw()) && has(name(key).as_bytes())
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AuthorityError {
    move |source| AuthorityError::File { doing, path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| io::Read::read_to_string(&mut io::Read::take(file, FILE_MAX_BYTES), &mut text));
    read.map_err(file("read", path))?;
    Ok(text)
}

/// Writes a file that is either whole or not there, with its mode from the first moment.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), AuthorityError> {
    let new = path.with_extension("new");
    let write = || {
        // Left by a start that was cut off; a new file is made so that the mode is ours.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(file("write", path))
}

#[cfg(test)]
mod tests;
