//! What only a journal that several machines share must keep: leases, epochs, partitions, a database that goes away.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::database::DatabaseUrl;
use crate::id::RunId;
use crate::journal::tests::{accept, bodies, finish, run_id, texts, write};
use crate::journal::{
    Batch, Claim, Holdings, Journal, JournalError, OpenMode, Partitions, PostgresJournal, PostgresOptions,
};
use crate::test_postgres::{self, TestDatabase};

const BREAK_ALL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                         WHERE datname = current_database() AND pid <> pg_backend_pid()";

fn open_url(url: &str, options: PostgresOptions) -> PostgresJournal {
    PostgresJournal::open_with(&DatabaseUrl::parse(url).unwrap(), OpenMode::ReadWrite, options).unwrap()
}

fn open(database: &TestDatabase) -> PostgresJournal {
    open_url(&database.url, PostgresOptions::default())
}

/// A journal whose connections can be cut.
fn open_to_cut(database: &TestDatabase) -> (PostgresJournal, Arc<AtomicBool>) {
    let cut = Arc::new(AtomicBool::new(false));
    (open_url(&database.url, PostgresOptions { cut: Arc::clone(&cut), ..PostgresOptions::default() }), cut)
}

fn event(run: &RunId, seq: u64) -> Batch {
    Batch::events(run.clone(), seq, bodies(&[&format!("event {seq}")]))
}

fn until(what: &str, most: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < most, "{what}: not within {most:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

fn fenced(fate: Result<(), JournalError>) {
    assert!(matches!(fate, Err(JournalError::Fenced { .. })), "{fate:?}");
}

#[test]
fn a_run_has_one_living_holder() {
    let Some(database) = test_postgres::database() else { return };
    let (first, second) = (open(&database), open(&database));
    let run = run_id(1);
    write(&first, accept(&run, "p", &["x"])).unwrap();
    assert_eq!(first.claim(&run).unwrap(), Claim::Taken);
    match second.claim(&run).unwrap() {
        Claim::Held { holder } => assert!(holder.contains(&format!("process {} on ", std::process::id())), "{holder}"),
        Claim::Taken => panic!("two holders"),
    }
    fenced(write(&second, event(&run, 2)));
    assert_eq!(second.fenced(), 1);
    second.release(&run).unwrap();
    assert!(matches!(second.claim(&run).unwrap(), Claim::Held { .. }));
    first.release(&run).unwrap();
    assert_eq!(second.run(&run).unwrap().unwrap().owner, None);
    assert_eq!(second.claim(&run).unwrap(), Claim::Taken);
    write(&second, event(&run, 2)).unwrap();
    assert!(matches!(first.claim(&run).unwrap(), Claim::Held { .. }));
    drop(second);
    assert_eq!(first.claim(&run).unwrap(), Claim::Taken);
    assert!(matches!(first.claim(&run_id(2)), Err(JournalError::NoSuchRun { .. })));
    assert_eq!(texts(&first, &run).unwrap(), ["x", "event 2"]);
}

#[test]
fn whoever_was_taken_over_writes_nothing_and_is_counted() {
    let Some(database) = test_postgres::database() else { return };
    let (old, new) = (open(&database), open(&database));
    let (run, other) = (run_id(1), run_id(2));
    write(&old, accept(&run, "p", &["1"])).unwrap();
    write(&old, accept(&other, "p", &["1"])).unwrap();
    until("the lease is taken", Duration::from_secs(5), || {
        database.run("UPDATE tol.owners SET expires_at = '-infinity'");
        new.claim(&run).unwrap() == Claim::Taken
    });
    // Nothing was written yet by the new holder: the epoch alone keeps the old one out.
    for seq in [2, 3] {
        fenced(write(&old, event(&run, seq)));
    }
    assert_eq!(old.fenced(), 2);
    write(&new, event(&run, 2)).unwrap();
    // A lease that had run out and that nobody took goes on.
    database.run("UPDATE tol.owners SET expires_at = '-infinity' WHERE key LIKE '%2'");
    write(&old, event(&other, 2)).unwrap();
    assert_eq!(texts(&new, &run).unwrap(), ["1", "event 2"]);
    assert_eq!(texts(&new, &other).unwrap(), ["1", "event 2"]);
    assert!(matches!(old.claim(&run).unwrap(), Claim::Held { .. }));
}

#[test]
fn a_broken_connection_neither_loses_nor_doubles_a_write() {
    let Some(database) = test_postgres::database() else { return };
    let journal = open(&database);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(15));
                database.run(BREAK_ALL);
            }
        });
        for number in 0..3 {
            let run = run_id(number);
            write(&journal, accept(&run, "p", &["event 1"])).unwrap();
        }
        std::thread::scope(|scope| {
            for number in 0..3 {
                let journal = &journal;
                scope.spawn(move || {
                    for seq in 2..=60 {
                        write(journal, event(&run_id(number), seq)).unwrap();
                    }
                });
            }
        });
        done.store(true, Ordering::SeqCst);
    });
    let expect: Vec<String> = (1..=60).map(|seq| format!("event {seq}")).collect();
    for number in 0..3 {
        assert_eq!(texts(&journal, &run_id(number)).unwrap(), expect);
    }
    assert_eq!(journal.verify().unwrap(), 180);
    assert_eq!(journal.fenced(), 0);
}

