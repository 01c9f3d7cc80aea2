//! What a journal promises, checked in memory, on real files and in a real PostgreSQL; also the helpers of the other tests.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use tempfile::TempDir;

use crate::database::DatabaseUrl;
use crate::id::RunId;
use crate::journal::{
    Batch, CachePut, Claim, CommandReply, FaultHook, Journal, JournalError, ListFilter, MemoryJournal, NewRun,
    OpenMode, Options, PostgresJournal, PostgresOptions, RunSummaryRow, SqliteJournal,
};
use crate::test_postgres::{self, TestDatabase};
use crate::time::Timestamp;

pub(crate) fn open(folder: &Path) -> SqliteJournal {
    SqliteJournal::open(folder, OpenMode::ReadWrite).unwrap()
}

pub(crate) fn run_id(number: u32) -> RunId {
    RunId::new(&format!("0198c0de-0000-7000-8000-{number:012}"))
}

pub(crate) fn bodies(texts: &[&str]) -> Vec<Box<[u8]>> {
    texts.iter().map(|text| text.as_bytes().into()).collect()
}

pub(crate) fn new_run(pipeline: &str) -> Box<NewRun> {
    Box::new(NewRun {
        pipeline: pipeline.to_owned(),
        path: format!("pipelines/{pipeline}.yaml"),
        definition_hash: format!("hash of {pipeline}"),
        definition: Arc::from(format!("definition of {pipeline}").as_bytes()),
        git_commit: Some("abc123".to_owned()),
        git_dirty: Some(false),
        parent: None,
        started_at: Timestamp(1_000),
    })
}

pub(crate) fn accept(run: &RunId, pipeline: &str, texts: &[&str]) -> Batch {
    Batch { accept: Some(new_run(pipeline)), ..Batch::events(run.clone(), 1, bodies(texts)) }
}

pub(crate) fn finish(run: &RunId, at: u64) -> Batch {
    let summary = RunSummaryRow { status: "succeeded".to_owned(), paused: false, finished_at: Some(Timestamp(at)) };
    Batch { summary: Some(summary), ..Batch::events(run.clone(), 0, Vec::new()) }
}

/// Appends a batch and waits for its fate.
pub(crate) fn write(journal: &dyn Journal, batch: Batch) -> Result<(), JournalError> {
    let (sender, receiver) = mpsc::channel();
    journal.append(batch, Box::new(move |fate| sender.send(fate).unwrap()));
    receiver.recv().unwrap()
}

pub(crate) fn texts(journal: &dyn Journal, run: &RunId) -> Result<Vec<String>, JournalError> {
    let records = journal.load(run)?;
    for (expect, record) in (1..).zip(&records) {
        assert_eq!(record.seq, expect);
    }
    Ok(records.into_iter().map(|record| String::from_utf8(record.body).unwrap()).collect())
}

/// Where a durable journal lies, so that it can be opened again, also by somebody else.
pub(crate) enum Home {
    Folder(TempDir),
    Database(TestDatabase),
}

impl Home {
    pub(crate) fn open_as(&self, mode: OpenMode) -> Result<Box<dyn Journal>, JournalError> {
        Ok(match self {
            Self::Folder(folder) => Box::new(SqliteJournal::open(folder.path(), mode)?),
            Self::Database(database) => {
                Box::new(PostgresJournal::open(&DatabaseUrl::parse(&database.url).unwrap(), mode)?)
            }
        })
    }

    pub(crate) fn open(&self) -> Box<dyn Journal> {
        self.open_as(OpenMode::ReadWrite).unwrap()
    }

    fn open_with(&self, fault: Arc<dyn FaultHook>) -> Box<dyn Journal> {
        match self {
            Self::Folder(folder) => {
                let options = Options { fault: Some(fault), max_pages: None };
                Box::new(SqliteJournal::open_with(folder.path(), OpenMode::ReadWrite, options).unwrap())
            }
            Self::Database(database) => {
                let options = PostgresOptions { fault: Some(fault), ..PostgresOptions::default() };
                let url = DatabaseUrl::parse(&database.url).unwrap();
                Box::new(PostgresJournal::open_with(&url, OpenMode::ReadWrite, options).unwrap())
            }
        }
    }

