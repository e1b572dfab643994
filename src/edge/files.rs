//! The files of an edge without a control plane: the table, the certificates and pages it names, and the certificate for all
//! other names.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use dormouse_link::policy::{PAGE_MAX_BYTES, Page};
use dormouse_link::{Body, Certificate, CertificateName, FILE_MAX_BYTES, FileError, ObjectId, Table, TableFile};
use dormouse_proxy::{
    ClientAuthority, ClientAuthorityError, KeyPair, KeyPairError, StickySecret, StickySecretError, TicketKeys,
    TicketKeysError,
};

use crate::failure::{Exit, Failure};
use crate::plain;

/// The largest file of a chain or key that is read, in bytes.
const PEM_MAX_BYTES: u64 = 1 << 20;

/// The largest file of ticket keys that is read, in bytes.
const TICKET_KEYS_MAX_BYTES: u64 = 64 << 10;

/// The largest file of a key for cookies that is read, in bytes.
const COOKIE_KEY_MAX_BYTES: u64 = 1 << 10;

/// Bits of a file's mode by which others than its owner may read or change it.
const OF_OTHERS: u32 = 0o077;

/// Where a chain and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// The chain, leaf first, PEM.
    pub chain: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Every file, and how each one was when it was last read.
pub(super) struct Files {
    table: PathBuf,
    certificate: Option<KeyPairFiles>,
    ticket_keys: Option<PathBuf>,
    /// The listener's own certificate as it was last taken.
    own: Option<KeyPair>,
    seen: Vec<(PathBuf, Option<Mark>)>,
}

/// What the files say.
pub(super) struct Loaded {
    pub(super) table: Table,
    pub(super) certificate: Option<KeyPair>,
    pub(super) ticket_keys: Option<TicketKeys>,
}

/// By what a changed file is known, whether it was written in place or replaced.
#[derive(PartialEq)]
struct Mark {
    inode: u64,
    bytes: u64,
    written: (i64, i64),
    moved: (i64, i64),
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let of = |data: Metadata| Self {
            inode: data.ino(),
            bytes: data.size(),
            written: (data.mtime(), data.mtime_nsec()),
            moved: (data.ctime(), data.ctime_nsec()),
        };
        fs::metadata(path).map(of).ok()
    }
}

/// Why the files are not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("cannot read {}", shown(path))]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {max} bytes", shown(path))]
    TooLarge { path: PathBuf, max: u64 },
    #[error("{} is not taken", shown(path))]
    Table { path: PathBuf, source: FileError },
    #[error("the certificate of {of} ({}, {}) cannot be used", shown(&files.chain), shown(&files.key))]
    Certificate { of: String, files: Box<KeyPairFiles>, source: KeyPairError },
    #[error("{of} cannot be shown")]
    Page { of: String, source: Box<Self> },
    #[error("{} is empty", shown(path))]
    Empty { path: PathBuf },
    #[error("the ticket keys of {} are not taken", path.display())]
    TicketKeys { path: PathBuf, source: TicketKeysError },
    #[error("others than its owner may read {}", path.display())]
    Open { path: PathBuf },
}

/// Reads the certificates of the authority that certifies clients.
pub(super) fn clients(path: &Path) -> Result<ClientAuthority, Failure> {
    let failed = |cause: &(dyn std::error::Error + 'static)| {
        let what = format!("clients cannot be told by {} (--client-ca)", path.display());
        Failure::new(Exit::Configuration, what).because(cause).hint("give the certificates of an authority, as PEM")
    };
    let text = read(path, PEM_MAX_BYTES).map_err(|error| failed(&error))?;
    ClientAuthority::parse(text.as_bytes()).map_err(|error: ClientAuthorityError| failed(&error))
}

