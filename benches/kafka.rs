//! What the bus costs: our producer and consumer beside a bare loop of the client library over the same bytes, and
//! beside Kafka's own measuring tools, on one broker in one run: `cargo bench --bench kafka [NAME…]`.
//!
//! Nothing here passes or fails: it prints. `docs/performance.md` keeps the figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc::unbounded_channel;
use tol::dispatch::kafka::{
    Admin, Bus, BusOptions, Consumer, From, HEADERS, KafkaSettings, Producer, Record, Subscription, encode, header,
};
use tol::dispatch::{Dispatch, Hub, LeaseKey, Perform, StopSignal, Terms, Verdict};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::proto::{command_task, outcome, v1};
use tol::task::{Command, Outcome, Placement, Script, Task, Work};
use tol::worker::kafka::{KafkaWorker, KafkaWorkerOptions};

use crate::durable::{Durable, Folder};

mod durable;
#[expect(dead_code, reason = "tests use more of it")]
#[path = "../tests/support/kafka.rs"]
mod support;

const MESSAGES: usize = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
const ROUND_TRIPS: usize = 2_000;
/// Runs of so many durable steps in a row.
const CHAIN: usize = 20;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let Some(cluster) = support::one_broker() else { return };
    let mut settings = KafkaSettings::new(cluster.brokers());
    settings.clamp = true;
    settings.prefix = format!("bench-{}-", std::process::id());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if runs("task_events") {
        runtime.block_on(task_events(&settings));
        kafkas_own(&cluster, &settings);
    }
    if runs("step_round_trip") || runs("durable_step") {
        if runs("step_round_trip") {
            runtime.block_on(step_round_trip(&settings));
        }
        if runs("durable_step") {
            runtime.block_on(durable_step(&settings));
        }
        runtime.block_on(bare_round_trip(&settings));
    }
    runtime.shutdown_timeout(Duration::from_secs(2));
}

fn task(token: u64) -> Task {
    let script = Script {
        command: Command::Argv(vec!["true".to_owned()]),
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: "/srv/project".to_owned(),
        json: false,
        permanent_exit_codes: Vec::new(),
        max_output: 1_048_576,
    };
    Task {
        run: RunId::new("019a9c3e-7d2a-7c40-9a57-0242ac120002"),
        pipeline: Arc::from("release"),
        unit: UnitPath::new("build"),
        attempt: 1,
        token: LeaseToken(token),
        idempotency_key: "019a9c3e-7d2a-7c40-9a57-0242ac120002/build".to_owned(),
        deadline: None,
        place: Placement { root: Arc::from("/srv/project"), ..Placement::default() },
        work: Work::Run(script),
    }
}

/// A task's message, as the bus sends it.
fn payload() -> Vec<u8> {
    encode(&command_task(header("scheduler", None), v1::Task::from(&task(1)))).expect("a message")
}

/// Messages of a task a second, through our producer and consumer and through the library alone: the same bytes, the
/// same settings of the library, in turns.
async fn task_events(settings: &KafkaSettings) {
    let payload = payload();
    let names: Vec<String> = (0..6).map(|number| format!("{}events-{number}", settings.prefix)).collect();
    Admin::new(settings).expect("settings").ensure(&names).await.expect("topics");
    let mut figures: [Vec<f64>; 4] = Default::default();
    for (round, pair) in names.chunks(2).enumerate() {
        // Who comes second finds the broker warmer, so each does in turn.
        for turn in 0..2 {
            if (turn + round) % 2 == 0 {
                figures[0].push(ours_out(settings, &pair[0], &payload).await);
            } else {
                let (raw, topic, bytes) = (settings.clone(), pair[1].clone(), payload.clone());
                let out = tokio::task::spawn_blocking(move || raw_out(&raw, &topic, &bytes)).await;
                figures[1].push(out.expect("a figure"));
            }
        }
        for turn in 0..2 {
            if (turn + round) % 2 == 0 {
                figures[2].push(ours_in(settings, &pair[0]).await);
            } else {
                let (raw, topic) = (settings.clone(), pair[1].clone());
                figures[3].push(tokio::task::spawn_blocking(move || raw_in(&raw, &topic)).await.expect("a figure"));
            }
        }
    }
    let [ours_out, raw_out, ours_in, raw_in] = figures.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    println!("task_events: messages of {} bytes, {MESSAGES} in each of three rounds, medians", payload.len());
    println!("  written  {ours_out:>9.0}/s; the bare library {raw_out:>9.0}/s; ratio {:.2}", ours_out / raw_out);
    println!("  read     {ours_in:>9.0}/s; the bare library {raw_in:>9.0}/s; ratio {:.2}", ours_in / raw_in);
}

