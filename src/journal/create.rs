//! Opens the database and holds it against its mark; creates both when there are none.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::journal::chain::Sum;
use crate::journal::error::JournalError;
use crate::journal::folder::StateFolder;
use crate::journal::mark::{Mark, Point};

/// "tolj": tells our databases from others.
const APPLICATION: i64 = 0x746f_6c6a;
/// The format that this program writes, and the newest that it reads.
pub(crate) const FORMAT: i64 = 1;

/// How long a statement waits for other processes. Writers wait by themselves, see `commit`.
pub(crate) const BUSY: Duration = Duration::from_secs(30);

/// The tables. `log` holds the truth; a row may hold several events, and it names the run's row before it. `heads` says
/// where each run's log ends, and in the row of run 0 the same for the whole database.
///
/// A run is read backwards from its head, so that a missing row cannot go unnoticed, and `log` needs no index on run
/// and sequence number: with one, every event of another run writes a page of its own, and 256 runs at once make
/// 60,000 events a second rather than twice as many. What such an index would refuse, the condition on the head does.
const TABLES: &str = "
CREATE TABLE journal (id BLOB NOT NULL);
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, pipeline TEXT NOT NULL, path TEXT NOT NULL,
    status TEXT NOT NULL, paused INTEGER NOT NULL, started_at INTEGER NOT NULL, finished_at INTEGER, parent TEXT,
    definition_hash TEXT NOT NULL, git_commit TEXT, git_dirty INTEGER, owner TEXT, checksum BLOB NOT NULL
);
CREATE TABLE heads (
    run INTEGER PRIMARY KEY, next_seq INTEGER NOT NULL, position INTEGER NOT NULL, state BLOB NOT NULL,
    row BLOB NOT NULL
);
CREATE TABLE log (
    position INTEGER PRIMARY KEY, previous INTEGER NOT NULL, run INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    count INTEGER NOT NULL, bodies BLOB NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE definitions (hash TEXT PRIMARY KEY, definition BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE cache (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at INTEGER, created_at INTEGER NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE commands (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, body BLOB NOT NULL, reply BLOB, checksum BLOB NOT NULL
);
CREATE INDEX commands_pending ON commands (run, id) WHERE reply IS NULL;
";

/// Opens a journal to write to, and creates it if there is none.
pub(crate) fn open_to_write(folder: &StateFolder) -> Result<(Connection, Mark), JournalError> {
    folder.create().map_err(|error| JournalError::disk(&folder.root, "create the state folder", &error))?;
    match open_existing(folder, OpenFlags::SQLITE_OPEN_READ_WRITE)? {
        Some(opened) => Ok(opened),
        None => create(folder),
    }
}

/// Opens a journal to read from. Nothing is created when there is none.
pub(crate) fn open_to_read(folder: &StateFolder) -> Result<Connection, JournalError> {
    let absent = || JournalError::Absent { folder: folder.root.clone() };
    let opened = match open_existing(folder, OpenFlags::SQLITE_OPEN_READ_ONLY) {
        Err(JournalError::Disk { file, what }) => open_immutable(folder)?.ok_or(JournalError::Disk { file, what })?,
        other => other?.ok_or_else(absent)?,
    };
    Ok(opened.0)
}

/// Opens the database of a folder that may not be written to. That is right only if no write-ahead log is there:
/// SQLite would not look at it.
fn open_immutable(folder: &StateFolder) -> Result<Option<(Connection, Mark)>, JournalError> {
    let path = folder.database();
    if length(&folder.write_ahead_log())?.is_some_and(|bytes| bytes > 0) {
        if length(&folder.root.join("journal.db-shm"))?.is_some() {
            return Ok(None);
        }
        let what = "SQLite cannot read `journal.db-wal` where it may not write; copy the folder to where it may";
        return Err(JournalError::Disk { file: path, what: what.to_owned() });
    }
    let Some(mark) = Mark::open(&folder.high_water(), false)? else { return Ok(None) };
    let marked = mark.read()?;
    let text = path.to_string_lossy();
    let mut uri = String::from("file:");
    for byte in text.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => uri.push(char::from(byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = connect(Path::new(&uri), flags).map_err(|error| JournalError::sqlite(&path, &error))?;
    check(&connection, folder, &marked)?;
    Ok(Some((connection, mark)))
}

/// The length of a file in bytes, if it is there. The file is not opened: when a process closes a database file, it
/// loses the locks that SQLite holds on it elsewhere in that process.
fn length(path: &Path) -> Result<Option<u64>, JournalError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Err(JournalError::corrupt(path, "it is not a file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::disk(path, "look at the file", &error)),
    }
}

/// Connects and sets what holds for every connection.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // A checkpoint costs two syncs; the writer makes one when the log is long enough to pay for it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = OFF;
         PRAGMA cell_size_check = ON; PRAGMA cache_size = -8192;",
    )?;
    Ok(connection)
}

/// Opens what is there; `None` if nothing ever was.
fn open_existing(folder: &StateFolder, flags: OpenFlags) -> Result<Option<(Connection, Mark)>, JournalError> {
    let path = folder.database();
    let write = flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE);
    // The mark comes first: the database may grow meanwhile, but it must never be behind what was read here.
    let mut mark = Mark::open(&folder.high_water(), write)?;
    // In reverse to the order in which another process may be creating them just now.
    let log = length(&folder.write_ahead_log())?.unwrap_or(0);
    let bytes = length(&path)?.unwrap_or(0);
    if mark.is_none() && (bytes > 0 || log > 0) {
        mark = Mark::open(&folder.high_water(), write)?;
    }
    let Some(mark) = mark else {
        return if bytes == 0 && log == 0 { Ok(None) } else { Err(missing_mark(folder)) };
    };
    let marked = mark.read()?;
    if bytes == 0 {
        // A mark at 0 without a database: the creation was cut off before anything was written.
        return if marked.counter == 0 && log == 0 { Ok(None) } else { Err(missing_database(folder)) };
    }
    let connection = connect(&path, flags).map_err(|error| JournalError::sqlite(&path, &error))?;
    check(&connection, folder, &marked)?;
    Ok(Some((connection, mark)))
}

fn missing_mark(folder: &StateFolder) -> JournalError {
    JournalError::Lost {
        file: folder.high_water(),
        what: "there is a database but no high-water mark, as after a partial copy, so nobody can tell whether the \
               database is complete"
            .to_owned(),
    }
}

fn missing_database(folder: &StateFolder) -> JournalError {
    JournalError::Lost { file: folder.database(), what: "the database is missing or empty, its mark is not".to_owned() }
}

/// Holds an open database against the format and the mark.
pub(crate) fn check(connection: &Connection, folder: &StateFolder, marked: &Point) -> Result<(), JournalError> {
    let path = folder.database();
    check_format(connection, &path)?;
    let at = head(connection).map_err(|error| JournalError::sqlite(&path, &error))?;
    let at = at.ok_or_else(|| JournalError::corrupt(&path, "the row that says how far it goes is missing"))?;
    compare(folder, marked, &at)?;
    let row = connection
        .prepare_cached("SELECT checksum FROM log WHERE position = ?1")
        .and_then(|mut statement| statement.query_row([signed(marked.position)], |row| row.get::<_, Sum>(0)).optional())
        .map_err(|error| JournalError::sqlite(&path, &error))?;
    match row {
        // A pruned row is gone; its position is never given again.
        None => Ok(()),
        Some(sum) if sum == marked.row => Ok(()),
        Some(_) => Err(JournalError::Lost {
            file: path,
            what: format!("the row at position {} is not the one that was acknowledged", marked.position),
        }),
    }
}

/// Says whether the database is at or behind its mark.
pub(crate) fn compare(folder: &StateFolder, marked: &Point, at: &Point) -> Result<(), JournalError> {
    let lost = |what: String| Err(JournalError::Lost { file: folder.database(), what });
    if at.journal != marked.journal {
        return lost("the database is another one than its high-water mark belongs to".to_owned());
    }
    if at.counter < marked.counter || at.position < marked.position {
        let what = "but more were acknowledged; the end of `journal.db-wal` is missing or damaged";
        return lost(format!("the database holds {} of {} writes, {what}", at.counter, marked.counter));
    }
    if at.counter == marked.counter && (at.state != marked.state || at.row != marked.row) {
        return lost(format!("write {} is not the one that was acknowledged", at.counter));
    }
    Ok(())
}

fn check_format(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let number = |name: &str| {
        let value = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        value.map_err(|error| JournalError::sqlite(path, &error))
    };
    let application = number("application_id")?;
    if application != APPLICATION {
        return Err(JournalError::corrupt(path, "it is a database, but not a journal of tol"));
    }
    match number("user_version")? {
        FORMAT => Ok(()),
        newer if newer > FORMAT => Err(JournalError::Newer { file: path.to_owned(), found: newer, supported: FORMAT }),
        other => Err(JournalError::corrupt(path, format!("its format is {other}, which no tol ever wrote"))),
    }
}

/// The database's own word on how far it goes.
pub(crate) fn head(connection: &Connection) -> rusqlite::Result<Option<Point>> {
    let mut statement = connection
        .prepare_cached("SELECT (SELECT id FROM journal), next_seq, position, state, row FROM heads WHERE run = 0")?;
    let point = |row: &rusqlite::Row<'_>| {
        Ok(Point {
            journal: row.get(0)?,
            counter: unsigned(row, 1)?,
            position: unsigned(row, 2)?,
            state: row.get(3)?,
            row: row.get(4)?,
        })
    };
    statement.query_row([], point).optional()
}

/// A number of ours as SQLite keeps it.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of ours as SQLite gave it; a negative one is damage.
pub(crate) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn create(folder: &StateFolder) -> Result<(Connection, Mark), JournalError> {
    let disk = |error: &io::Error| JournalError::disk(&folder.root, "create the journal", error);
    let lock = File::create(folder.creation_lock()).map_err(|error| disk(&error))?;
    lock.lock().map_err(|error| disk(&error))?;
    // Another process may have been quicker.
    if let Some(opened) = open_existing(folder, OpenFlags::SQLITE_OPEN_READ_WRITE)? {
        return Ok(opened);
    }
    let start = Point::start(*uuid::Uuid::new_v4().as_bytes());
    // The mark comes first: from here on a database without a mark is one whose mark was lost.
    Mark::set(&folder.high_water(), &start)?;
    write_new_database(folder, &start)?;
    let opened = open_existing(folder, OpenFlags::SQLITE_OPEN_READ_WRITE)?.ok_or_else(|| missing_database(folder))?;
    let _ = fs::remove_file(folder.creation_lock());
    Ok(opened)
}

/// Writes the empty database aside and puts it in its place whole, so that nobody ever meets half of one.
fn write_new_database(folder: &StateFolder, start: &Point) -> Result<(), JournalError> {
    let path = folder.database();
    let fresh = folder.root.join("journal.db.new");
    let disk = |error: &io::Error| JournalError::disk(&path, "create the database", error);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(disk(&error)),
        Ok(()) | Err(_) => {}
    }
    let fill = || -> rusqlite::Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&fresh, flags)?;
        // Not even a crash may leave a trace here: the file is synced and renamed below, or thrown away.
        connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; BEGIN;")?;
        connection.execute_batch(TABLES)?;
        connection.execute("INSERT INTO journal (id) VALUES (?1)", [start.journal])?;
        let head = (0, 0, start.state, start.row);
        connection
            .execute("INSERT INTO heads (run, next_seq, position, state, row) VALUES (0, ?1, ?2, ?3, ?4)", head)?;
        connection.execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};"))?;
        connection.execute_batch("COMMIT; PRAGMA journal_mode = WAL;")
    };
    fill().map_err(|error| JournalError::sqlite(&path, &error))?;
    let place = || -> io::Result<()> {
        File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&folder.root)?.sync_all()
    };
    place().map_err(|error| disk(&error))
}

/// Takes the database as it is for complete: sets the mark to where it ends, or makes way for a new journal if there
/// is none. Runs whose own rows are damaged stay damaged and say so when they are loaded.
///
/// For `tol doctor --accept-loss`, after the person was told what is lost. No other process may use the journal.
pub(crate) fn accept_loss(folder: &StateFolder) -> Result<(), JournalError> {
    let path = folder.database();
    if length(&path)?.unwrap_or(0) == 0 {
        let name = |name: &str| folder.root.join(name);
        for file in [name("journal.db-shm"), folder.write_ahead_log(), path, folder.high_water()] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(JournalError::disk(&file, "remove the file", &error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        return Ok(());
    }
    let sqlite = |error: &rusqlite::Error| JournalError::sqlite(&path, error);
    let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| sqlite(&error))?;
    check_format(&connection, &path)?;
    let at = head(&connection).map_err(|error| sqlite(&error))?;
    let at = at.ok_or_else(|| JournalError::corrupt(&path, "the row that says how far it goes is missing"))?;
    Mark::set(&folder.high_water(), &at)?;
    Ok(())
}