    /// Reads everything; gives the number of events.
    pub(crate) fn verify(&self) -> u64 {
        match self {
            Self::Folder(folder) => open(folder.path()).verify().unwrap(),
            Self::Database(database) => {
                let url = DatabaseUrl::parse(&database.url).unwrap();
                PostgresJournal::open(&url, OpenMode::ReadOnly).unwrap().verify().unwrap()
            }
        }
    }
}

/// Runs a check on every durable journal.
pub(crate) fn on_durable(check: impl Fn(&Home)) {
    check(&Home::Folder(tempfile::tempdir().unwrap()));
    if let Some(database) = test_postgres::database() {
        check(&Home::Database(database));
    }
}

/// Runs a check on every journal.
fn on_all(check: impl Fn(&dyn Journal)) {
    check(&MemoryJournal::new());
    on_durable(|home| check(&*home.open()));
}

#[test]
fn events_come_back_in_order() {
    on_all(|journal| {
        let (a, b) = (run_id(1), run_id(2));
        write(journal, accept(&a, "one", &["a1"])).unwrap();
        write(journal, accept(&b, "two", &["b1", "b2"])).unwrap();
        write(journal, Batch::events(a.clone(), 2, bodies(&["a2", ""]))).unwrap();
        assert_eq!(texts(journal, &a).unwrap(), ["a1", "a2", ""]);
        assert_eq!(texts(journal, &b).unwrap(), ["b1", "b2"]);
        assert_eq!(texts(journal, &run_id(9)).unwrap(), Vec::<String>::new());
        assert_eq!(journal.definition("hash of one").unwrap().unwrap(), b"definition of one");
        assert_eq!(journal.definition("none").unwrap(), None);
    });
}

#[test]
fn callbacks_come_in_the_order_of_the_calls() {
    on_all(|journal| {
        let order = Arc::new(Mutex::new(Vec::new()));
        for number in 0..50 {
            write(journal, accept(&run_id(number), "p", &[])).unwrap();
        }
        for event in 0..400_u32 {
            let order = Arc::clone(&order);
            let batch = Batch::events(run_id(event % 50), u64::from(event / 50) + 1, bodies(&["x"]));
            journal.append(
                batch,
                Box::new(move |fate| {
                    fate.unwrap();
                    order.lock().unwrap().push(event);
                }),
            );
        }
        write(journal, finish(&run_id(0), 5)).unwrap();
        assert_eq!(*order.lock().unwrap(), (0..400).collect::<Vec<_>>());
        assert_eq!(journal.load(&run_id(7)).unwrap().len(), 8);
    });
}

#[test]
fn a_write_that_does_not_follow_is_fenced_and_stops_its_run_alone() {
    on_all(|journal| {
        let (a, b) = (run_id(1), run_id(2));
        write(journal, accept(&a, "p", &["a1"])).unwrap();
        write(journal, accept(&b, "p", &["b1"])).unwrap();
        let check = |batch: Batch| match write(journal, batch) {
            Err(JournalError::Fenced { run, .. }) => assert_eq!(run, a),
            other => panic!("{other:?}"),
        };
        check(accept(&a, "p", &["again"]));
        check(Batch::events(a.clone(), 1, bodies(&["other"])));
        check(Batch::events(a.clone(), 2, bodies(&["late"])));
        write(journal, Batch::events(b.clone(), 2, bodies(&["b2"]))).unwrap();
        assert_eq!(texts(journal, &a).unwrap(), ["a1"]);
        assert_eq!(texts(journal, &b).unwrap(), ["b1", "b2"]);
        let unknown = write(journal, Batch::events(run_id(3), 1, bodies(&["x"])));
        assert!(matches!(unknown, Err(JournalError::NoSuchRun { .. })), "{unknown:?}");
    });
}

