//! Everything that goes over a real Kafka: topics, security, large messages, and a scheduler's hub with workers that
//! die, crowd each other out, or lose their broker.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tol::dispatch::kafka::{
    Admin, Bus, BusOptions, Consumer, From, KafkaError, KafkaSettings, Level, Mechanism, Producer, Protocol, Record,
    Subscription, Topic, Topics, check,
};
use tol::dispatch::{Dispatch, Hub, Perform, Report, Stop, StopSignal, Terms, Verdict};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::task::{Command as TaskCommand, Outcome, Phase, Placement, Script, Task, Work};
use tol::worker::kafka::{KafkaWorker, KafkaWorkerOptions};

#[path = "../support/kafka.rs"]
pub(crate) mod support;

use support::{Cluster, Kind, Listener};

/// One plain broker for all tests that leave it alone. It goes with the process.
pub(crate) fn broker() -> Option<&'static Cluster> {
    static BROKER: OnceLock<Option<Cluster>> = OnceLock::new();
    BROKER.get_or_init(support::one_broker).as_ref()
}

/// Settings with names of their own, on as few brokers as there are.
pub(crate) fn settings(cluster: &Cluster) -> KafkaSettings {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut settings = KafkaSettings::new(cluster.brokers());
    settings.prefix = format!("t{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    settings.clamp = true;
    settings
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

pub(crate) async fn until(what: &str, seconds: u64, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn task(run: &str, unit: &str, token: u64, once: bool) -> Task {
    let script = Script {
        command: TaskCommand::Argv(vec!["true".to_owned()]),
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: "/".to_owned(),
        json: false,
        permanent_exit_codes: Vec::new(),
        max_output: 0,
    };
    Task {
        run: RunId::new(run),
        pipeline: Arc::from("p"),
        unit: UnitPath::new(unit),
        attempt: 1,
        token: LeaseToken(token),
        idempotency_key: "k".to_owned(),
        deadline: None,
        place: Placement { once, root: Arc::from("/"), ..Placement::default() },
        work: Work::Run(script),
    }
}

/// Does tasks by sleeping, and remembers who did what.
pub(crate) struct Player {
    name: &'static str,
    sleep: Duration,
    begun: Begun,
    in_work: AtomicUsize,
    most: AtomicUsize,
}

pub(crate) type Begun = Arc<Mutex<Vec<(&'static str, String, u64)>>>;

impl Player {
    pub(crate) fn new(name: &'static str, sleep: Duration, begun: &Begun) -> Arc<Self> {
        Arc::new(Self { name, sleep, begun: begun.clone(), in_work: AtomicUsize::new(0), most: AtomicUsize::new(0) })
    }
}

struct Share(Arc<Player>);

impl Perform for Share {
    fn perform(&self, task: Task, mut stop: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let player = self.0.clone();
        Box::pin(async move {
            player.begun.lock().expect("whole").push((player.name, task.unit.to_string(), task.token.0));
            let now = player.in_work.fetch_add(1, Ordering::SeqCst) + 1;
            player.most.fetch_max(now, Ordering::SeqCst);
            let outcome = tokio::select! {
                () = tokio::time::sleep(player.sleep) => Outcome::success(task.unit.as_str().into()),
                _ = stop.wait(Stop::Graceful) => Outcome::Stopped,
            };
            player.in_work.fetch_sub(1, Ordering::SeqCst);
            outcome
        })
    }
}

/// A scheduler's end: a hub on a bus, whose reports are recorded at once.
pub(crate) struct Scheduler {
    pub(crate) hub: Arc<Hub>,
    pub(crate) bus: Bus,
    reports: UnboundedReceiver<Report>,
}

impl Scheduler {
    pub(crate) async fn start(settings: &KafkaSettings, name: &str, terms: Terms) -> Self {
        let (sender, reports) = unbounded_channel();
        let (out, outbox) = unbounded_channel();
        let hub = Hub::start(terms, sender, Some(out), true);
        let options = BusOptions::new(name);
        let bus = Bus::start(settings, options, &hub, outbox).await.expect("a bus");
        Self { hub, bus, reports }
    }

    pub(crate) async fn next(&mut self, seconds: u64) -> Report {
        let wait = Duration::from_secs(seconds);
        let report = tokio::time::timeout(wait, self.reports.recv()).await;
        let report = report.unwrap_or_else(|_| {
            let (hub, bus) = (self.hub.counters(), self.bus.counters());
            panic!("no report within {seconds} s: {} out, {hub:?}, {bus:?}, {:?}", self.hub.out(), self.bus.problem())
        });
        let report = report.expect("a hub");
        self.hub.answered(&report.run, &report.unit, report.token, Verdict::Recorded);
        report
    }

    /// The units of so many successes.
    pub(crate) async fn successes(&mut self, count: usize, seconds: u64) -> BTreeSet<String> {
        let mut units = BTreeSet::new();
        while units.len() < count {
            let report = self.next(seconds).await;
            assert!(matches!(report.result, Ok(Outcome::Succeeded { .. })), "{report:?}");
            assert!(units.insert(report.unit.to_string()), "twice: {report:?}");
        }
        units
    }
}

/// Waits until so many units have succeeded. What is lost is handed out anew, as a scheduler does it.
pub(crate) async fn all_done(scheduler: &mut Scheduler, count: usize, seconds: u64) {
    let mut done = BTreeSet::new();
    while done.len() < count {
        let report = scheduler.next(seconds).await;
        match report.result {
            Ok(Outcome::Succeeded { .. }) => assert!(done.insert(report.unit.to_string()), "twice"),
            Ok(other) => panic!("{other:?}"),
            Err(_) => {
                let token = report.token.0 + 100;
                scheduler.hub.dispatch(task("run", report.unit.as_str(), token, false));
            }
        }
    }
}

pub(crate) async fn worker(settings: &KafkaSettings, player: &Arc<Player>, concurrency: usize) -> KafkaWorker {
    let options = KafkaWorkerOptions::new(player.name, vec!["default".to_owned()], concurrency);
    let worker = KafkaWorker::start(settings, options, Arc::new(Share(player.clone())), None).await.expect("a worker");
    until("the worker has partitions", 30, || !worker.assigned().is_empty()).await;
    worker
}

/// All records of a topic, from its beginning, once there are so many.
pub(crate) async fn read_all(
    settings: &KafkaSettings,
    topic: &str,
    count: usize,
) -> Vec<tol::dispatch::kafka::Received> {
    let all = Subscription::All { group: None, topics: vec![topic.to_owned()], from: From::Earliest };
    let (consumer, mut records) = Consumer::start(settings, "reader", all, 100).await.expect("a consumer");
    let mut found = Vec::new();
    while found.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), records.recv()).await;
        found.push(next.unwrap_or_else(|_| panic!("{} of {count} messages in {topic}", found.len())).expect("open"));
    }
    assert!(consumer.close(Duration::from_secs(10)).await);
    found
}

#[test]
fn topics_are_made_with_their_settings_and_differences_are_named() {
    let Some(cluster) = broker() else { return };
    let settings = settings(cluster);
    let topics = Topics::new(&settings);
    let names = topics.all(["default", "gpu"]);
    wait(async {
        let mut strict = settings.clone();
        strict.clamp = false;
        if !cluster.is_existing() {
            let refused = Admin::new(&strict).unwrap().ensure(&names).await.unwrap_err();
            assert_eq!(refused, KafkaError::TooFewBrokers { have: 1, want: 2 });
            assert!(check(&strict, &["default"]).await.iter().any(|finding| finding.level == Level::Error));
        }
        let missing = check(&settings, &["default"]).await;
        assert!(missing.iter().any(|finding| finding.message.ends_with("does not exist")), "{missing:?}");
        let admin = Admin::new(&settings).unwrap();
        assert_eq!(admin.ensure(&names).await.unwrap(), []);
        // A second time there is nothing to do.
        assert_eq!(admin.ensure(&names).await.unwrap(), []);
        assert!(check(&settings, &["default", "gpu"]).await.iter().all(|finding| finding.level < Level::Error));
    });
    // Kafka's own tools see the same.
    let brokers = settings.brokers.as_str();
    let tasks = topics.tasks("gpu", Phase::Execute);
    let arguments = ["--bootstrap-server", brokers, "--describe", "--topic", &tasks];
    let described = cluster.tool_text("org.apache.kafka.tools.TopicCommand", &arguments);
    for words in ["PartitionCount: 3", "retention.ms=6912000000", "min.insync.replicas=", "max.message.bytes=10551296"]
    {
        assert!(described.contains(words), "{words} in {described}");
    }
    // Somebody changes a topic: that is named, and nothing else.
    let change = ["--bootstrap-server", brokers, "--alter", "--entity-type", "topics", "--entity-name", &tasks];
    let alter = [&change[..], &["--add-config", "retention.ms=1000"]].concat();
    cluster.tool_text("kafka.admin.ConfigCommand", &alter);
    wait(async {
        let differences = Admin::new(&settings).unwrap().ensure(&names).await.unwrap();
        let words: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(words, [format!("topic {tasks}: retention.ms is 1000, should be 6912000000")]);
        let findings = check(&settings, &["gpu"]).await;
        let mut helps = findings.iter().filter_map(|finding| finding.help.as_deref());
        assert!(helps.any(|help| help.contains("--add-config retention.ms=6912000000")), "{findings:?}");
    });
}

#[test]
fn ten_megabytes_pass_and_more_is_refused_by_name() {
    let Some(cluster) = broker() else { return };
    for compression in ["zstd", "lz4", "snappy", "none"] {
        let mut settings = settings(cluster);
        let env = BTreeMap::from([
            ("KAFKA_BROKERS".to_owned(), settings.brokers.clone()),
            ("KAFKA_COMPRESSION".to_owned(), compression.to_owned()),
        ]);
        settings.compression = KafkaSettings::from_env(&env).unwrap().compression;
        wait(async {
            let topic = Topics::new(&settings).name(Topic::Outcome);
            Admin::new(&settings).unwrap().ensure(std::slice::from_ref(&topic)).await.unwrap();
            let producer = Producer::new(&settings, "writer").unwrap();
            // What cannot be packed smaller, so that the limit is that of the whole way.
            let mut state = 1u64;
            let mut noise = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            };
            let payload: Vec<u8> = (0..tol::proto::MAX_MESSAGE_BYTES).map(|_| noise()).collect();
            let record =
                Record { topic: &topic, partition: None, key: "run", headers: &[("a", "b")], payload: &payload };
            producer.send(record).await.unwrap().written().await.unwrap();
            let found = read_all(&settings, &topic, 1).await;
            assert!(found[0].payload() == payload && found[0].key() == b"run", "{compression}");
            assert_eq!(found[0].header("a"), Some("b"));
            let more = vec![0; payload.len() + 100_000];
            let error = producer.send(Record { payload: &more, ..record }).await.unwrap_err();
            assert!(error.to_string().starts_with("MESSAGE_TOO_LARGE: "), "{error}");
        });
    }
}

