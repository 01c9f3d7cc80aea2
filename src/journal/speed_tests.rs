//! Measures the journal; prints figures and asserts none. `cargo test --release --lib journal::speed -- --ignored
//! --nocapture --test-threads 1`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::journal::tests::{accept, open, run_id, write};
use crate::journal::{Batch, Journal, JournalError, OpenMode, SqliteJournal};

const BODY: [u8; 300] = [b'x'; 300];

fn median(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100))
}

fn timed(times: usize, mut work: impl FnMut(usize)) -> String {
    let one = |number| {
        let began = Instant::now();
        work(number);
        began.elapsed()
    };
    median((0..times).map(one).collect())
}

#[test]
#[ignore = "prints figures"]
fn one_append_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut raw = File::create(folder.path().join("raw")).unwrap();
    let page = [7_u8; 16 * 1024];
    raw.write_all(&vec![0; 40_000_000]).unwrap();
    raw.sync_all().unwrap();
    let sync = timed(1000, |number| {
        std::os::unix::fs::FileExt::write_all_at(&raw, &page, number as u64 * 16 * 1024).unwrap();
        raw.sync_data().unwrap();
    });
    println!("raw 16 KiB write and sync over written blocks: {sync}");
    let mut grown = File::create(folder.path().join("grown")).unwrap();
    let sync = timed(1000, |_| {
        grown.write_all(&page).unwrap();
        grown.sync_data().unwrap();
    });
    println!("raw 16 KiB append and sync: {sync}");
    let journal = open(folder.path());
    write(&journal, accept(&run_id(1), "p", &[])).unwrap();
    for round in 0..3 {
        let times = timed(3000, |number| {
            let seq = round * 3000 + number as u64 + 1;
            write(&journal, Batch::events(run_id(1), seq, vec![Box::from(BODY)])).unwrap();
        });
        println!("one append: {times}");
    }
}

/// Each run has always one event on its way: the callback of one appends the next.
fn next(journal: Arc<SqliteJournal>, run: u32, seq: u64, left: Arc<AtomicU64>, end: mpsc::Sender<()>) {
    let batch = Batch::events(run_id(run), seq, vec![Box::from(BODY)]);
    let again = Arc::clone(&journal);
    journal.append(
        batch,
        Box::new(move |fate| {
            fate.unwrap();
            if left.fetch_sub(1, Ordering::Relaxed) > 1 {
                next(again, run, seq + 1, left, end);
            } else {
                let _ = end.send(());
            }
        }),
    );
}

#[test]
#[ignore = "prints figures"]
fn events_a_second() {
    for runs in [1, 16, 64, 256, 1024] {
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(open(folder.path()));
        for run in 0..runs {
            write(&*journal, accept(&run_id(run), "p", &[])).unwrap();
        }
        let events = if runs == 1 { 5_000 } else { 300_000 };
        let began = Instant::now();
        let left = Arc::new(AtomicU64::new(events));
        let (sender, receiver) = mpsc::channel();
        for run in 0..runs {
            next(Arc::clone(&journal), run, 1, Arc::clone(&left), sender.clone());
        }
        receiver.recv().unwrap();
        println!("{runs} runs, one event each on its way: {:.0}/s", events as f64 / began.elapsed().as_secs_f64());
        while left.load(Ordering::Relaxed) as i64 > -(i64::from(runs) - 1) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn events_a_second_of_few_runs() {
    for runs in [1, 4] {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path());
        for run in 0..runs {
            write(&journal, accept(&run_id(run), "p", &[])).unwrap();
        }
        let (sender, receiver) = mpsc::sync_channel::<Result<(), JournalError>>(100_000);
        let began = Instant::now();
        let events = 400_000;
        for event in 0..events {
            if event >= 256 {
                receiver.recv().unwrap().unwrap();
            }
            let (run, seq) = (event % runs, event / runs + 1);
            let sender = sender.clone();
            let batch = Batch::events(run_id(run), u64::from(seq), vec![Box::from(BODY)]);
            journal.append(batch, Box::new(move |fate| sender.send(fate).unwrap()));
        }
        journal.close();
        println!("{runs} runs, 256 events on their way: {:.0}/s", f64::from(events) / began.elapsed().as_secs_f64());
    }
}

#[test]
#[ignore = "prints figures"]
fn opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = |number: usize| folder.path().join(number.to_string());
    println!("open a new one: {}", timed(50, |number| drop(open(&path(number)))));
    let with = |number: usize| {
        let journal = open(&folder.path().join(format!("with {number}")));
        write(&journal, accept(&run_id(1), "p", &["x"])).unwrap();
    };
    println!("open a new one, accept a run, close: {}", timed(50, with));
    println!("open an empty one: {}", timed(50, |number| drop(open(&path(number)))));
    for events in [1_u64, 20, 60, 120, 200, 2000] {
        let state = folder.path().join(format!("events {events}"));
        let journal = open(&state);
        write(&journal, accept(&run_id(1), "p", &[])).unwrap();
        for seq in 1..=events {
            write(&journal, Batch::events(run_id(1), seq, vec![Box::from(BODY)])).unwrap();
        }
        let began = Instant::now();
        drop(journal);
        let closing = began.elapsed();
        let log = std::fs::metadata(state.join("journal.db-wal")).map_or(0, |data| data.len() / 1024);
        let opening = timed(50, |_| drop(open(&state)));
        let read = |state: &Path| {
            SqliteJournal::open(state, OpenMode::ReadOnly).unwrap().load(&run_id(1)).unwrap();
        };
        let reading = timed(50, |_| read(&state));
        println!("{events} events, log {log} KiB: closed in {closing:?}; open {opening}; open and load {reading}");
    }
}

#[test]
#[ignore = "prints figures"]
fn two_processes() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for run in 1..=2 {
            let path = folder.path();
            scope.spawn(move || {
                let journal = open(path);
                write(&journal, accept(&run_id(run), "p", &[])).unwrap();
                let times = timed(2000, |number| {
                    write(&journal, Batch::events(run_id(run), number as u64 + 1, vec![Box::from(BODY)])).unwrap();
                });
                println!("one append while another process writes: {times}");
            });
        }
    });
}