/// Reads what cookies are signed with.
pub(super) fn cookie_key(path: &Path) -> Result<StickySecret, Failure> {
    let failed = |cause: &(dyn std::error::Error + 'static)| {
        let what = format!("cookies cannot be signed by {} (--cookie-key)", path.display());
        let hint = "give a file with 64 hex digits, mode 0600: openssl rand -hex 32";
        Failure::new(Exit::Configuration, what).because(cause).hint(hint)
    };
    let text = read(path, COOKIE_KEY_MAX_BYTES).map_err(|error| failed(&error))?;
    let mode = fs::metadata(path).map_err(|error| failed(&error))?.mode();
    if mode & OF_OTHERS != 0 {
        return Err(failed(&FilesError::Open { path: path.to_owned() }));
    }
    text.trim().parse().map_err(|error: StickySecretError| failed(&error))
}

/// A path as one line that is harmless in a terminal.
fn shown(path: &Path) -> String {
    plain::value(&path.to_string_lossy())
}

impl Files {
    pub(super) fn new(table: PathBuf, certificate: Option<KeyPairFiles>, ticket_keys: Option<PathBuf>) -> Self {
        Self { table, certificate, ticket_keys, own: None, seen: Vec::new() }
    }

    /// Whether one of them is not as it was when it was last read.
    pub(super) fn changed(&self) -> bool {
        self.seen.iter().any(|(path, mark)| Mark::of(path) != *mark)
    }

    /// Reads them all: everything is taken, or nothing. What could not be read counts as changed for as long as it is there.
    pub(super) fn load(&mut self, previous: &Table) -> Result<Loaded, FilesError> {
        self.seen.clear();
        let loaded = self.read_all(previous);
        let unread = match &loaded {
            Err(FilesError::Page { source, .. }) => matches!(**source, FilesError::Read { .. }),
            Err(error) => matches!(error, FilesError::Read { .. }),
            Ok(_) => false,
        };
        if let (true, Some((_, mark))) = (unread, self.seen.last_mut()) {
            *mark = None;
        }
        loaded
    }

    fn read_all(&mut self, previous: &Table) -> Result<Loaded, FilesError> {
        let text = self.read(&self.table.clone(), FILE_MAX_BYTES)?;
        let wrong = |source| FilesError::Table { path: self.table.clone(), source };
        let mut file = TableFile::parse(&text).map_err(wrong)?;
        let folder = self.table.parent().unwrap_or(Path::new("")).to_owned();
        self.pages(&mut file, &folder)?;
        let mut certificates = Vec::with_capacity(file.certificates.len());
        for named in &file.certificates {
            let files = KeyPairFiles { chain: folder.join(&named.chain), key: folder.join(&named.key) };
            certificates.push(self.certificate(named.host.clone(), files, previous)?);
        }
        let ticket_keys = self.ticket_keys.clone().map(|path| self.keys(path)).transpose()?;
        let own = self.own.clone();
        let certificate = self.certificate.clone();
        let certificate = certificate.map(|files| self.pair("the listener", &files, |_, _| own)).transpose()?;
        let certificate = certificate.map(|(pair, ..)| pair);
        self.own.clone_from(&certificate);
        Ok(Loaded { table: file.table(previous, certificates), certificate, ticket_keys })
    }

    /// Puts the text of files in the place of their names; one that several pages name is read once, and shared.
    fn pages(&mut self, file: &mut TableFile, folder: &Path) -> Result<(), FilesError> {
        let mut read: HashMap<PathBuf, Arc<str>> = HashMap::new();
        for (of, page) in file.pages_mut() {
            let Page::File(path) = page else { continue };
            let path = folder.join(path);
            let text = match read.get(&path) {
                Some(text) => Arc::clone(text),
                None => {
                    let text: Arc<str> =
                        self.page(&path).map_err(|source| FilesError::Page { of, source: Box::new(source) })?.into();
                    read.insert(path, Arc::clone(&text));
                    text
                }
            };
            *page = Page::Text(text);
        }
        Ok(())
    }