#[test]
fn every_way_to_connect_works_and_what_is_wrong_is_said() {
    let Some(cluster) = support::start(Kind::Secure) else { return };
    let secure = |listener: Listener, more: &[(&str, String)]| {
        let mut env = BTreeMap::from([
            ("KAFKA_BROKERS".to_owned(), cluster.addresses(listener)),
            ("KAFKA_CLAMP_REPLICATION".to_owned(), "true".to_owned()),
        ]);
        env.extend(more.iter().map(|(name, value)| (format!("KAFKA_{name}"), value.clone())));
        KafkaSettings::from_env(&env).expect("settings that fit")
    };
    let text = |text: &str| text.to_owned();
    let sasl = |protocol: &str, mechanism: &str, password: &str| {
        vec![
            ("SECURITY_PROTOCOL", text(protocol)),
            ("SASL_MECHANISM", text(mechanism)),
            ("SASL_USERNAME", text(support::USER)),
            ("SASL_PASSWORD", text(password)),
        ]
    };
    let with_ca = |mut pairs: Vec<(&'static str, String)>, file: &str| {
        pairs.push(("SSL_CA_LOCATION", cluster.file(file)));
        pairs
    };
    let mut good = Vec::new();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let pairs = with_ca(sasl("SASL_SSL", mechanism, support::PASSWORD), "ca.pem");
        good.push((mechanism, secure(Listener::SaslSsl, &pairs)));
    }
    let plain_sasl = sasl("SASL_PLAINTEXT", "SCRAM-SHA-512", support::PASSWORD);
    good.push(("without TLS", secure(Listener::SaslPlain, &plain_sasl)));
    let mut mutual = with_ca(vec![("SECURITY_PROTOCOL", text("SSL"))], "ca.pem");
    let no_certificate = secure(Listener::MutualSsl, &mutual);
    mutual.push(("SSL_CERTIFICATE_LOCATION", cluster.file("client.pem")));
    mutual.push(("SSL_KEY_LOCATION", cluster.file("client.key")));
    good.push(("mutual TLS", secure(Listener::MutualSsl, &mutual)));
    wait(async {
        for (index, (name, settings)) in good.iter().enumerate() {
            let mut settings = settings.clone();
            settings.prefix = format!("way{index}-");
            let topic = Topics::new(&settings).name(Topic::Control);
            let made = Admin::new(&settings).unwrap().ensure(std::slice::from_ref(&topic)).await;
            assert_eq!(made, Ok(Vec::new()), "{name}");
            let producer = Producer::new(&settings, "writer").unwrap();
            let record = Record { topic: &topic, partition: None, key: "k", headers: &[], payload: b"word" };
            producer.send(record).await.unwrap().written().await.unwrap();
            assert_eq!(read_all(&settings, &topic, 1).await[0].payload(), b"word", "{name}");
        }
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let pairs = with_ca(sasl("SASL_SSL", mechanism, "wrong"), "ca.pem");
            let error = Admin::new(&secure(Listener::SaslSsl, &pairs)).unwrap().brokers().await.unwrap_err();
            assert!(matches!(error, KafkaError::Refused { .. }), "{mechanism}: {error}");
            assert!(!format!("{error} {error:?}").contains("wrong"), "{error}");
            // A reader is told the same.
            let all = Subscription::All { group: None, topics: vec![text("t")], from: From::Latest };
            let reading = Consumer::start(&secure(Listener::SaslSsl, &pairs), "r", all, 1).await.err();
            assert!(matches!(reading, Some(KafkaError::Refused { .. })), "{mechanism}: {reading:?}");
        }
        let pairs = with_ca(sasl("SASL_SSL", "PLAIN", support::PASSWORD), "other-ca.pem");
        for (settings, what) in [
            (secure(Listener::SaslSsl, &pairs), "an authority that did not sign"),
            (secure(Listener::SaslSsl, &sasl("SASL_SSL", "PLAIN", support::PASSWORD)), "the system's authorities"),
            (no_certificate, "no certificate of its own"),
        ] {
            let error = Admin::new(&settings).unwrap().brokers().await.unwrap_err();
            assert!(matches!(error, KafkaError::Tls { .. }), "{what}: {error}");
        }
        let settings = KafkaSettings::new("127.0.0.1:1");
        let error = Admin::new(&settings).unwrap().brokers().await.unwrap_err();
        assert!(error.to_string().starts_with("no Kafka broker answers at 127.0.0.1:1"), "{error}");
        // Without an environment, in code.
        let mut settings = KafkaSettings::new(cluster.addresses(Listener::SaslPlain));
        settings.protocol = Protocol::SaslPlaintext;
        let settings = settings.with_sasl(Mechanism::Plain, support::USER, support::PASSWORD);
        assert_eq!(Admin::new(&settings).unwrap().brokers().await, Ok(1));
    });
}