#[test]
fn runs_are_listed_newest_first() {
    on_all(|journal| {
        for number in 1..=3 {
            let pipeline = if number == 2 { "even" } else { "odd" };
            write(journal, accept(&run_id(number), pipeline, &["x"])).unwrap();
        }
        write(journal, finish(&run_id(3), 2_000)).unwrap();
        let check = |filter: ListFilter, expect: &[u32]| {
            let rows = journal.list(&filter).unwrap();
            let found: Vec<_> = rows.into_iter().map(|row| row.run).collect();
            assert_eq!(found, expect.iter().map(|number| run_id(*number)).collect::<Vec<_>>());
        };
        check(ListFilter::default(), &[3, 2, 1]);
        check(ListFilter { limit: Some(2), ..ListFilter::default() }, &[3, 2]);
        check(ListFilter { status: Some("running".to_owned()), ..ListFilter::default() }, &[2, 1]);
        check(ListFilter { pipeline: Some("odd".to_owned()), ..ListFilter::default() }, &[3, 1]);
        let row = journal.run(&run_id(3)).unwrap().unwrap();
        assert_eq!((row.status.as_str(), row.finished_at), ("succeeded", Some(Timestamp(2_000))));
        assert_eq!(row.owner, None, "nobody drives a run that has ended");
        assert!(journal.run(&run_id(2)).unwrap().unwrap().owner.unwrap().starts_with("process "));
        assert_eq!(journal.run(&run_id(4)).unwrap(), None);
    });
}

#[test]
fn a_run_is_found_by_the_beginning_of_its_name() {
    on_all(|journal| {
        for name in ["0198aa", "0198ab", "02"] {
            write(journal, accept(&RunId::new(name), "p", &["x"])).unwrap();
        }
        let check = |prefix: &str, expect: &[&str]| {
            let found: Vec<_> = journal.find_run(prefix).unwrap().into_iter().map(|row| row.run).collect();
            assert_eq!(found, expect.iter().map(|name| RunId::new(name)).collect::<Vec<_>>());
        };
        check("0198a", &["0198ab", "0198aa"]);
        check("0198ab", &["0198ab"]);
        check("", &["02", "0198ab", "0198aa"]);
        check("%", &[]);
        check("0198abc", &[]);
    });
}

#[test]
fn commands_reach_the_owner_and_are_answered_once() {
    on_all(|journal| {
        let run = run_id(1);
        write(journal, accept(&run, "p", &["x"])).unwrap();
        let first = journal.send_command(&run, b"pause").unwrap();
        let second = journal.send_command(&run, b"cancel").unwrap();
        let pending = journal.pending_commands(&run).unwrap();
        assert_eq!(pending, [(first, b"pause".to_vec()), (second, b"cancel".to_vec())]);
        for body in ["done", "other"] {
            let reply = CommandReply { id: first, body: body.into() };
            let batch = Batch { handled: vec![reply], ..Batch::events(run.clone(), 0, Vec::new()) };
            write(journal, batch).unwrap();
        }
        assert_eq!(journal.command_reply(first).unwrap().unwrap(), b"done");
        assert_eq!(journal.command_reply(second).unwrap(), None);
        assert_eq!(journal.pending_commands(&run).unwrap().len(), 1);
        assert!(matches!(journal.send_command(&run_id(5), b"x"), Err(JournalError::NoSuchRun { .. })));
    });
}

#[test]
fn a_remembered_result_expires() {
    on_all(|journal| {
        let run = run_id(1);
        let put = |key: &str, value: &str, expires_at: Option<u64>| CachePut {
            key: key.to_owned(),
            value: value.into(),
            expires_at: expires_at.map(Timestamp),
            created_at: Timestamp(0),
        };
        let cache = vec![put("k", "old", None), put("k", "new", Some(100)), put("ever", "x", None)];
        write(journal, Batch { cache, ..accept(&run, "p", &[]) }).unwrap();
        let check = |key: &str, now: u64, expect: Option<&str>| {
            let found = journal.cached(key, Timestamp(now)).unwrap();
            assert_eq!(found, expect.map(|text| text.as_bytes().to_vec()), "{key} at {now}");
        };
        check("k", 99, Some("new"));
        check("k", 100, None);
        check("ever", u64::MAX, Some("x"));
        check("none", 0, None);
        journal.prune(None, None, false).unwrap();
        check("k", 0, None);
        check("ever", 0, Some("x"));
    });
}

