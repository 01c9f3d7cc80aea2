//! Several processes on one folder: owners, fencing, readers, commands. A second journal stands for a second process:
//! locks and SQLite treat it alike. The last test has real processes, of which one is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::journal::tests::{Home, accept, bodies, finish, new_run, on_durable, open, run_id, texts, write};
use crate::journal::{Batch, Claim, Journal, JournalError, ListFilter, OpenMode, SqliteJournal};

#[test]
fn two_writers_at_once_both_write_everything() {
    on_durable(|home| {
        std::thread::scope(|scope| {
            for number in 1..=3 {
                scope.spawn(move || {
                    let journal = home.open();
                    write(&*journal, accept(&run_id(number), "p", &[])).unwrap();
                    for seq in 1..=200 {
                        let text = format!("{number}/{seq}");
                        write(&*journal, Batch::events(run_id(number), seq, bodies(&[&text]))).unwrap();
                    }
                });
            }
        });
        let journal = home.open();
        for number in 1..=3 {
            let expect: Vec<_> = (1..=200).map(|seq| format!("{number}/{seq}")).collect();
            assert_eq!(texts(&*journal, &run_id(number)).unwrap(), expect);
        }
        assert_eq!(home.verify(), 600);
    });
}

#[test]
fn a_run_has_one_living_owner() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_id(1);
    let first = open(folder.path());
    let second = open(folder.path());
    write(&first, accept(&run, "p", &["x"])).unwrap();
    assert_eq!(first.claim(&run).unwrap(), Claim::Taken);
    match second.claim(&run).unwrap() {
        Claim::Held { holder } => assert!(holder.contains(&format!("process {} on ", std::process::id())), "{holder}"),
        Claim::Taken => panic!("two owners"),
    }
    second.release(&run).unwrap();
    assert!(matches!(second.claim(&run).unwrap(), Claim::Held { .. }));
    first.release(&run).unwrap();
    assert_eq!(second.run(&run).unwrap().unwrap().owner, None);
    assert_eq!(second.claim(&run).unwrap(), Claim::Taken);
    assert!(matches!(first.claim(&run).unwrap(), Claim::Held { .. }));
    drop(second);
    assert_eq!(first.claim(&run).unwrap(), Claim::Taken);
    assert!(matches!(first.claim(&run_id(2)), Err(JournalError::NoSuchRun { .. })));
}

#[test]
fn the_owner_of_before_is_fenced() {
    let folder = tempfile::tempdir().unwrap();
    let (run, other) = (run_id(1), run_id(2));
    let old = open(folder.path());
    write(&old, accept(&run, "p", &["1"])).unwrap();
    write(&old, accept(&other, "p", &["1"])).unwrap();
    let new = open(folder.path());
    write(&new, Batch::events(run.clone(), 2, bodies(&["2 by the new owner"]))).unwrap();
    for seq in [2, 3] {
        let fate = write(&old, Batch::events(run.clone(), seq, bodies(&["by the old owner"])));
        assert!(matches!(fate, Err(JournalError::Fenced { .. })), "{fate:?}");
    }
    write(&old, Batch::events(other.clone(), 2, bodies(&["2"]))).unwrap();
    assert_eq!(texts(&new, &run).unwrap(), ["1", "2 by the new owner"]);
    assert_eq!(texts(&new, &other).unwrap(), ["1", "2"]);
}

#[test]
fn a_change_by_another_is_noticed_and_an_own_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_id(1);
    let owner = open(folder.path());
    let other = open(folder.path());
    write(&owner, accept(&run, "p", &["x"])).unwrap();
    let check = |journal: &SqliteJournal, expect: bool| assert_eq!(journal.changed().unwrap(), expect);
    check(&owner, false);
    check(&other, true);
    check(&other, false);
    let id = other.send_command(&run, b"pause").unwrap();
    check(&owner, true);
    check(&owner, false);
    assert_eq!(owner.pending_commands(&run).unwrap(), [(id, b"pause".to_vec())]);
    let reader = SqliteJournal::open(folder.path(), OpenMode::ReadOnly).unwrap();
    check(&reader, false);
    write(&owner, Batch::events(run, 2, bodies(&["y"]))).unwrap();
    check(&owner, false);
    check(&reader, true);
    check(&reader, false);
}