#[test]
fn tasks_go_out_outcomes_come_back_and_other_tools_read_them() {
    let Some(cluster) = broker() else { return };
    let settings = settings(cluster);
    let begun = Begun::default();
    wait(async {
        let mut scheduler = Scheduler::start(&settings, "one", Terms::default()).await;
        let player = Player::new("anna", Duration::from_millis(5), &begun);
        let worker = worker(&settings, &player, 4).await;
        for token in 1..=40 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, token % 4 == 0));
        }
        assert_eq!(scheduler.successes(40, 30).await.len(), 40);
        until("all are answered", 20, || worker.unanswered() == 0).await;
        let counters = worker.counters();
        assert_eq!((counters.begun, counters.reported, counters.answered), (40, 40, 40), "{counters:?}");
        assert!(player.most.load(Ordering::SeqCst) <= 4);
        assert_eq!(scheduler.hub.out(), 0);
        // A stop reaches the work itself.
        let slow = Player::new("berta", Duration::from_secs(600), &begun);
        assert!(worker.drain(Duration::from_secs(30)).await);
        let worker = self::worker(&settings, &slow, 4).await;
        scheduler.hub.dispatch(task("run", "slow", 50, false));
        until("it is in work", 20, || worker.in_work() == 1).await;
        scheduler.hub.stop(&RunId::new("run"), &UnitPath::new("slow"), LeaseToken(50), Stop::Graceful);
        assert_eq!(scheduler.next(20).await.result, Ok(Outcome::Stopped));
        assert!(worker.drain(Duration::from_secs(30)).await);
        assert!(scheduler.bus.close(Duration::from_secs(10)).await);
    });
    // 41 tasks, each begun once.
    let begun = begun.lock().expect("whole");
    let tokens: BTreeSet<u64> = begun.iter().map(|(_, _, token)| *token).collect();
    assert_eq!((begun.len(), tokens.len()), (41, 41));
    // kcat and Kafka's own consumer read what was written.
    let topic = Topics::new(&settings).name(Topic::Outcome);
    let arguments = ["-C", "-e", "-q", "-b", &settings.brokers, "-t", &topic, "-f", "%k %h\n"];
    match Command::new("kcat").args(arguments).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text.lines().count(), 41, "{text}");
            assert!(text.lines().all(|line| line.starts_with("run content-type=application/x-protobuf")), "{text}");
        }
        Err(error) => eprintln!("SKIPPED: kcat: {error}; Kafka's own consumer reads the topic instead"),
    }
    let arguments = ["--bootstrap-server", &settings.brokers, "--topic", &topic, "--from-beginning"];
    let more = ["--max-messages", "41", "--timeout-ms", "20000", "--formatter-property", "print.key=true"];
    let text = cluster.tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &[&arguments[..], &more].concat());
    let said = String::from_utf8_lossy(&text.stderr).into_owned();
    assert!(said.contains("Processed a total of 41 messages"), "{said}");
}

