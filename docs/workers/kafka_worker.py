"""A worker for `run` tasks over Kafka. See docs/workers.md for the protocol and for how to start this."""

import argparse
import logging
import os
import signal
import socket
import threading
import time
import uuid

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from script import Job, key_of, now_ms, wire_key
from tol.v1 import envelope_pb2 as v1

MESSAGE_MAX = 10 * 1024 * 1024
SLACK = 64 * 1024
HEARTBEAT = 5.0
RESEND = 10.0
GIVE_UP = 600.0
DRAIN = 30.0
REMEMBERED = 10_000
PROTOBUF = 'application/x-protobuf; messageType="tol.v1.Envelope"'
log = logging.getLogger("worker")


def settings():
    """How the cluster is reached, from the same variables as `tol`."""
    names = {
        "KAFKA_BROKERS": "bootstrap.servers",
        "KAFKA_SECURITY_PROTOCOL": "security.protocol",
        "KAFKA_SASL_MECHANISM": "sasl.mechanism",
        "KAFKA_SASL_USERNAME": "sasl.username",
        "KAFKA_SASL_PASSWORD": "sasl.password",
        "KAFKA_SSL_CA_LOCATION": "ssl.ca.location",
        "KAFKA_SSL_CERTIFICATE_LOCATION": "ssl.certificate.location",
        "KAFKA_SSL_KEY_LOCATION": "ssl.key.location",
    }
    return {setting: os.environ[name] for name, setting in names.items() if os.environ.get(name)} | {
        "message.max.bytes": MESSAGE_MAX + SLACK,
        "allow.auto.create.topics": False,
    }


def topics_of(queue):
    """The topics of a queue's tasks, one for each phase. Bytes that a topic may not have are written in hexadecimal."""
    plain = "".join(chr(b) if chr(b).isalnum() and b < 128 or b == 45 else f"_{b:02x}" for b in queue.encode())
    suffix = "" if queue == "default" else f".{plain}"
    return [f"event-task.{phase}{suffix}" for phase in ("planning", "execution", "synthesis")]


