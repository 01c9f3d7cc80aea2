//! Every kind of damage: cut files, flipped bits, missing and foreign files. Each must end in an error that names the
//! file or in all of the data, never in silently fewer events.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::journal::tests::{accept, bodies, finish, open, run_id, texts, write};
use crate::journal::{Batch, Journal, JournalError, ListFilter, OpenMode, SqliteJournal};

const RUNS: u32 = 4;
const EVENTS: u64 = 12;
const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "high-water"];

fn event(number: u32, seq: u64) -> String {
    format!("run {number} event {seq} {}", "payload ".repeat(usize::try_from(seq).unwrap() * 5))
}

fn expected(number: u32) -> Vec<String> {
    (1..=EVENTS).map(|seq| event(number, seq)).collect()
}

fn write_events(journal: &SqliteJournal, from: u64, to: u64) {
    for seq in from..=to {
        for number in 1..=RUNS {
            let text = [event(number, seq)];
            let text = [text[0].as_str()];
            if seq == 1 {
                write(journal, accept(&run_id(number), "p", &text)).unwrap();
            } else {
                write(journal, Batch::events(run_id(number), seq, bodies(&text))).unwrap();
            }
        }
    }
}

fn checkpoint(folder: &Path) {
    let connection = Connection::open(folder.join("journal.db")).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// Where the events of a sound journal lie.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Log,
    Database,
    Both,
}

fn sound(layout: Layout) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    match layout {
        Layout::Log | Layout::Database => write_events(&open(folder.path()), 1, EVENTS),
        Layout::Both => {
            write_events(&open(folder.path()), 1, 8);
            checkpoint(folder.path());
            write_events(&open(folder.path()), 9, EVENTS);
        }
    }
    if layout == Layout::Database {
        checkpoint(folder.path());
        assert!(!folder.path().join("journal.db-wal").exists());
    }
    folder
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for name in FILES {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.path().join(name)).unwrap();
        }
    }
    to
}

fn named(error: &JournalError, what: &str) {
    let text = error.to_string();
    assert!(text.contains("journal.db") || text.contains("high-water"), "{what}: {text}");
    assert!(!matches!(error, JournalError::Busy { .. } | JournalError::Fenced { .. }), "{what}: {text}");
}

/// Opens a damaged journal: an error that names the file, or everything. Gives whether all was there.
fn error_or_everything(folder: &Path, mode: OpenMode, what: &str) -> bool {
    let journal = match SqliteJournal::open(folder, mode) {
        Ok(journal) => journal,
        Err(error) => {
            named(&error, what);
            return false;
        }
    };
    let mut whole = true;
    let mut told = |error: JournalError| {
        named(&error, what);
        whole = false;
    };
    for number in 1..=RUNS {
        match texts(&journal, &run_id(number)) {
            Ok(texts) => assert_eq!(texts, expected(number), "{what}, run {number}"),
            Err(error) => told(error),
        }
        match journal.run(&run_id(number)) {
            Ok(row) => assert_eq!(row.map(|row| row.pipeline), Some("p".to_owned()), "{what}, run {number}"),
            Err(error) => told(error),
        }
    }
    match journal.list(&ListFilter::default()) {
        Ok(rows) => assert_eq!(rows.len(), RUNS as usize, "{what}"),
        Err(error) => told(error),
    }
    match journal.definition("hash of p") {
        Ok(Some(definition)) => assert_eq!(definition, b"definition of p", "{what}"),
        // A definition that is not found is an error for whoever resumes the run, and `verify` tells why.
        Ok(None) => named(&journal.verify().unwrap_err(), what),
        Err(error) => told(error),
    }
    whole
}

fn mode_of(number: usize) -> OpenMode {
    if number.is_multiple_of(2) { OpenMode::ReadWrite } else { OpenMode::ReadOnly }
}

fn damage_each(layout: Layout, file: &str, step: usize, damage: impl Fn(&mut Vec<u8>, usize)) {
    let base = sound(layout);
    assert!(error_or_everything(copy(base.path()).path(), OpenMode::ReadWrite, "undamaged"));
    let bytes = fs::read(base.path().join(file)).unwrap();
    assert!(!bytes.is_empty());
    for (number, offset) in (0..bytes.len()).step_by(step).enumerate() {
        let copy = copy(base.path());
        let mut bytes = bytes.clone();
        damage(&mut bytes, offset);
        fs::write(copy.path().join(file), &bytes).unwrap();
        error_or_everything(copy.path(), mode_of(number), &format!("{layout:?}: {file} at {offset}"));
    }
}

