//! Where lines go: a file that is rotated, stdout, or syslog (RFC 5424). For access records, and for the program's log.
//!
//! Whoever writes here has a thread of its own for it. A line that cannot be written is an error, which that thread counts.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};

use super::syslog::{Syslog, SyslogAddress, Topic};
use crate::config::Limits;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Added to this file, which is rotated.
    File(PathBuf),
    /// To stdout.
    Stdout,
    /// To a syslog daemon.
    Syslog(SyslogAddress),
}

/// Why a text is no [`Output`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is none of file:PATH, stdout, syslog, syslog:/PATH and syslog:IP:PORT")]
pub struct OutputError;

impl From<PathBuf> for Output {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl FromStr for Output {
    type Err = OutputError;

    /// A path needs no `file:` if it has a slash.
    fn from_str(text: &str) -> Result<Self, OutputError> {
        let path = |path: &str| {
            let sound = !path.is_empty() && !path.ends_with('/') && !path.chars().any(char::is_control);
            sound.then(|| Self::File(path.into())).ok_or(OutputError)
        };
        match text.split_once(':') {
            _ if text == "stdout" => Ok(Self::Stdout),
            _ if text == "syslog" => Ok(Self::Syslog(SyslogAddress::default())),
            Some(("file", named)) => path(named),
            Some(("syslog", address)) => address.parse().map(Self::Syslog),
            _ if text.contains('/') => path(text),
            _ => Err(OutputError),
        }
    }
}

/// As a person is told it.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdout => f.write_str("stdout"),
            Self::Syslog(SyslogAddress::Local(path)) => write!(f, "syslog at {}", path.display()),
            Self::Syslog(SyslogAddress::Udp(address)) => write!(f, "syslog at {address}"),
        }
    }
}

impl Output {
    /// Opens it for the program's log; each line is written by itself.
    pub fn open_for_log(&self) -> io::Result<Box<dyn Write + Send>> {
        self.open(&Limits::default(), Arc::new(AtomicBool::new(true)), Topic::Log)
    }

    pub(super) fn open(
        &self,
        limits: &Limits,
        ours: Arc<AtomicBool>,
        topic: Topic,
    ) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::File(path) => Box::new(Shared::open(path.clone(), limits, ours)?),
            Self::Stdout => Box::new(io::stdout()),
            Self::Syslog(address) => Box::new(Syslog::open(address, topic)?),
        })
    }
}

/// The file, which another process may have open, too. Whoever writes whole lines by one write mixes them with nobody's.
struct Shared {
    path: PathBuf,
    limit: usize,
    kept: usize,
    /// Whether files may be renamed here.
    ours: Arc<AtomicBool>,
    file: File,
}

enum File {
    Added(std::fs::File),
    Rotated(Box<FileRotate<AppendCount>>),
}

impl Shared {
    fn open(path: PathBuf, limits: &Limits, ours: Arc<AtomicBool>) -> io::Result<Self> {
        let file = File::Added(options().open(&path)?);
        Ok(Self { path, limit: limits.access_file_bytes.max(1), kept: limits.access_files, ours, file })
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A rotating file renames before it writes: this is the last look before that.
        let ours = self.ours.load(Ordering::SeqCst);
        // Opened anew if it changed hands: what one owner found out about the files is not true any more for the next.
        match (&self.file, ours) {
            (File::Added(_), true) => {
                // The rotating file says nothing when it cannot be opened.
                options().open(&self.path)?;
                let (kept, limit) = (AppendCount::new(self.kept), ContentLimit::BytesSurpassed(self.limit));
                let file = FileRotate::new(&self.path, kept, limit, Compression::None, Some(options()));
                self.file = File::Rotated(Box::new(file));
            }
            (File::Rotated(_), false) => self.file = File::Added(options().open(&self.path)?),
            _ => {}
        }
        let written = match &mut self.file {
            File::Added(file) => return file.write(bytes),
            // It holds that nobody else makes files of these names, and panics before it writes where somebody did.
            File::Rotated(file) => catch_unwind(AssertUnwindSafe(|| file.write(bytes)))
                .unwrap_or_else(|_| Err(io::ErrorKind::NotFound.into())),
        };
        let Err(error) = written else { return written };
        // It has no file any more, and would take everything from now on and keep nothing.
        let mut file = options().open(&self.path)?;
        // Renamed by the owner before, in a write that had begun, or not to be renamed: nothing was written yet. The next write
        // looks anew at what files there are.
        let written = if error.kind() == io::ErrorKind::NotFound { file.write(bytes) } else { Err(error) };
        self.file = File::Added(file);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.file {
            File::Added(file) => file.flush(),
            File::Rotated(file) => file.flush(),
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).create(true).append(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_somebody_else_made_beside_the_log_do_not_end_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let limits = Limits { access_file_bytes: 10, ..Limits::default() };
        let mut log = Shared::open(path.clone(), &limits, Arc::new(AtomicBool::new(true))).expect("a file");
        let line = |at: usize| format!("a line of the log, the {at}th\n");
        for at in 0..20 {
            if at == 1 || at == 7 {
                let other = (1..9).map(|kept| path.with_extension(format!("log.{kept}"))).find(|other| !other.exists());
                std::fs::write(other.expect("one that is free"), "by somebody else").expect("written");
            }
            log.write_all(line(at).as_bytes()).expect("written");
        }
        let newest = std::fs::read_to_string(&path).expect("the log");
        assert!(newest.ends_with(&line(19)), "{newest}");
        let kept = (1..=limits.access_files)
            .filter_map(|kept| std::fs::read_to_string(path.with_extension(format!("log.{kept}"))).ok());
        let all: Vec<_> = kept.collect();
        assert!(all.iter().any(|text| text.contains(&line(17))), "it goes on being rotated: {all:?}");
    }

    #[test]
    fn an_output_is_said_in_one_way_and_a_slip_makes_no_file() {
        let of = |text: &str| text.parse::<Output>();
        let file = |path: &str| Ok(Output::File(path.into()));
        assert_eq!(of("stdout"), Ok(Output::Stdout));
        assert_eq!((of("file:x"), of("file:/a/b"), of("./x")), (file("x"), file("/a/b"), file("./x")));
        assert_eq!(of("syslog"), Ok(Output::Syslog(SyslogAddress::Local("/dev/log".into()))));
        assert_eq!(of("syslog:/run/x"), Ok(Output::Syslog(SyslogAddress::Local("/run/x".into()))));
        let udp = Ok(Output::Syslog(SyslogAddress::Udp(([127, 0, 0, 1], 514).into())));
        assert_eq!((of("syslog:127.0.0.1:514"), of("syslog:[::1]:5").is_ok()), (udp, true));
        for bad in ["", "stdut", "access.log", "file:", "file:a\n/b", "/a/", "syslog:", "syslog:host", "syslog:x/y"] {
            assert_eq!(of(bad), Err(OutputError), "{bad:?}");
        }
    }
}
