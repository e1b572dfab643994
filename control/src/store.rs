//! The store: what should be true and what was observed, in one SQLite file. The only place with SQL.
//!
//! What we store and why: applications, environments, builds, deployments and instances are *intent* and *observation* side by
//! side, so that the reconciler can start from any row left by any crash; `object` is the table that edges serve, as a log by
//! generation, so that an edge is told what it missed and no more. Every write is one transaction; one that changes what
//! an edge should believe also raises the generation. Whoever waits for a change watches [`Store::changes`] and looks again.
//!
//! SQL is written once, portable (TEXT, BIGINT, JSON in TEXT, `$1`), for PostgreSQL to take over when a machine is outgrown. What
//! reads and then writes in one transaction relies on SQLite's single writer; there it will need to lock the rows it reads.

mod app;
mod build;
mod deployment;
mod environment;
mod host;
mod instance;
mod object;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dormouse_link::{Generation, Host, Label};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::watch;

use crate::limits::Limits;

pub use app::{NewApp, NewEnvironment};
pub use deployment::Runs;
pub(crate) use deployment::state_text as deployment_state_text;
pub(crate) use environment::state_text as environment_state_text;
pub use instance::{Addresses, Place};

/// Readers at one time; a further one waits for its turn.
const READERS: u32 = 4;

/// How long a statement waits for SQLite's lock before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The mode of a file with secrets.
const MODE_SECRET: u32 = 0o600;

/// How a write begins: with SQLite's lock. One that began with reading would not wait for the lock when it comes to write,
/// but fail at once while somebody else holds it (a backup, a person with `sqlite3`).
const BEGIN: &str = "BEGIN IMMEDIATE";

/// The organisation that exists from the start.
const FIRST_ORGANISATION: &str = "default";

/// How many applications an organisation has at most, unless it was given another quota.
const MAX_APPS: i64 = 1000;

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's.
    #[error("use the store")]
    Sql(#[source] sqlx::Error),
    /// Its disk has no room. What was asked was not done, and nothing of it is there.
    #[error("write to the store: the disk that holds the data folder is full")]
    DiskFull(#[source] sqlx::Error),
    /// Its file cannot be opened.
    #[error("open {}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// Its file is no store, or not a whole one.
    #[error("read {}: it is damaged ({says})", file.display())]
    Damaged {
        /// Which.
        file: PathBuf,
        /// What SQLite says.
        says: String,
    },
    /// Its file is not there, but what it describes is.
    #[error("find the store of what is in {}: {} is missing or empty", repositories.display(), file.display())]
    Lost {
        /// The file.
        file: PathBuf,
        /// The repositories.
        repositories: PathBuf,
    },
    /// A migration's.
    #[error("bring the store's schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A row says what no version of this program writes.
    #[error("read {what} from the store: this version does not know {value}")]
    Corrupt {
        /// The column.
        what: &'static str,
        /// Its value, where that can be no secret.
        value: String,
    },
    /// The application's name is taken.
    #[error("an application called {0} exists already")]
    AppTaken(Label),
    /// A host is held by another environment.
    #[error("the host {host} belongs to {holder} already")]
    HostTaken {
        /// The host.
        host: Host,
        /// `APP ENVIRONMENT` of its holder.
        holder: String,
    },
    /// The organisation's quota is used up.
    #[error("the organisation has {0} applications, its quota")]
    Quota(i64),
    /// The row is gone.
    #[error("find {0}: it does not exist any more")]
    Gone(&'static str),
    /// Every address of the network is in use.
    #[error("no address is free: all {0} of the network are in use")]
    NoAddress(usize),
    /// Addresses are free, but some edge may still know each of them for another environment.
    #[error("find an address that every edge has forgotten")]
    AddressesRest,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_disk_full(&error) { Self::DiskFull(error) } else { Self::Sql(error) }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) if is_disk_full(&error) => Self::DiskFull(error),
            error => Self::Migrate(error),
        }
    }
}

/// SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: the file that is shared between connections could not be made large enough.
const DISK_FULL_CODES: [&str; 2] = ["13", "4874"];

fn is_disk_full(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| DISK_FULL_CODES.contains(&&*code))
}

/// The store.
pub struct Store {
    read: SqlitePool,
    write: SqlitePool,
    changed: watch::Sender<u64>,
    installation: String,
}

/// One write: everything in it happens, or nothing.
pub(crate) struct Write<'s> {
    tx: Transaction<'static, Sqlite>,
    changed: &'s watch::Sender<u64>,
}

impl Write<'_> {
    async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await?;
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }
}