fn flip_bit(bytes: &mut [u8], offset: usize) {
    bytes[offset] ^= 1 << (offset % 7);
}

#[test]
fn a_flipped_bit_in_the_database_is_told() {
    damage_each(Layout::Database, "journal.db", 53, |bytes, offset| flip_bit(bytes, offset));
    damage_each(Layout::Both, "journal.db", 157, |bytes, offset| flip_bit(bytes, offset));
}

#[test]
fn a_flipped_bit_in_the_head_of_a_page_is_told() {
    let base = sound(Layout::Database);
    let pages = fs::metadata(base.path().join("journal.db")).unwrap().len() / 4096;
    for (number, page) in (0..pages).enumerate() {
        for byte in (0..24).chain([40, 60, 92, 96]) {
            let copy = copy(base.path());
            let path = copy.path().join("journal.db");
            let mut bytes = fs::read(&path).unwrap();
            bytes[usize::try_from(page * 4096 + byte).unwrap()] ^= 1 << (byte % 8);
            fs::write(&path, bytes).unwrap();
            error_or_everything(copy.path(), mode_of(number), &format!("page {page} byte {byte}"));
        }
    }
}

#[test]
fn a_flipped_bit_in_the_write_ahead_log_is_told() {
    damage_each(Layout::Log, "journal.db-wal", 1999, |bytes, offset| flip_bit(bytes, offset));
    damage_each(Layout::Both, "journal.db-wal", 997, |bytes, offset| flip_bit(bytes, offset));
}

#[test]
fn a_cut_file_is_told() {
    for layout in [Layout::Log, Layout::Both] {
        damage_each(layout, "journal.db-wal", 2111, Vec::truncate);
    }
    for layout in [Layout::Database, Layout::Both] {
        damage_each(layout, "journal.db", 1021, Vec::truncate);
    }
}

#[test]
fn a_damaged_mark_is_told_or_survived() {
    damage_each(Layout::Both, "high-water", 3, |bytes, offset| flip_bit(bytes, offset));
    damage_each(Layout::Both, "high-water", 31, Vec::truncate);
}

/// Damages a sound journal by hand and expects `Lost` that names the file, in both modes.
fn check_lost(layout: Layout, damage: impl Fn(&Path), file: &str) {
    for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
        let folder = copy(sound(layout).path());
        damage(folder.path());
        match SqliteJournal::open(folder.path(), mode) {
            Err(JournalError::Lost { file: named, what }) => {
                assert_eq!(named, folder.path().join(file), "{what}");
            }
            other => panic!("{layout:?} {mode:?}: {:?}", other.err()),
        }
    }
}

fn remove(name: &'static str) -> impl Fn(&Path) {
    move |folder| fs::remove_file(folder.join(name)).unwrap()
}

#[test]
fn a_missing_file_is_told() {
    check_lost(Layout::Log, remove("journal.db-wal"), "journal.db");
    check_lost(Layout::Both, remove("journal.db-wal"), "journal.db");
    check_lost(Layout::Both, remove("high-water"), "high-water");
    check_lost(Layout::Database, remove("high-water"), "high-water");
    check_lost(Layout::Database, remove("journal.db"), "journal.db");
    check_lost(Layout::Log, remove("journal.db"), "journal.db");
    check_lost(Layout::Database, |folder| fs::write(folder.join("journal.db"), "").unwrap(), "journal.db");
    check_lost(Layout::Log, |folder| fs::write(folder.join("journal.db-wal"), "").unwrap(), "journal.db");
}

#[test]
fn the_database_of_another_journal_is_told() {
    let swap = |folder: &Path| {
        let other = sound(Layout::Database);
        fs::copy(other.path().join("journal.db"), folder.join("journal.db")).unwrap();
    };
    check_lost(Layout::Database, swap, "journal.db");
}

#[test]
fn an_older_copy_of_the_database_is_told() {
    let folder = sound(Layout::Database);
    let older: PathBuf = folder.path().join("backup");
    fs::copy(folder.path().join("journal.db"), &older).unwrap();
    write(&open(folder.path()), Batch::events(run_id(1), EVENTS + 1, bodies(&["later"]))).unwrap();
    checkpoint(folder.path());
    fs::copy(&older, folder.path().join("journal.db")).unwrap();
    let error = SqliteJournal::open(folder.path(), OpenMode::ReadWrite).err();
    assert!(matches!(error, Some(JournalError::Lost { .. })), "{error:?}");
}