#[test]
fn a_poison_message_is_put_aside_and_its_partition_moves_on() {
    let Some(cluster) = broker() else { return };
    let settings = settings(cluster);
    let topics = Topics::new(&settings);
    let begun = Begun::default();
    wait(async {
        let mut scheduler = Scheduler::start(&settings, "one", Terms::default()).await;
        let tasks = topics.tasks("default", Phase::Execute);
        let producer = Producer::new(&settings, "stranger").unwrap();
        for partition in 0..3 {
            let record = Record {
                topic: &tasks,
                partition: Some(partition),
                key: "who",
                headers: &[],
                payload: b"this is no envelope",
            };
            producer.send(record).await.unwrap().written().await.unwrap();
        }
        for token in 1..=9 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, false));
        }
        let player = Player::new("carl", Duration::from_millis(1), &begun);
        let worker = worker(&settings, &player, 2).await;
        assert_eq!(scheduler.successes(9, 30).await.len(), 9);
        let letters = read_all(&settings, &Topics::dead_letters(&tasks), 3).await;
        for letter in &letters {
            assert_eq!(letter.payload(), b"this is no envelope");
            assert!(letter.header("reason").unwrap().contains("envelope"), "{letter:?}");
            assert_eq!(letter.header("attempts"), Some("3"));
            assert!(letter.header("source").unwrap().starts_with(&format!("{tasks}/")), "{letter:?}");
        }
        let errors = read_all(&settings, &topics.name(Topic::Error), 3).await;
        assert_eq!(errors.len(), 3);
        assert_eq!(worker.counters().dead_letters, 3);
        assert!(worker.drain(Duration::from_secs(30)).await);
        // Nothing of it comes back.
        let again = Player::new("carl", Duration::from_millis(1), &begun);
        let worker = self::worker(&settings, &again, 2).await;
        scheduler.hub.dispatch(task("run", "last", 20, false));
        assert_eq!(scheduler.successes(1, 30).await.len(), 1);
        let counters = worker.counters();
        assert_eq!((counters.dead_letters, counters.begun), (0, 1), "{counters:?}");
        assert!(worker.drain(Duration::from_secs(30)).await);
    });
}