async fn ours_out(settings: &KafkaSettings, topic: &str, payload: &[u8]) -> f64 {
    let producer = Producer::new(settings, "bench").expect("a producer");
    let record = Record { topic, partition: None, key: "warm", headers: HEADERS, payload };
    producer.send(record).await.expect("room").written().await.expect("written");
    let began = Instant::now();
    for number in 0..MESSAGES {
        let key = KEYS[number % KEYS.len()];
        let record = Record { topic, partition: None, key, headers: HEADERS, payload };
        producer.post(record).await.expect("room");
    }
    assert_eq!((producer.flush(Duration::from_secs(60)).await, producer.failed()), (0, 0));
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

const KEYS: [&str; 7] = ["run-1", "run-2", "run-3", "run-4", "run-5", "run-6", "run-7"];

/// Counts what was written, as the least that a sender must do to know that nothing was lost.
struct Count(Arc<AtomicU64>);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok());
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn raw_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers);
    config
}

fn raw_out(settings: &KafkaSettings, topic: &str, payload: &[u8]) -> f64 {
    let written = Arc::new(AtomicU64::new(0));
    let mut config = raw_config(settings);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", settings.compression.as_str())
        .set("linger.ms", "1")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "131072")
        .set("message.max.bytes", "10551296");
    let producer: ThreadedProducer<Count, NoCustomPartitioner> =
        ThreadedProducer::from_config_and_context(&config, Count(written.clone())).expect("a producer");
    let send = |key: &str| loop {
        let headers = HEADERS.iter().fold(OwnedHeaders::new_with_capacity(1), |all, &(key, value)| {
            all.insert(Header { key, value: Some(value) })
        });
        match producer.send(BaseRecord::to(topic).key(key).payload(payload).headers(headers)) {
            Ok(()) => return,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    send("warm");
    producer.flush(Duration::from_secs(10)).expect("written");
    let began = Instant::now();
    for number in 0..MESSAGES {
        send(KEYS[number % KEYS.len()]);
    }
    producer.flush(Duration::from_secs(60)).expect("written");
    while written.load(Ordering::Relaxed) < MESSAGES as u64 + 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

async fn ours_in(settings: &KafkaSettings, topic: &str) -> f64 {
    let all = Subscription::All { group: None, topics: vec![topic.to_owned()], from: From::Earliest };
    let (consumer, mut records) = Consumer::start(settings, "bench", all, 1024).await.expect("a consumer");
    let first = records.recv().await.expect("a message");
    let began = Instant::now();
    let mut bytes = first.payload().len();
    for _ in 0..MESSAGES {
        bytes += records.recv().await.expect("a message").payload().len();
    }
    let rate = MESSAGES as f64 / began.elapsed().as_secs_f64();
    assert!(bytes > MESSAGES && consumer.close(Duration::from_secs(10)).await);
    rate
}

/// As our consumer has it, so that neither fetches further ahead than the other.
fn raw_reading(config: &mut ClientConfig) {
    config
        .set("group.id", "bench-raw")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "32768");
}

fn raw_in(settings: &KafkaSettings, topic: &str) -> f64 {
    let mut config = raw_config(settings);
    raw_reading(&mut config);
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..settings.partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("an assignment");
    // The bytes are taken out, since nobody reads messages without that.
    let next = || loop {
        if let Some(message) = consumer.poll(Duration::from_secs(10)) {
            return message.expect("a message").payload().unwrap_or_default().to_vec().len();
        }
    };
    let mut bytes = next();
    let began = Instant::now();
    for _ in 0..MESSAGES {
        bytes += next();
    }
    assert!(bytes > MESSAGES);
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

/// The same by the tools that Kafka brings along.
fn kafkas_own(cluster: &support::Cluster, settings: &KafkaSettings) {
    let topic = format!("{}events-0", settings.prefix);
    let (brokers, count) = (settings.brokers.as_str(), MESSAGES.to_string());
    let size = payload().len().to_string();
    let compression = format!("compression.type={}", settings.compression.as_str());
    let arguments = [
        "--topic",
        &topic,
        "--num-records",
        &count,
        "--record-size",
        &size,
        "--throughput",
        "-1",
        "--bootstrap-server",
        brokers,
        "--command-property",
        "acks=all",
        &compression,
    ];
    let said = cluster.tool("org.apache.kafka.tools.ProducerPerformance", &arguments);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let last = text.lines().last().map_or_else(|| String::from_utf8_lossy(&said.stderr).into_owned(), str::to_owned);
    println!("  ProducerPerformance, random bytes: {last}");
    let arguments = [settings.brokers.as_str(), &topic, "2000", "all", &size];
    let said = cluster.tool("org.apache.kafka.tools.EndToEndLatency", &arguments);
    for line in String::from_utf8_lossy(&said.stdout)
        .lines()
        .filter(|line| line.contains("latency") || line.contains("ercentile"))
    {
        println!("  EndToEndLatency: {line}");
    }
}

/// Does nothing, at once.
struct Nothing;

impl Perform for Nothing {
    fn perform(&self, _: Task, _: StopSignal) -> std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(std::future::ready(Outcome::success(1.into())))
    }
}

/// From the hand-out of a task to its outcome in the scheduler, over the bus, one after another.
async fn step_round_trip(settings: &KafkaSettings) {
    let (sender, mut reports) = unbounded_channel();
    let (out, outbox) = unbounded_channel();
    let hub = Hub::start(Terms::default(), sender, Some(out), true);
    let bus = Bus::start(settings, BusOptions::new("bench"), &hub, outbox).await.expect("a bus");
    let options = KafkaWorkerOptions::new("bench-worker", vec!["default".to_owned()], 8);
    let worker = KafkaWorker::start(settings, options, Arc::new(Nothing), None).await.expect("a worker");
    while worker.assigned().len() < 9 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut times = Vec::new();
    for token in 1..=ROUND_TRIPS as u64 {
        let began = Instant::now();
        hub.dispatch(task(token));
        let report = reports.recv().await.expect("a report");
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        hub.answered(&report.run, &report.unit, report.token, Verdict::Recorded);
    }
    tell_times("step_round_trip: handed out to its outcome in the scheduler, one by one", times);
    worker.drain(Duration::from_secs(10)).await;
    bus.close(Duration::from_secs(10)).await;
}

/// The same with a journal in SQLite, one step of a run after another: from being ready until its outcome is recorded.
async fn durable_step(settings: &KafkaSettings) {
    let folder = Folder::new("kafka-step");
    let (out, outbox) = unbounded_channel();
    let rig = Durable::start(folder.sqlite(), |reports| Hub::start(Terms::default(), reports, Some(out), true));
    let bus = Bus::start(settings, BusOptions::new("bench-durable"), &rig.hub, outbox).await.expect("a bus");
    let options = KafkaWorkerOptions::new("bench-durable-worker", vec!["default".to_owned()], 8);
    let worker = KafkaWorker::start(settings, options, Arc::new(Nothing), None).await.expect("a worker");
    while worker.assigned().len() < 9 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, times) = rig.chains(CHAIN, ROUND_TRIPS / CHAIN, 1).await;
    let times = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    tell_times("durable_step: ready to its outcome recorded, with SQLite, one by one", times);
    worker.drain(Duration::from_secs(10)).await;
    bus.close(Duration::from_secs(10)).await;
}