#[test]
fn only_finished_runs_are_pruned() {
    on_all(|journal| {
        for number in 1..=5 {
            write(journal, accept(&run_id(number), &format!("p{number}"), &["x", "y"])).unwrap();
        }
        let mut child = accept(&run_id(6), "child", &["x"]);
        child.accept.as_mut().unwrap().parent = Some(run_id(5));
        write(journal, child).unwrap();
        for (number, at) in [(1, 10), (2, 20), (3, 30), (6, 1)] {
            write(journal, finish(&run_id(number), at)).unwrap();
        }
        let check = |older_than: Option<u64>, keep_newest: Option<u64>, dry_run: bool, expect: &[u32]| {
            let gone = journal.prune(older_than.map(Timestamp), keep_newest, dry_run).unwrap();
            assert_eq!(gone, expect.iter().map(|number| run_id(*number)).collect::<Vec<_>>());
        };
        check(None, None, true, &[3, 2, 1]);
        check(Some(20), None, true, &[1]);
        check(None, Some(2), true, &[2, 1]);
        check(Some(20), Some(2), false, &[1]);
        check(None, None, true, &[3, 2]);
        assert_eq!(journal.run(&run_id(1)).unwrap(), None);
        assert_eq!(journal.load(&run_id(1)).unwrap(), []);
        assert_eq!(journal.definition("hash of p1").unwrap(), None);
        assert_eq!(journal.load(&run_id(2)).unwrap().len(), 2);
        check(None, None, false, &[3, 2]);
        assert_eq!(journal.list(&ListFilter::default()).unwrap().len(), 3);
        write(journal, accept(&run_id(7), "p7", &["x"])).unwrap();
        assert_eq!(journal.load(&run_id(7)).unwrap().len(), 1);
    });
}

#[test]
fn a_closed_journal_fails_and_says_so() {
    on_all(|journal| {
        write(journal, accept(&run_id(1), "p", &["x"])).unwrap();
        journal.close();
        journal.close();
        let closed = |error: JournalError| assert!(matches!(error, JournalError::Closed { .. }), "{error:?}");
        closed(write(journal, Batch::events(run_id(1), 2, bodies(&["y"]))).unwrap_err());
        closed(journal.load(&run_id(1)).unwrap_err());
        closed(journal.claim(&run_id(1)).unwrap_err());
        closed(journal.changed().unwrap_err());
    });
}

#[test]
fn a_journal_is_there_again_after_it_was_closed() {
    on_durable(|home| {
        let run = run_id(1);
        let mut expect = Vec::new();
        for round in 1..=20_u64 {
            let journal = home.open();
            let text = format!("event {round}");
            if round == 1 {
                write(&*journal, accept(&run, "p", &[&text])).unwrap();
            } else {
                assert_eq!(journal.claim(&run).unwrap(), Claim::Taken);
                write(&*journal, Batch::events(run.clone(), round, bodies(&[&text]))).unwrap();
            }
            expect.push(text);
            assert_eq!(texts(&*journal, &run).unwrap(), expect);
        }
        assert_eq!(home.verify(), 20);
    });
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("deep/.tol");
    write(&open(&state), accept(&run_id(1), "p", &[])).unwrap();
    assert_eq!(std::fs::read_to_string(state.join(".gitignore")).unwrap(), "*\n");
}