#[test]
fn a_busy_worker_pauses_and_goes_on() {
    let Some(cluster) = broker() else { return };
    let settings = settings(cluster);
    let begun = Begun::default();
    wait(async {
        // Nothing is sent again in this test: what waits is to wait in Kafka.
        let terms = Terms { resend: Duration::from_mins(10), ..Terms::default() };
        let mut scheduler = Scheduler::start(&settings, "one", terms).await;
        let player = Player::new("dora", Duration::from_millis(250), &begun);
        let worker = worker(&settings, &player, 2).await;
        for token in 1..=40 {
            scheduler.hub.dispatch(task(&format!("run{}", token % 7), &format!("u{token}"), token, false));
        }
        assert_eq!(scheduler.successes(40, 60).await.len(), 40);
        let (pauses, resumes) = worker.pauses();
        assert!(pauses > 0 && resumes > 0, "{pauses} pauses, {resumes} resumes");
        assert!(player.most.load(Ordering::SeqCst) <= 2);
        assert!(worker.drain(Duration::from_secs(30)).await);
    });
    assert_eq!(begun.lock().expect("whole").len(), 40);
}

#[test]
fn a_rebalance_begins_nothing_anew() {
    let Some(cluster) = broker() else { return };
    let settings = settings(cluster);
    let begun = Begun::default();
    wait(async {
        let mut scheduler = Scheduler::start(&settings, "one", Terms::default()).await;
        let players = ["emil", "frieda", "gustav"].map(|name| Player::new(name, Duration::from_millis(400), &begun));
        let first = worker(&settings, &players[0], 8).await;
        for token in 1..=30 {
            scheduler.hub.dispatch(task("run", &format!("a{token}"), token, token % 3 == 0));
        }
        // Two more come while the first has work in hand.
        until("something is in work", 20, || first.in_work() > 0).await;
        let second = worker(&settings, &players[1], 8).await;
        let third = worker(&settings, &players[2], 8).await;
        assert_eq!(scheduler.successes(30, 60).await.len(), 30);
        until("each has a share", 40, || {
            let shares = [&first, &second, &third].map(KafkaWorker::assigned);
            let all: BTreeSet<(String, i32)> = shares.iter().flatten().cloned().collect();
            let sum: usize = shares.iter().map(Vec::len).sum();
            all.len() == 9 && sum == 9 && shares.iter().all(|share| !share.is_empty())
        })
        .await;
        for token in 31..=90 {
            scheduler.hub.dispatch(task("run", &format!("b{token}"), token, token % 3 == 0));
        }
        // One leaves in the middle of it.
        until("it has work", 20, || second.in_work() > 0).await;
        let (drained, units) = tokio::join!(second.drain(Duration::from_secs(30)), scheduler.successes(60, 60));
        assert!(drained && units.len() == 60);
        assert!(first.drain(Duration::from_secs(30)).await);
        assert!(third.drain(Duration::from_secs(30)).await);
    });
    let begun = begun.lock().expect("whole");
    let tokens: BTreeSet<u64> = begun.iter().map(|(_, _, token)| *token).collect();
    let workers: BTreeSet<&str> = begun.iter().map(|(name, _, _)| *name).collect();
    assert_eq!((begun.len(), tokens.len(), workers.len()), (90, 90, 3), "{begun:?}");
}