    fn page(&mut self, path: &Path) -> Result<String, FilesError> {
        let text = self.read(path, PAGE_MAX_BYTES as u64)?;
        if text.trim_ascii().is_empty() {
            return Err(FilesError::Empty { path: path.to_owned() });
        }
        Ok(text)
    }

    fn certificate(
        &mut self,
        host: CertificateName,
        files: KeyPairFiles,
        previous: &Table,
    ) -> Result<Certificate, FilesError> {
        let older = |chain: &str, key: &str| match &previous.objects.get(&ObjectId::Certificate(host.clone()))?.body {
            Body::Certificate(older) if *older.chain != *chain || *older.key != *key => {
                KeyPair::read(older.chain.as_bytes(), older.key.as_bytes()).ok()
            }
            _ => None,
        };
        let (_, chain, key) = self.pair(host.as_str(), &files, older)?;
        Ok(Certificate { host, chain: chain.into(), key: key.into() })
    }

    /// One that is out of date takes the place of none that is not; where there is no better one, it is served: a certificate
    /// that was forgotten must not keep an edge from starting, or others from changing.
    fn pair(
        &mut self,
        of: &str,
        files: &KeyPairFiles,
        older: impl FnOnce(&str, &str) -> Option<KeyPair>,
    ) -> Result<(KeyPair, String, String), FilesError> {
        let (chain, key) = (self.read(&files.chain, PEM_MAX_BYTES)?, self.read(&files.key, PEM_MAX_BYTES)?);
        let unfit = |source| FilesError::Certificate { of: of.to_owned(), files: Box::new(files.clone()), source };
        let pair = KeyPair::read(chain.as_bytes(), key.as_bytes()).map_err(unfit)?;
        let now = SystemTime::now();
        if let Err(error) = pair.in_date(now)
            && older(&chain, &key).is_some_and(|older| older.in_date(now).is_ok())
        {
            return Err(unfit(error));
        }
        Ok((pair, chain, key))
    }

    fn keys(&mut self, path: PathBuf) -> Result<TicketKeys, FilesError> {
        let text = self.read(&path, TICKET_KEYS_MAX_BYTES)?;
        let mode = fs::metadata(&path).map_err(|source| FilesError::Read { path: path.clone(), source })?.mode();
        if mode & OF_OTHERS != 0 {
            return Err(FilesError::Open { path });
        }
        TicketKeys::parse(&text).map_err(|source| FilesError::TicketKeys { path, source })
    }

    /// Marked before it is read: a change meanwhile is seen by the next look.
    fn read(&mut self, path: &Path, max: u64) -> Result<String, FilesError> {
        self.seen.push((path.to_owned(), Mark::of(path)));
        read(path, max)
    }
}

fn read(path: &Path, max: u64) -> Result<String, FilesError> {
    let failed = |source| FilesError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(max + 1).read_to_string(&mut text)).map_err(failed)?;
    if text.len() as u64 > max {
        return Err(FilesError::TooLarge { path: path.to_owned(), max });
    }
    Ok(text)
}

impl From<FilesError> for Failure {
    fn from(error: FilesError) -> Self {
        let hint = match &error {
            FilesError::Read { .. } => "is the path right, and may this user read it?",
            FilesError::TooLarge { .. } | FilesError::Empty { .. } => "is it the right file?",
            FilesError::Page { .. } => {
                "a page is a file with HTML as UTF-8, up to 64 KiB, beside the table or where its path says"
            }
            FilesError::Table { .. } => {
                r#"the smallest table is {"routes": [{"host": "a.example.com", "endpoints": ["127.0.0.1:9001"]}]}"#
            }
            FilesError::TicketKeys { .. } => "each line is SECONDS SECRET: Unix time, and 64 hex digits",
            FilesError::Open { .. } => "chmod 600, and make new keys if somebody may have read these",
            FilesError::Certificate { .. } => "give a PEM chain, leaf first, and the PEM key that belongs to the leaf",
        };
        Self::new(Exit::Configuration, "cannot serve these files").because(&error).hint(hint)
    }
}