#[test]
fn the_tail_of_a_log_is_what_the_whole_ends_with() {
    on_all(|journal| {
        let run = run_id(1);
        write(journal, accept(&run, "p", &["1", "2", "3"])).unwrap();
        write(journal, Batch::events(run.clone(), 4, bodies(&["4"]))).unwrap();
        write(journal, Batch::events(run.clone(), 5, bodies(&["5", "6"]))).unwrap();
        let whole = journal.load(&run).unwrap();
        for from in 0..=8 {
            let expect: Vec<_> = whole.iter().filter(|record| record.seq >= from).cloned().collect();
            assert_eq!(journal.load_from(&run, from).unwrap(), expect, "from {from}");
        }
        assert_eq!(journal.load_from(&run_id(2), 1).unwrap(), []);
    });
}

#[test]
fn what_is_queued_when_the_journal_closes_is_written() {
    on_durable(|home| {
        let run = run_id(1);
        let done = Arc::new(AtomicU64::new(0));
        let journal = home.open();
        write(&*journal, accept(&run, "p", &[])).unwrap();
        for seq in 1..=500 {
            let done = Arc::clone(&done);
            let count = move |fate: Result<(), JournalError>| {
                fate.unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            };
            journal.append(Batch::events(run.clone(), seq, bodies(&["x"])), Box::new(count));
        }
        journal.close();
        assert_eq!(done.load(Ordering::SeqCst), 500);
        assert_eq!(home.open().load(&run).unwrap().len(), 500);
    });
}

/// Counts commits, and holds the first batch back until everything else is queued.
#[derive(Default)]
struct Slow {
    commits: AtomicU64,
    hold: Mutex<()>,
}

impl FaultHook for Slow {
    fn before_commit(&self, _n: u64) {
        drop(self.hold.lock().unwrap());
    }

    fn after_commit(&self, n: u64) {
        self.commits.store(n, Ordering::SeqCst);
    }
}

#[test]
fn everything_queued_goes_into_one_transaction() {
    on_durable(|home| {
        let hook = Arc::new(Slow::default());
        let journal = home.open_with(hook.clone());
        let hold = hook.hold.lock().unwrap();
        for number in 0..100 {
            journal.append(accept(&run_id(number), "p", &["1"]), Box::new(|fate| fate.unwrap()));
            journal.append(Batch::events(run_id(number), 2, bodies(&["2", "3"])), Box::new(|fate| fate.unwrap()));
        }
        drop(hold);
        write(&*journal, finish(&run_id(0), 1)).unwrap();
        let commits = hook.commits.load(Ordering::SeqCst);
        assert!(commits <= 3, "{commits}");
        assert_eq!(home.verify(), 300);
    });
}

#[test]
fn an_event_may_be_empty_or_large() {
    on_durable(|home| {
        let journal = home.open();
        let large = "x".repeat(3_000_000);
        let run = run_id(1);
        write(&*journal, accept(&run, "p", &["", &large, "", &large, "end"])).unwrap();
        journal.close();
        assert_eq!(texts(&*home.open(), &run).unwrap(), ["", &large, "", &large, "end"]);
    });
}

#[test]
fn a_full_disk_ends_the_journal_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { fault: None, max_pages: Some(60) };
    let journal = SqliteJournal::open_with(folder.path(), OpenMode::ReadWrite, options).unwrap();
    let run = run_id(1);
    write(&journal, accept(&run, "p", &[])).unwrap();
    let text = "x".repeat(10_000);
    let mut written = 0;
    let error = loop {
        match write(&journal, Batch::events(run.clone(), written + 1, bodies(&[&text]))) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, JournalError::Disk { what, .. } if what.contains("full")), "{error}");
    assert!(error.to_string().contains("journal.db"), "{error}");
    assert!(written > 3);
    let later = write(&journal, Batch::events(run.clone(), written + 1, bodies(&["small"])));
    assert_eq!(later, Err(error.clone()));
    assert_eq!(journal.load(&run), Err(error.clone()));
    assert_eq!(journal.claim(&run), Err(error));
    drop(journal);
    assert_eq!(open(folder.path()).load(&run).unwrap().len() as u64, written);
}