#[test]
fn another_scheduler_takes_over_what_is_in_work() {
    let Some(cluster) = broker() else { return };
    let settings = settings(cluster);
    let begun = Begun::default();
    wait(async {
        let first = Scheduler::start(&settings, "one", Terms::default()).await;
        let player = Player::new("jakob", Duration::from_secs(4), &begun);
        let worker = worker(&settings, &player, 4).await;
        let tasks: Vec<Task> = (1..=4).map(|token| task("run", &format!("u{token}"), token, token == 1)).collect();
        for task in &tasks {
            first.hub.dispatch(task.clone());
        }
        until("all are in work", 20, || begun.lock().expect("whole").len() == 4).await;
        // It goes without a word.
        drop(first);
        let mut second = Scheduler::start(&settings, "two", Terms::default()).await;
        for task in tasks {
            second.hub.reclaim(task);
        }
        assert_eq!(second.successes(4, 30).await.len(), 4);
        assert_eq!(second.hub.counters().lost, 0);
        until("all are answered", 20, || worker.unanswered() == 0).await;
        assert!(worker.drain(Duration::from_secs(30)).await);
    });
    assert_eq!(begun.lock().expect("whole").len(), 4);
}

#[test]
fn what_a_worker_that_vanished_had_is_lost_and_begun_elsewhere() {
    let Some(cluster) = broker() else { return };
    let settings = settings(cluster);
    let begun = Begun::default();
    wait(async {
        let terms = Terms { lease: Duration::from_secs(8), ..Terms::default() };
        let mut scheduler = Scheduler::start(&settings, "one", terms).await;
        let player = Player::new("klara", Duration::from_secs(600), &begun);
        let gone = worker(&settings, &player, 4).await;
        scheduler.hub.dispatch(task("run", "a", 1, false));
        scheduler.hub.dispatch(task("run", "b", 2, true));
        until("both are in work", 20, || begun.lock().expect("whole").len() == 2).await;
        drop(gone);
        let player = Player::new("ludwig", Duration::from_millis(10), &begun);
        let worker = worker(&settings, &player, 4).await;
        let mut lost = BTreeSet::new();
        while lost.len() < 2 {
            let report = scheduler.next(40).await;
            assert!(report.result.is_err(), "{report:?}");
            lost.insert(report.token.0);
        }
        // As a scheduler does it: what may be begun again gets a new token.
        scheduler.hub.dispatch(task("run", "a", 3, false));
        assert_eq!(scheduler.successes(1, 40).await.len(), 1);
        assert!(worker.drain(Duration::from_secs(30)).await);
    });
    let begun: Vec<(&str, String, u64)> = begun.lock().expect("whole").clone();
    let twice = begun.iter().filter(|(_, unit, _)| unit == "b").count();
    assert_eq!((begun.len(), twice), (3, 1), "{begun:?}");
}