#[test]
fn a_server_that_dies_loses_nothing_acknowledged() {
    let Some(mut server) = test_postgres::own_server() else { return };
    let journal = open_url(&server.url("postgres"), PostgresOptions::default());
    let run = run_id(1);
    write(&journal, accept(&run, "p", &["event 1"])).unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for seq in 2..=400 {
                write(&journal, event(&run, seq)).unwrap();
            }
        });
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(60));
            server.crash();
            std::thread::sleep(Duration::from_millis(200));
            server.restart();
        }
        writing.join().unwrap();
    });
    assert_eq!(texts(&journal, &run).unwrap(), (1..=400).map(|seq| format!("event {seq}")).collect::<Vec<_>>());
    drop(journal);
}

#[test]
fn a_database_that_stays_away_ends_the_journal_and_says_so() {
    let Some(database) = test_postgres::database() else { return };
    let cut = Arc::new(AtomicBool::new(false));
    let patience = Duration::from_millis(600);
    let options = PostgresOptions { cut: Arc::clone(&cut), patience, ..PostgresOptions::default() };
    let journal = open_url(&database.url, options);
    let run = run_id(1);
    write(&journal, accept(&run, "p", &["event 1"])).unwrap();
    cut.store(true, Ordering::SeqCst);
    let error = write(&journal, event(&run, 2)).unwrap_err();
    assert!(matches!(error, JournalError::Away { .. }), "{error}");
    assert!(error.to_string().contains("tol resume") && error.to_string().contains("postgres://"), "{error}");
    assert_eq!(write(&journal, event(&run, 3)), Err(error.clone()));
    assert_eq!(journal.load(&run), Err(error.clone()));
    assert_eq!(journal.claim(&run), Err(error));
}

#[test]
fn a_newer_format_is_left_alone() {
    let Some(database) = test_postgres::database() else { return };
    let url = DatabaseUrl::parse(&database.url).unwrap();
    let absent = PostgresJournal::open(&url, OpenMode::ReadOnly).err().unwrap();
    assert!(matches!(absent, JournalError::Absent { .. }), "{absent}");
    drop(open(&database));
    database.run("UPDATE tol.meta SET format = 99");
    for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
        match PostgresJournal::open(&url, mode) {
            Err(JournalError::Newer { found: 99, supported: 1, .. }) => {}
            other => panic!("{:?}", other.err()),
        }
    }
}

#[test]
fn damage_is_told() {
    let Some(database) = test_postgres::database() else { return };
    let journal = open(&database);
    let run = run_id(1);
    write(&journal, accept(&run, "p", &["event 1"])).unwrap();
    for seq in 2..=6 {
        write(&journal, event(&run, seq)).unwrap();
    }
    let check = |damage: &str, repair: &str| {
        database.run(&format!("CREATE TABLE kept AS SELECT * FROM tol.log; {damage}"));
        let error = journal.load(&run).unwrap_err();
        assert!(matches!(error, JournalError::Corrupt { .. }), "{damage}: {error}");
        database
            .run(&format!("DELETE FROM tol.log; INSERT INTO tol.log SELECT * FROM kept; DROP TABLE kept; {repair}"));
        assert_eq!(journal.load(&run).unwrap().len(), 6);
    };
    check("UPDATE tol.log SET bodies = overlay(bodies placing '\\x00' from 6) WHERE first_seq = 3", "");
    check("DELETE FROM tol.log WHERE first_seq = 1", "");
    check("DELETE FROM tol.log WHERE first_seq = 4", "");
    check("DELETE FROM tol.log WHERE first_seq = 6", "");
    check("DELETE FROM tol.log", "");
    check("UPDATE tol.heads SET next_seq = 6", "UPDATE tol.heads SET next_seq = 7");
    database.run("UPDATE tol.runs SET pipeline = 'q'");
    assert!(matches!(journal.run(&run), Err(JournalError::Corrupt { .. })));
}

