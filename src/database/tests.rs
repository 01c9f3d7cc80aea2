//! The connection against a real server: TLS, refusals, a server that goes away and comes back.

use std::time::Duration;

use crate::database::{Database, DatabaseError, DatabaseUrl};
use crate::test_postgres;

const PATIENCE: Duration = Duration::from_secs(20);

fn number(database: &Database, sql: &'static str) -> Result<i64, DatabaseError> {
    database.call(move |client| Box::pin(async move { Ok(client.query_one(sql, &[]).await?.get(0)) }))
}

fn open(url: &str) -> Result<Database, DatabaseError> {
    Database::open(&DatabaseUrl::parse(url).unwrap(), "test", PATIENCE)
}

#[test]
fn a_call_gives_its_result_also_inside_a_runtime() {
    let Some(server) = test_postgres::database() else { return };
    let database = open(&server.url).unwrap();
    assert_eq!(number(&database, "SELECT 41::int8 + 1").unwrap(), 42);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { assert_eq!(number(&database, "SELECT 7::int8").unwrap(), 7) });
    match number(&database, "SELECT x FROM nowhere") {
        Err(DatabaseError::Failed { code, what, .. }) => assert!(code == "42P01" && what.contains("nowhere"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(number(&database, "SELECT 1::int8").unwrap(), 1);
}

#[test]
fn who_is_trusted_is_as_sslmode_says() {
    let Some(server) = test_postgres::own_server() else { return };
    let authority = server.authority();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("other.crt");
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(
        &other,
        rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap().pem(),
    )
    .unwrap();
    let in_tls = "SELECT ssl::int::int8 FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let check = |query: String, expect: Option<i64>| {
        let url = format!("{}?{query}", server.url("postgres"));
        let found = Database::open(&DatabaseUrl::parse(&url).unwrap(), "test", Duration::ZERO)
            .and_then(|database| number(&database, in_tls));
        assert_eq!(found.as_ref().ok().copied(), expect, "{query}: {found:?}");
    };
    check("sslmode=disable".to_owned(), Some(0));
    check("sslmode=prefer".to_owned(), Some(1));
    check("sslmode=require".to_owned(), Some(1));
    check(format!("sslmode=verify-full&sslrootcert={}", authority.display()), Some(1));
    check(format!("sslmode=verify-ca&sslrootcert={}", authority.display()), Some(1));
    check(format!("sslmode=verify-full&sslrootcert={}", other.display()), None);
    check(format!("sslmode=require&sslrootcert={}", other.display()), None);
    let missing = format!("{}?sslmode=verify-full&sslrootcert=/nowhere/x.pem", server.url("postgres"));
    match open(&missing) {
        Err(DatabaseError::Certificates { file, .. }) => assert_eq!(file.to_str(), Some("/nowhere/x.pem")),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn what_the_server_refuses_is_told_at_once_and_without_the_password() {
    let Some(server) = test_postgres::own_server() else { return };
    let url = server.url("nowhere").replace("tol@", "tol:hush@");
    match open(&url) {
        Err(error @ DatabaseError::Refused { .. }) => {
            let text = error.to_string();
            assert!(text.contains("nowhere") && text.contains("postgres://tol@127.0.0.1"), "{text}");
            assert!(!format!("{text}{error:?}").contains("hush"), "{text}");
        }
        other => panic!("{:?}", other.err()),
    }
    let nobody = DatabaseUrl::parse("postgres://u:hush@127.0.0.1:1/x").unwrap();
    match Database::open(&nobody, "test", Duration::from_millis(200)) {
        Err(error @ DatabaseError::Away { .. }) => assert!(!error.to_string().contains("hush"), "{error}"),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let Some(mut server) = test_postgres::own_server() else { return };
    let database = open(&server.url("postgres")).unwrap();
    assert_eq!(number(&database, "SELECT 1::int8").unwrap(), 1);
    server.crash();
    let waiting = std::thread::spawn({
        let database = database.clone();
        move || number(&database, "SELECT 2::int8")
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished());
    server.restart();
    assert_eq!(waiting.join().unwrap().unwrap(), 2);
}
