//! Measures the journal in PostgreSQL beside raw inserts of the same bytes on the same server; prints figures and
//! asserts none. `cargo test --release --lib journal::postgres::speed -- --ignored --nocapture --test-threads 1`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::database::{Database, DatabaseUrl};
use crate::journal::tests::{accept, run_id, write};
use crate::journal::{Batch, Journal, OpenMode, PostgresJournal};
use crate::test_postgres::{self, TestDatabase};

const BODY: [u8; 300] = [b'x'; 300];

/// Each run has always one event on its way: the callback of one appends the next.
fn next(journal: Arc<PostgresJournal>, run: u32, seq: u64, left: Arc<AtomicI64>, end: mpsc::Sender<()>) {
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

/// Durable events a second of the journal, so many runs with one event each on its way.
fn journal(database: &TestDatabase, runs: u32, events: i64) -> f64 {
    let url = DatabaseUrl::parse(&database.url).unwrap();
    let journal = Arc::new(PostgresJournal::open(&url, OpenMode::ReadWrite).unwrap());
    for run in 0..runs {
        write(&*journal, accept(&run_id(run), "p", &[])).unwrap();
    }
    let left = Arc::new(AtomicI64::new(events));
    let (sender, receiver) = mpsc::channel();
    let began = Instant::now();
    for run in 0..runs {
        next(Arc::clone(&journal), run, 1, Arc::clone(&left), sender.clone());
    }
    receiver.recv().unwrap();
    let took = began.elapsed();
    while left.load(Ordering::Relaxed) > 1 - i64::from(runs) {
        std::thread::sleep(Duration::from_millis(1));
    }
    events as f64 / took.as_secs_f64()
}

/// The same bytes in rows of their own, so many to a statement that commits by itself.
fn raw(database: &TestDatabase, rows: i64, events: i64) -> f64 {
    database.run(
        "DROP TABLE IF EXISTS raw; CREATE TABLE raw (number int8, seq int8, body bytea, PRIMARY KEY (number, seq)); \
         ALTER TABLE raw ALTER COLUMN body SET STORAGE EXTERNAL",
    );
    let database = Database::open(&DatabaseUrl::parse(&database.url).unwrap(), "raw", Duration::ZERO).unwrap();
    let rounds = events / rows;
    let took = database.call(move |client| {
        Box::pin(async move {
            let sql = "INSERT INTO raw SELECT * FROM unnest($1::int8[], $2::int8[], $3::bytea[])";
            let statement = client.prepare(sql).await?;
            let began = Instant::now();
            for round in 0..rounds {
                let numbers: Vec<i64> = (0..rows).collect();
                let seqs = vec![round; numbers.len()];
                let bodies = vec![&BODY[..]; numbers.len()];
                client.execute(&statement, &[&numbers, &seqs, &bodies]).await?;
            }
            Ok(began.elapsed())
        })
    });
    (rounds * rows) as f64 / took.unwrap().as_secs_f64()
}

#[test]
#[ignore = "prints figures"]
fn events_a_second_beside_raw_inserts() {
    for (runs, events) in [(1, 1_000), (16, 10_000), (256, 60_000), (1024, 100_000), (4096, 200_000)] {
        let Some(database) = test_postgres::database() else { return };
        let before = raw(&database, i64::from(runs), events);
        let own = journal(&database, runs, events);
        let after = raw(&database, i64::from(runs), events);
        let most = before.max(after);
        println!(
            "{runs} runs: {own:.0} durable events/s; raw inserts of {runs} rows {before:.0}/s and {after:.0}/s; ratio {:.2}",
            own / most
        );
    }
}