#[test]
fn a_reader_reads_beside_a_writer_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_id(1);
    let absent = folder.path().join("none");
    let check_absent = |path: &Path| match SqliteJournal::open(path, OpenMode::ReadOnly) {
        Err(JournalError::Absent { folder }) => assert_eq!(folder, path),
        other => panic!("{:?}", other.err()),
    };
    check_absent(&absent);
    assert!(!absent.exists());
    check_absent(folder.path());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    on_durable(|home| {
        let writer = home.open();
        write(&*writer, accept(&run, "p", &["1"])).unwrap();
        let reader = home.open_as(OpenMode::ReadOnly).unwrap();
        for seq in 2..50 {
            write(&*writer, Batch::events(run.clone(), seq, bodies(&["x"]))).unwrap();
            assert_eq!(reader.load(&run).unwrap().len() as u64, seq);
        }
        let refused = |error: JournalError| assert!(matches!(error, JournalError::ReadOnly { .. }), "{error:?}");
        refused(write(&*reader, finish(&run, 1)).unwrap_err());
        refused(reader.claim(&run).unwrap_err());
        refused(reader.send_command(&run, b"x").unwrap_err());
        refused(reader.prune(None, None, false).unwrap_err());
        assert_eq!(reader.prune(None, None, true).unwrap(), []);
        assert_eq!(home.verify(), 49);
        assert!(reader.run(&run).unwrap().unwrap().owner.is_some());
    });
}

#[test]
fn a_folder_that_cannot_be_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join(".tol")] {
        match SqliteJournal::open(&path, OpenMode::ReadWrite) {
            Err(error @ JournalError::Disk { .. }) => assert!(error.to_string().contains("file"), "{error}"),
            other => panic!("{:?}", other.err()),
        }
    }
}

#[test]
fn many_processes_may_create_the_journal_at_once() {
    for round in 0..20 {
        on_durable(|home| {
            // To make a database takes long; five of them show it as well.
            if matches!(home, Home::Database(_)) && round >= 5 {
                return;
            }
            std::thread::scope(|scope| {
                for number in 0..6 {
                    scope.spawn(move || write(&*home.open(), accept(&run_id(number), "p", &["x"])).unwrap());
                }
            });
            assert_eq!(home.open().list(&ListFilter::default()).unwrap().len(), 6);
        });
    }
}

/// Not a test of its own: the process that the test below starts and kills. It prints each acknowledged event.
#[test]
#[ignore = "started by the next test"]
fn child_that_is_killed() {
    let Some(folder) = std::env::var_os("TOL_JOURNAL_TEST_FOLDER") else { return };
    let journal = open(Path::new(&folder));
    let run = run_id(1);
    if journal.run(&run).unwrap().is_none() {
        write(&journal, Batch { accept: Some(new_run("p")), ..Batch::events(run.clone(), 1, Vec::new()) }).unwrap();
    }
    assert_eq!(journal.claim(&run).unwrap(), Claim::Taken);
    let mut seq = journal.load(&run).unwrap().len() as u64;
    loop {
        seq += 1;
        write(&journal, Batch::events(run.clone(), seq, bodies(&[&format!("event {seq}")]))).unwrap();
        println!("acknowledged {seq}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "journal::process_tests::child_that_is_killed"])
            .env("TOL_JOURNAL_TEST_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heard = 0;
        while heard < 30 * round {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, seq)) = line.split_once("acknowledged ") {
                acknowledged = seq.parse().unwrap();
                heard += 1;
            }
        }
        if round == 1 {
            assert!(matches!(open(folder.path()).claim(&run_id(1)).unwrap(), Claim::Held { .. }));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            let line = line.unwrap();
            if let Some((_, seq)) = line.split_once("acknowledged ") {
                acknowledged = seq.parse().unwrap_or(acknowledged);
            }
        }
        let loaded = texts(&open(folder.path()), &run_id(1)).unwrap();
        let count = loaded.len() as u64;
        assert!(count == acknowledged || count == acknowledged + 1, "{count} of {acknowledged}");
        assert_eq!(loaded.last().unwrap(), &format!("event {count}"));
    }
    let journal = open(folder.path());
    assert_eq!(journal.claim(&run_id(1)).unwrap(), Claim::Taken);
    assert_eq!(std::fs::read_dir(folder.path().join("owners")).unwrap().count(), 1);
}

/// Not a test of its own: reads the journal of a folder that was made read-only by hand (a mount; as root no
/// permission binds), and expects what the variable says: the number of events.
#[test]
#[ignore = "needs a read-only mount and the variable"]
fn reading_a_folder_that_is_mounted_read_only() {
    let Some(folder) = std::env::var_os("TOL_JOURNAL_TEST_READ_ONLY_FOLDER") else { return };
    let journal = SqliteJournal::open(Path::new(&folder), OpenMode::ReadOnly).unwrap_or_else(|error| panic!("{error}"));
    println!("{} events were read", journal.verify().unwrap());
    let error = SqliteJournal::open(Path::new(&folder), OpenMode::ReadWrite).err();
    assert!(matches!(error, Some(JournalError::Disk { .. })), "{error:?}");
}
