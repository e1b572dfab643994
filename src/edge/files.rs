//! The files of an edge without a control plane: the table, the certificates it names, and the one for all other names.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dormouse_link::{Certificate, FILE_MAX_BYTES, FileError, Host, Table, TableFile};
use dormouse_proxy::{KeyPair, KeyPairError};

use crate::failure::{Exit, Failure};
use crate::plain;

/// The largest file of a chain or key that is read, in bytes.
const PEM_MAX_BYTES: u64 = 1 << 20;

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
    seen: Vec<(PathBuf, Option<Mark>)>,
}

/// What the files say.
pub(super) struct Loaded {
    pub(super) table: Table,
    pub(super) certificate: Option<KeyPair>,
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
}

/// A path as one line that is harmless in a terminal.
fn shown(path: &Path) -> String {
    plain::value(&path.to_string_lossy())
}

impl Files {
    pub(super) fn new(table: PathBuf, certificate: Option<KeyPairFiles>) -> Self {
        Self { table, certificate, seen: Vec::new() }
    }

    /// Whether one of them is not as it was when it was last read.
    pub(super) fn changed(&self) -> bool {
        self.seen.iter().any(|(path, mark)| Mark::of(path) != *mark)
    }

    /// Reads them all: everything is taken, or nothing.
    pub(super) fn load(&mut self, previous: &Table) -> Result<Loaded, FilesError> {
        self.seen.clear();
        let text = self.read(&self.table.clone(), FILE_MAX_BYTES)?;
        let wrong = |source| FilesError::Table { path: self.table.clone(), source };
        let file = TableFile::parse(&text).map_err(wrong)?;
        let folder = self.table.parent().unwrap_or(Path::new("")).to_owned();
        let mut certificates = Vec::with_capacity(file.certificates.len());
        for named in &file.certificates {
            let files = KeyPairFiles { chain: folder.join(&named.chain), key: folder.join(&named.key) };
            certificates.push(self.certificate(named.host.clone(), files)?);
        }
        let certificate = self.certificate.clone().map(|files| Ok(self.pair("the listener", &files)?.0)).transpose()?;
        Ok(Loaded { table: file.table(previous, certificates), certificate })
    }

    fn certificate(&mut self, host: Host, files: KeyPairFiles) -> Result<Certificate, FilesError> {
        let (_, chain, key) = self.pair(host.as_str(), &files)?;
        Ok(Certificate { host, chain, key })
    }

    fn pair(&mut self, of: &str, files: &KeyPairFiles) -> Result<(KeyPair, String, String), FilesError> {
        let (chain, key) = (self.read(&files.chain, PEM_MAX_BYTES)?, self.read(&files.key, PEM_MAX_BYTES)?);
        let unfit = |source| FilesError::Certificate { of: of.to_owned(), files: Box::new(files.clone()), source };
        let pair = KeyPair::parse(chain.as_bytes(), key.as_bytes()).map_err(unfit)?;
        Ok((pair, chain, key))
    }

    /// Marked before it is read: a change meanwhile is seen by the next look.
    fn read(&mut self, path: &Path, max: u64) -> Result<String, FilesError> {
        self.seen.push((path.to_owned(), Mark::of(path)));
        let failed = |source| FilesError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(max + 1).read_to_string(&mut text)).map_err(failed)?;
        if text.len() as u64 > max {
            return Err(FilesError::TooLarge { path: path.to_owned(), max });
        }
        Ok(text)
    }
}

impl From<FilesError> for Failure {
    fn from(error: FilesError) -> Self {
        let hint = match &error {
            FilesError::Read { .. } => "is the path right, and may this user read it?",
            FilesError::TooLarge { .. } => "is it the right file?",
            FilesError::Table { .. } => {
                r#"the smallest table is {"routes": [{"host": "a.example.com", "endpoints": ["127.0.0.1:9001"]}]}"#
            }
            FilesError::Certificate { .. } => "give a PEM chain, leaf first, and the PEM key that belongs to the leaf",
        };
        Self::new(Exit::Configuration, "cannot serve these files").because(&error).hint(hint)
    }
}