impl Store {
    /// Opens the file, makes it where it is missing, and brings its schema up to date. A file that is not whole is left as it is.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        private(file).map_err(|source| StoreError::File { file: file.to_owned(), source })?;
        let damaged = |says| StoreError::Damaged { file: file.to_owned(), says };
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .after_release(|connection, _| Box::pin(is_settled(connection)))
            .connect_with(options.clone())
            .await;
        let write = match write {
            Err(error) if is_damage(&error) => return Err(damaged(error.to_string())),
            write => write?,
        };
        let checked = sqlx::query("PRAGMA quick_check(1)").fetch_one(&write).await;
        match checked.and_then(|row| row.try_get::<String, _>(0)) {
            Ok(words) if words == "ok" => {}
            Ok(words) => return Err(damaged(words)),
            Err(error) if is_damage(&error) => return Err(damaged(error.to_string())),
            Err(error) => return Err(error.into()),
        }
        sqlx::migrate!("./migrations").run(&write).await?;
        let read = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        let mut store = Self { read, write, changed: watch::Sender::new(0), installation: String::new() };
        store.installation = store.settle().await?;
        Ok(store)
    }

    /// The rows that every store has from its first start; returns the installation's id.
    async fn settle(&self) -> Result<String, StoreError> {
        let mut write = self.begin().await?;
        sqlx::query("INSERT INTO meta (name, value) VALUES ('installation', $1) ON CONFLICT (name) DO NOTHING")
            .bind(crate::model::random_hex::<4>())
            .execute(&mut *write.tx)
            .await?;
        sqlx::query("INSERT INTO meta (name, value) VALUES ('generation', '0') ON CONFLICT (name) DO NOTHING")
            .execute(&mut *write.tx)
            .await?;
        sqlx::query(
            "INSERT INTO organisation (id, name, max_apps, created_at) VALUES ($1, $1, $2, $3) ON CONFLICT (id) DO NOTHING",
        )
        .bind(FIRST_ORGANISATION)
        .bind(MAX_APPS)
        .bind(crate::model::now())
        .execute(&mut *write.tx)
        .await?;
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'installation'").fetch_one(&mut *write.tx).await?;
        let installation = row.try_get(0)?;
        write.commit().await?;
        Ok(installation)
    }

    /// What tells this installation's containers from another's on the same engine.
    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// Counts the writes: whoever waits for something looks again at each.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Closes the file; what was committed stays.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// What SQLite finds damaged, and the rows whose owner is missing; of a whole store nothing.
    pub async fn damage(&self) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        for row in sqlx::query("PRAGMA integrity_check").fetch_all(&self.read).await? {
            found.extend(Some(row.try_get::<String, _>(0)?).filter(|words| words != "ok"));
        }
        for row in sqlx::query("PRAGMA foreign_key_check").fetch_all(&self.read).await? {
            found.push(format!("a row of {} has no owner", row.try_get::<String, _>(0)?));
        }
        Ok(found)
    }

    async fn begin(&self) -> Result<Write<'_>, StoreError> {
        Ok(Write { tx: self.write.begin_with(BEGIN).await?, changed: &self.changed })
    }

    /// The generation of the newest change to the table.
    pub async fn generation(&self) -> Result<Generation, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'generation'").fetch_one(&self.read).await?;
        parse("generation", &row.try_get::<String, _>(0)?).map(Generation)
    }
}

/// Whether a connection that comes back has ended its transaction; one that has not is closed, and a new one opened.
///
/// Where a commit finds the disk full, SQLite itself rolls the transaction back, and the library counts it as open for ever. What is written after
/// that is inside of it: seen by nobody else, and never on disk.
async fn is_settled(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // A rollback may still wait for its turn; this comes after it.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Makes the file where it is missing, and in any case one that only its owner can read: it holds keys and variables. SQLite
/// gives the files beside it the same mode.
fn private(file: &Path) -> std::io::Result<()> {
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(MODE_SECRET).open(file)?;
    if opened.metadata()?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(file, fs::Permissions::from_mode(MODE_SECRET))?;
    }
    Ok(())
}

/// Whether SQLite finds that the file is not what it wrote (SQLITE_CORRUPT, SQLITE_NOTADB).
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// A column's text as a value of its type.
fn parse<T: std::str::FromStr>(what: &'static str, value: &str) -> Result<T, StoreError> {
    value.parse().map_err(|_| StoreError::Corrupt { what, value: value.to_owned() })
}

/// A column's JSON as a value of its type. Variables and keys are kept so: what cannot be read is not shown.
fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, value: &str) -> Result<T, StoreError> {
    serde_json::from_str(value).map_err(|_| StoreError::Corrupt { what, value: "its value".to_owned() })
}

/// A value as a column's JSON.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the store's values have text keys and no failing serialisers")
}

/// An unsigned number as a BIGINT column.
fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The limits in a row.
fn limits(row: &sqlx::sqlite::SqliteRow) -> Result<Limits, StoreError> {
    let column = |name: &str| Ok::<_, StoreError>(unsigned(sqlx::Row::try_get(row, name)?));
    Ok(Limits {
        memory_bytes: column("memory_bytes")?,
        cpus_milli: column("cpus_milli")?,
        processes: column("processes")?,
    })
}

/// A BIGINT column as the unsigned number that was written.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A duration as a BIGINT column of milliseconds.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