#[test]
fn a_change_by_another_is_told_at_once_and_an_own_one_is_not() {
    let Some(database) = test_postgres::database() else { return };
    let (owner, other) = (open(&database), open(&database));
    let run = run_id(1);
    let second = Duration::from_secs(2);
    // What was before anybody listened counts as a change.
    std::thread::sleep(Duration::from_millis(300));
    owner.changed().unwrap();
    other.changed().unwrap();
    write(&owner, accept(&run, "p", &["x"])).unwrap();
    until("the write is told", second, || other.changed().unwrap());
    assert!(!owner.changed().unwrap());
    let mut woken = owner.subscribe().unwrap();
    woken.mark_unchanged();
    let id = other.send_command(&run, b"pause").unwrap();
    let took = until("the command wakes the owner", second, || woken.has_changed().unwrap());
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(owner.changed().unwrap());
    assert_eq!(owner.pending_commands(&run).unwrap(), [(id, b"pause".to_vec())]);
    // Whoever lost the connection is told once it listens again.
    database.run(BREAK_ALL);
    write(&owner, event(&run, 2)).unwrap();
    until("the write is told", Duration::from_secs(7), || other.changed().unwrap());
    assert_eq!(other.load_from(&run, 2).unwrap().len(), 1);
}

fn renewed(partitions: &Partitions) -> Holdings {
    partitions.renew().unwrap()
}