class Worker:
    def __init__(self, options):
        self.options = options
        self.prefix = os.environ.get("KAFKA_TOPIC_PREFIX", "")
        self.lock = threading.Lock()
        self.jobs = {}
        # By key: the outcome's message, when it was first sent, and when last.
        self.outcomes = {}
        self.seen = {}
        self.stops = {}
        self.backlog = []
        self.ending = threading.Event()
        self.over = threading.Event()
        common = settings() | {"client.id": options.name}
        self.producer = Producer(
            common | {"enable.idempotence": True, "acks": "all", "compression.type": "zstd", "linger.ms": 1}
        )
        # One for each topic, in a group of its own: so each topic is spread evenly over the workers.
        topics = [self.prefix + topic for topic in topics_of(options.queue)]
        self.tasks = {topic: Consumer(common | self.member_of(topic)) for topic in topics}
        self.control = Consumer(common | {"group.id": f"tol-control-{options.name}", "enable.auto.commit": False})

    def member_of(self, topic):
        """The settings of a consumer of tasks."""
        return {
            # With a name of its own a worker keeps its partitions when it is started again within 10 s.
            "group.id": f"tol-worker-{topic}",
            "group.instance.id": self.options.name,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "auto.offset.reset": "earliest",
            # The scheduler makes the topics of a queue when it first needs them.
            "topic.metadata.refresh.interval.ms": 5_000,
            # Offsets are stored by hand: when the scheduler knows that the task is here.
            "enable.auto.offset.store": False,
            "auto.commit.interval.ms": 500,
        }

    # --- what is said

    def send(self, topic, key, envelope, headers=(), value=None):
        value = envelope.SerializeToString() if value is None else value
        headers = [("content-type", PROTOBUF), *headers]
        while True:
            try:
                self.producer.produce(self.prefix + topic, key=key, value=value, headers=headers)
                break
            except BufferError:  # The brokers are slow or away: whoever speaks waits.
                self.producer.poll(0.5)
        self.producer.poll(0)

    def envelope(self, kind, **fields):
        return v1.Envelope(
            version="1.0.0",
            id=str(uuid.uuid4()),
            type=kind,
            timestamp_ms=now_ms(),
            priority=v1.PRIORITY_MEDIUM,
            **({"from": self.options.name} | fields),
        )

    def heartbeat(self):
        """Says what is in work. True once the brokers have it."""
        with self.lock:
            held = [wire_key(key) for key in {*self.jobs, *self.outcomes}]
            free = max(0, self.options.concurrency - len(self.jobs))
        beat = {"worker": self.options.name, "leases": held, "free": free, "sent_at_ms": now_ms()}
        envelope = self.envelope(v1.MESSAGE_TYPE_HEARTBEAT, heartbeat=beat)
        self.send("event-agent.heartbeat", self.options.name, envelope)
        return self.producer.flush(10) == 0

    def line(self, task, stream, text):
        line = {"key": task.key, "attempt": task.attempt, "stream": stream, "text": text, "at_ms": now_ms()}
        self.send("event-task.log", task.key.run_id, self.envelope(v1.MESSAGE_TYPE_DATA, log={"lines": [line]}))

    def say_outcome(self, command, task, outcome):
        """Sends an outcome, and keeps it until a scheduler answers."""
        envelope = self.envelope(v1.MESSAGE_TYPE_RESPONSE, correlation_id=command, key=task.key, outcome=outcome)
        now = time.monotonic()
        with self.lock:
            self.outcomes[key_of(task.key)] = (envelope, now, now)
            self.jobs.pop(key_of(task.key), None)
        self.send("event-task.outcome", task.key.run_id, envelope)

    def resend(self):
        now = time.monotonic()
        with self.lock:
            self.outcomes = {key: kept for key, kept in self.outcomes.items() if now - kept[1] < GIVE_UP}
            due = {key: kept for key, kept in self.outcomes.items() if now - kept[2] >= RESEND}
            self.outcomes.update({key: (kept[0], kept[1], now) for key, kept in due.items()})
        for key, (envelope, _, _) in due.items():
            self.send("event-task.outcome", key[0], envelope)

    def beat(self):
        while not self.over.wait(HEARTBEAT):
            self.heartbeat()
            self.resend()

    # --- what is heard

    def listen(self):
        """Stops and receipts: every worker reads all of them, from when it began."""
        topic = self.prefix + "event-task.control"
        partitions = self.control.list_topics(topic, timeout=15).topics[topic].partitions
        self.control.assign([TopicPartition(topic, partition, OFFSET_END) for partition in partitions])
        while not self.over.is_set():
            record = self.control.poll(0.2)
            if record is None or record.error():
                continue
            try:
                self.hear(v1.Envelope.FromString(record.value()))
            except Exception as error:
                log.warning("a message of the control topic cannot be read: %s", error)

    def hear(self, envelope):
        if envelope.HasField("to") and envelope.to != self.options.name:
            return
        key, kind = key_of(envelope.key), envelope.WhichOneof("payload")
        if kind == "stop":
            with self.lock:
                job = self.jobs.get(key)
                self.remember(self.stops, key)
            if job:
                job.stop(envelope.stop.now)
        elif kind == "receipt" and envelope.receipt.verdict in (v1.VERDICT_RECORDED, v1.VERDICT_STALE):
            with self.lock:
                self.outcomes.pop(key, None)

    @staticmethod
    def remember(keys, key):
        keys[key] = None
        while len(keys) > REMEMBERED:
            del keys[next(iter(keys))]

    # --- work

    def take(self, record):
        """Takes one record of a task topic. Its offset is stored as soon as nobody else needs to read it."""
        try:
            envelope = v1.Envelope.FromString(record.value())
            if envelope.version.split(".")[0] != "1" or envelope.WhichOneof("payload") != "task":
                raise ValueError(f"no task, or another version: `{envelope.version}`")
        except Exception as error:
            self.dead_letter(record, f"it cannot be read: {error}")
            return
        task, key = envelope.task, key_of(envelope.task.key)
        expired = envelope.HasField("ttl_ms") and envelope.timestamp_ms + envelope.ttl_ms < now_ms()
        able = set(task.requires) <= set(self.options.capability)
        with self.lock:
            known = key in self.jobs or key in self.outcomes or key in self.seen or key in self.stops
            if not expired and able and not known:
                job = Job(task, lambda stream, text: self.line(task, stream, text), self.options.root)
                self.jobs[key] = job
                self.remember(self.seen, key)
        if expired or known or not able:
            # Nobody has a lease for it: the scheduler sends it again if it is still wanted.
            self.tasks[record.topic()].store_offsets(record)
            return
        if not self.lease(record, task.once):
            with self.lock:
                del self.jobs[key], self.seen[key]
            return
        threading.Thread(target=self.work, args=(envelope.id, job), daemon=True).start()

    def lease(self, record, once):
        """True if the work may begin: from the heartbeat on, the scheduler notices when it is lost."""
        if not self.heartbeat():
            self.again(record)
            return False
        if not once:
            self.tasks[record.topic()].store_offsets(record)
            return True
        try:
            # It must not begin twice, so nobody may ever read it again: the commit is waited for.
            committed = self.tasks[record.topic()].commit(message=record, asynchronous=False)
            return all(partition.error is None for partition in committed)
        except KafkaException as error:
            log.warning("left, because its offset cannot be committed: %s", error)
            return False

    def work(self, command, job):
        log.info("%s %s: attempt %s", job.key[0], job.key[1], job.task.attempt)
        outcome = job.run()
        if not (outcome.HasField("stopped") and self.over.is_set()):
            self.say_outcome(command, job.task, outcome)

    def dead_letter(self, record, reason):
        source = f"{record.topic()}/{record.partition()}/{record.offset()}"
        log.warning("dead letter %s: %s", source, reason)
        headers = [("reason", reason), ("source", source), ("attempts", "1"), ("worker", self.options.name)]
        topic = record.topic().removeprefix(self.prefix) + ".dlq"
        self.send(topic, record.key(), None, headers, value=record.value())
        report = {"code": "UNDECODABLE", "message": reason, "source": source}
        self.send("event-system.error", self.options.name, self.envelope(v1.MESSAGE_TYPE_ERROR, error=report))
        if self.producer.flush(10) == 0:
            self.tasks[record.topic()].store_offsets(record)
        else:
            self.again(record)

    def again(self, record):
        """Goes back to a record, and leaves what came behind it: no offset may be stored before its own."""
        place = TopicPartition(record.topic(), record.partition(), record.offset())
        self.lost(None, [place])
        self.tasks[place.topic].seek(place)

    def lost(self, _, partitions):
        """What waits here of partitions that are another worker's now is that one's to do."""
        gone = {(partition.topic, partition.partition) for partition in partitions}
        self.backlog = [record for record in self.backlog if (record.topic(), record.partition()) not in gone]

    def run(self):
        for topic, tasks in self.tasks.items():
            tasks.subscribe([topic], on_revoke=self.lost, on_lost=self.lost)
        for loop in (self.beat, self.listen):
            threading.Thread(target=loop, daemon=True).start()
        ends_at, is_paused = None, False
        while True:
            if self.ending.is_set() and ends_at is None:
                ends_at = time.monotonic() + DRAIN
            with self.lock:
                is_idle = not self.jobs and not self.outcomes
                is_full = len(self.jobs) >= self.options.concurrency or ends_at is not None
            if ends_at and (is_idle or time.monotonic() >= ends_at):
                break
            while self.backlog and not is_full:
                self.take(self.backlog.pop(0))
                is_full = len(self.jobs) >= self.options.concurrency
            # Polling goes on while nothing is taken, or the group would take the partitions away.
            for tasks in self.tasks.values():
                if is_full or is_paused:
                    (tasks.pause if is_full else tasks.resume)(tasks.assignment())
                record = tasks.poll(0.03)
                if record is None:
                    continue
                if record.error():
                    if record.error().code() != KafkaError._PARTITION_EOF:
                        log.warning("%s", record.error())
                    continue
                self.backlog.append(record)
            is_paused = is_full
        # What is still in work is for the scheduler to see as lost: nothing is said of it.
        self.over.set()
        for job in list(self.jobs.values()):
            job.stop(now=True)
        self.producer.flush(3)
        for tasks in self.tasks.values():
            tasks.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--capability", action="append", default=[])
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--name", default=f"python-{socket.gethostname()}-{os.getpid()}")
    parser.add_argument("--root", help="where the scheduler's project lies here, if not at the same path")
    worker = Worker(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.ending.set())
    worker.run()


if __name__ == "__main__":
    main()