#[test]
fn an_accepted_loss_is_no_error_any_more() {
    let folder = copy(sound(Layout::Both).path());
    fs::remove_file(folder.path().join("journal.db-wal")).unwrap();
    SqliteJournal::accept_loss(folder.path()).unwrap();
    let journal = open(folder.path());
    let whole = expected(1);
    assert_eq!(texts(&journal, &run_id(1)).unwrap(), whole[..8]);
    write(&journal, Batch::events(run_id(1), 9, bodies(&["other"]))).unwrap();
    journal.verify().unwrap();
    drop(journal);

    fs::remove_file(folder.path().join("journal.db")).unwrap();
    SqliteJournal::accept_loss(folder.path()).unwrap();
    assert_eq!(open(folder.path()).list(&ListFilter::default()).unwrap(), []);
}

#[test]
fn a_cut_off_creation_is_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    fs::write(folder.path().join("journal.db.new"), "half").unwrap();
    let error = SqliteJournal::open(folder.path(), OpenMode::ReadOnly).err();
    assert!(matches!(error, Some(JournalError::Absent { .. })), "{error:?}");
    write_events(&open(folder.path()), 1, EVENTS);
    assert!(error_or_everything(folder.path(), OpenMode::ReadOnly, "created again"));
}

#[test]
fn what_is_no_journal_is_refused() {
    let check = |change: &dyn Fn(&Path), expect: &str| {
        let folder = copy(sound(Layout::Database).path());
        change(&folder.path().join("journal.db"));
        for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
            let error = SqliteJournal::open(folder.path(), mode).err().unwrap().to_string();
            assert!(error.contains("journal.db") && error.contains(expect), "{error}");
        }
    };
    let pragma = |text: &'static str| {
        move |path: &Path| Connection::open(path).unwrap().execute_batch(&format!("PRAGMA {text}")).unwrap()
    };
    check(&pragma("user_version = 2"), "written by a newer tol (format 2, this one reads up to 1); update tol");
    check(&pragma("user_version = 0"), "which no tol ever wrote");
    check(&pragma("application_id = 7"), "not a journal of tol");
    check(&|path| fs::write(path, "no database at all, only text".repeat(300)).unwrap(), "not a database");
    check(&|path| fs::write(path, "short").unwrap(), "not a database");
}

#[test]
fn a_loss_while_the_journal_is_open_stops_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write_events(&journal, 1, 2);
    let mark = crate::journal::mark::Mark::open(&folder.path().join("high-water"), true).unwrap().unwrap();
    let mut point = mark.read().unwrap();
    point.counter += 5;
    mark.raise(&point).unwrap();
    let fate = write(&journal, Batch::events(run_id(1), 3, bodies(&["x"])));
    assert!(matches!(fate, Err(JournalError::Lost { .. })), "{fate:?}");
    assert_eq!(write(&journal, finish(&run_id(2), 1)), fate);
}

#[test]
fn a_changed_row_of_the_log_is_told() {
    let check = |sql: &str| {
        let folder = sound(Layout::Database);
        Connection::open(folder.path().join("journal.db")).unwrap().execute_batch(sql).unwrap();
        let journal = open(folder.path());
        let error = journal.load(&run_id(2)).unwrap_err();
        assert!(matches!(&error, JournalError::Corrupt { .. }), "{sql}: {error}");
        assert_eq!(texts(&journal, &run_id(3)).unwrap(), expected(3), "{sql}");
        journal.verify().unwrap_err();
    };
    check("DELETE FROM log WHERE run = 2 AND first_seq = 12");
    check("DELETE FROM log WHERE run = 2 AND first_seq = 1");
    check("DELETE FROM log WHERE run = 2 AND first_seq = 5");
    check("DELETE FROM log WHERE run = 2");
    check("DELETE FROM heads WHERE run = 2");
    check("UPDATE log SET first_seq = 13 WHERE run = 2 AND first_seq = 12");
    check("UPDATE log SET count = 2 WHERE run = 2 AND first_seq = 12");
    check("UPDATE log SET bodies = 'text' WHERE run = 2 AND first_seq = 6");
    check("UPDATE heads SET next_seq = 12 WHERE run = 2");
    check("UPDATE runs SET status = 'failed' WHERE number = 2");
}