/// Percentiles, without the first ones, which open connections.
fn tell_times(what: &str, mut times: Vec<f64>) {
    let mut times = times.split_off(times.len() / 10);
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let (p50, p95, p99) = (at(0.5), at(0.95), at(0.99));
    println!("{what}, {} times: p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms", times.len());
}

/// The bytes of an outcome, as a worker sends it.
fn outcome_payload() -> Vec<u8> {
    let key = LeaseKey::of(&task(1));
    let done = v1::Outcome::from(&Outcome::success(1.into()));
    encode(&outcome(header("bench-worker", None), "command".to_owned(), (&key).into(), done)).expect("a message")
}

/// The least that the same way costs: the library alone writes the bytes of a task to one topic, a second thread reads
/// them and writes the bytes of an outcome to another topic, and these are read.
async fn bare_round_trip(settings: &KafkaSettings) {
    let topics = ["there", "back"].map(|name| format!("{}{name}", settings.prefix));
    Admin::new(settings).expect("settings").ensure(&topics).await.expect("topics");
    let settings = settings.clone();
    let times = tokio::task::spawn_blocking(move || bare_times(&settings, &topics)).await.expect("figures");
    tell_times("bare_round_trip: the same bytes over two topics by the library alone", times);
}

fn bare_times(settings: &KafkaSettings, [there, back]: &[String; 2]) -> Vec<f64> {
    let producer = || {
        let mut config = raw_config(settings);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", settings.compression.as_str())
            .set("linger.ms", "1");
        let context = Count(Arc::new(AtomicU64::new(0)));
        ThreadedProducer::<Count, NoCustomPartitioner>::from_config_and_context(&config, context).expect("a producer")
    };
    let consumer = |topic: &str| {
        let mut config = raw_config(settings);
        raw_reading(&mut config);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..settings.partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&list).expect("an assignment");
        consumer
    };
    let read = |consumer: &BaseConsumer| {
        let message = consumer.poll(Duration::from_secs(20)).expect("a message in time").expect("a message");
        message.payload().unwrap_or_default().to_vec()
    };
    let write = |producer: &ThreadedProducer<Count, NoCustomPartitioner>, topic: &str, payload: &[u8]| {
        let sent = producer.send(BaseRecord::to(topic).key("run").payload(payload));
        assert!(sent.is_ok(), "there is room");
    };
    let (task, answer) = (payload(), outcome_payload());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (tasks, outcomes) = (consumer(there), producer());
            for _ in 0..ROUND_TRIPS {
                assert_eq!(read(&tasks).len(), task.len());
                write(&outcomes, back, &answer);
            }
            outcomes.flush(Duration::from_secs(10)).expect("written");
        });
        let (tasks, outcomes) = (producer(), consumer(back));
        let round = |_| {
            let began = Instant::now();
            write(&tasks, there, &task);
            assert_eq!(read(&outcomes).len(), answer.len());
            began.elapsed().as_secs_f64() * 1000.0
        };
        (0..ROUND_TRIPS).map(round).collect()
    })
}