#[test]
fn schedulers_divide_the_partitions_and_take_over_from_the_dead() {
    let Some(database) = test_postgres::database() else { return };
    let first = open(&database);
    let a = first.join("a").unwrap();
    let all = renewed(&a);
    assert_eq!((a.count(), all.held.len(), all.gained.len(), all.lost.len()), (16, 16, 16, 0));
    let run = a.new_run_id().unwrap();
    write(&first, accept(&run, "p", &["event 1"])).unwrap();

    let (second, cut) = open_to_cut(&database);
    let b = second.join("b").unwrap();
    assert_eq!(renewed(&b).held.len(), 0);
    let given = renewed(&a);
    assert_eq!((given.held.len(), given.lost.len(), given.schedulers), (8, 8, 2));
    let taken = renewed(&b);
    assert_eq!(taken.gained.keys().collect::<Vec<_>>(), given.lost.keys().collect::<Vec<_>>());
    for (partition, epoch) in &taken.held {
        assert!(*epoch > all.held[partition], "epochs only grow");
    }
    assert_eq!(renewed(&a).held.len(), 8, "nothing moves when the shares are fair");

    let own = b.new_run_id().unwrap();
    write(&second, accept(&own, "p", &["event 1"])).unwrap();
    let home = b.partition_of(&own);
    // The first run may be of the same partition.
    let there: Vec<RunId> = [&run, &own].into_iter().filter(|run| b.partition_of(run) == home).cloned().collect();
    assert_eq!(b.unfinished_runs(home).unwrap(), there);
    assert!(matches!(first.claim(&own).unwrap(), Claim::Held { .. }));
    fenced(write(&first, event(&own, 2)));

    // From here on b cannot reach the database, as if its network were cut.
    cut.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let gained = loop {
        let now = renewed(&a);
        if now.held.len() == 16 {
            break now.held;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "taken over within the lease time and five seconds");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(began.elapsed() > Duration::from_secs(5));
    assert!(!b.is_sure(home), "its own clock tells it that the lease may have run out");
    assert!(gained[&home] > taken.held[&home]);
    assert_eq!(a.unfinished_runs(home).unwrap(), there);
    assert_eq!(first.claim(&own).unwrap(), Claim::Taken);
    write(&first, event(&own, 2)).unwrap();
    cut.store(false, Ordering::SeqCst);
    fenced(write(&second, event(&own, 2)));
    fenced(write(&second, event(&own, 3)));
    assert!(second.fenced() >= 2);
    assert_eq!(texts(&first, &own).unwrap(), ["event 1", "event 2"]);
    b.leave().unwrap();
    assert_eq!(renewed(&a).schedulers, 1);
}

#[test]
fn a_run_of_a_partition_that_nobody_holds_is_lent_and_given_back() {
    let Some(database) = test_postgres::database() else { return };
    let scheduler = open(&database);
    let part = scheduler.join("a").unwrap();
    renewed(&part);
    let run = part.new_run_id().unwrap();
    let home = part.partition_of(&run);
    write(&scheduler, accept(&run, "p", &["event 1"])).unwrap();
    part.leave().unwrap();

    let command = open(&database);
    assert_eq!(command.claim(&run).unwrap(), Claim::Taken);
    write(&command, event(&run, 2)).unwrap();
    fenced(write(&scheduler, event(&run, 2)));
    let again = scheduler.join("a").unwrap();
    assert_eq!(renewed(&again).held.len(), 16);
    assert_eq!(again.unfinished_runs(home).unwrap(), [], "it is held singly");
    assert!(matches!(scheduler.claim(&run).unwrap(), Claim::Held { .. }));
    command.release(&run).unwrap();
    assert_eq!(again.unfinished_runs(home).unwrap(), std::slice::from_ref(&run));
    assert_eq!(scheduler.claim(&run).unwrap(), Claim::Taken);
    write(&scheduler, event(&run, 3)).unwrap();
    fenced(write(&command, event(&run, 3)));
    write(&scheduler, finish(&run, 9)).unwrap();
    assert_eq!(again.unfinished_runs(home).unwrap(), []);
    assert_eq!(texts(&command, &run).unwrap(), ["event 1", "event 2", "event 3"]);
}

/// Not a test of its own: the process that the test below starts and kills. It prints each acknowledged event.
#[test]
#[ignore = "started by the next test"]
fn child_that_is_killed() {
    let Ok(url) = std::env::var("TOL_JOURNAL_TEST_DATABASE") else { return };
    let journal = open_url(&url, PostgresOptions::default());
    let run = run_id(1);
    write(&journal, accept(&run, "p", &["event 1"])).unwrap();
    for seq in 2.. {
        match write(&journal, event(&run, seq)) {
            Ok(()) => println!("acknowledged {seq}"),
            Err(error) => {
                println!("refused, {} counted: {error}", journal.fenced());
                return;
            }
        }
    }
}

fn start_child(database: &TestDatabase) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "journal::postgres::tests::child_that_is_killed"])
        .env("TOL_JOURNAL_TEST_DATABASE", &database.url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_process_that_was_stopped_and_goes_on_late_writes_nothing() {
    let Some(database) = test_postgres::database() else { return };
    let journal = open(&database);
    let mut child = start_child(&database);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("acknowledged 50") {}
    signal(&child, "-STOP");
    let run = run_id(1);
    until("the lease runs out", Duration::from_secs(15), || journal.claim(&run).unwrap() == Claim::Taken);
    let before = journal.load(&run).unwrap().len() as u64;
    write(&journal, event(&run, before + 1)).unwrap();
    signal(&child, "-CONT");
    let last = lines.map(Result::unwrap).find(|line| line.contains("refused")).unwrap();
    assert!(last.contains("1 counted") && last.contains("taken the run over"), "{last}");
    child.wait().unwrap();
    assert_eq!(journal.load(&run).unwrap().len() as u64, before + 1);
    assert_eq!(journal.verify().unwrap(), before + 1);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_and_another_takes_over() {
    let Some(database) = test_postgres::database() else { return };
    let journal = open(&database);
    let mut child = start_child(&database);
    let mut acknowledged = 0;
    let read = |line: &str| line.split_once("acknowledged ").and_then(|(_, seq)| seq.parse::<u64>().ok());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while acknowledged < 100 {
        acknowledged = read(&lines.next().unwrap().unwrap()).unwrap_or(acknowledged);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        acknowledged = read(&line.unwrap()).unwrap_or(acknowledged);
    }
    let run = run_id(1);
    assert!(matches!(journal.claim(&run).unwrap(), Claim::Held { .. }));
    until("the lease runs out", Duration::from_secs(15), || journal.claim(&run).unwrap() == Claim::Taken);
    let count = journal.load(&run).unwrap().len() as u64;
    assert!(count == acknowledged || count == acknowledged + 1, "{count} of {acknowledged}");
    write(&journal, event(&run, count + 1)).unwrap();
    assert_eq!(texts(&journal, &run).unwrap().len() as u64, count + 1);
}
