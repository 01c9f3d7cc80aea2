"""A worker for `run` tasks over gRPC. See docs/workers.md for the protocol and for how to start this."""

import argparse
import logging
import os
import queue
import random
import signal
import socket
import threading
import time

import grpc

from script import Job, key_of, now_ms, wire_key
from tol.v1 import envelope_pb2, worker_pb2, worker_pb2_grpc

MESSAGE_MAX = 10 * 1024 * 1024
DRAIN = 30.0
OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    ("grpc.max_send_message_length", MESSAGE_MAX),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]
log = logging.getLogger("worker")


class Worker:
    """What outlives a connection: the jobs in work, and the outcomes that nobody has answered."""

    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()
        self.jobs = {}
        self.outcomes = {}
        # What is to be sent now; None while there is no session.
        self.outbox = None
        self.draining = threading.Event()

    def send(self, **message):
        """Sends, if there is a session. What must not get lost is sent again in the next one."""
        with self.lock:
            if self.outbox is not None:
                self.outbox.put(worker_pb2.FromWorker(**message))

    def held(self):
        """Everything that is still to be reported."""
        with self.lock:
            return [wire_key(key) for key in {*self.jobs, *self.outcomes}]

    def heartbeat(self):
        with self.lock:
            free = max(0, self.options.concurrency - len(self.jobs))
        self.send(heartbeat={"worker": self.options.name, "leases": self.held(), "free": free, "sent_at_ms": now_ms()})

    def begin(self, task):
        key = key_of(task.key)
        with self.lock:
            if key in self.jobs or key in self.outcomes:
                return
            job = Job(task, lambda stream, text: self.line(task, stream, text), self.options.root)
            self.jobs[key] = job
        threading.Thread(target=self.work, args=(job,), daemon=True).start()

    def work(self, job):
        log.info("%s %s: attempt %s", job.key[0], job.key[1], job.task.attempt)
        outcome = job.run()
        # The outcome is kept before the job is let go: a heartbeat in between names it all the same.
        with self.lock:
            self.outcomes[job.key] = outcome
            del self.jobs[job.key]
        self.send(report={"key": wire_key(job.key), "outcome": outcome})

    def line(self, task, stream, text):
        line = {"key": task.key, "attempt": task.attempt, "stream": stream, "text": text, "at_ms": now_ms()}
        self.send(log={"lines": [line]})

    def session(self, stub, metadata):
        """One connection, from `register` to its end."""
        outbox = queue.Queue()
        register = {
            "worker": self.options.name,
            "queues": self.options.queue,
            "capabilities": self.options.capability,
            "concurrency": self.options.concurrency,
            "leases": self.held(),
            "version": "1.0.0",
        }
        outbox.put(worker_pb2.FromWorker(register=register))
        over = threading.Event()
        call = stub.Session(iter(outbox.get, None), metadata=metadata)
        try:
            for message in call:
                kind = message.WhichOneof("message")
                if kind == "registered":
                    log.info("connected to %s", message.registered.scheduler)
                    with self.lock:
                        self.outbox = outbox
                        unanswered = dict(self.outcomes)
                    for key, outcome in unanswered.items():
                        self.send(report={"key": wire_key(key), "outcome": outcome})
                    if self.draining.is_set():
                        self.send(drain={})
                    beats = (message.registered.heartbeat_ms / 1000, over)
                    threading.Thread(target=self.beat, args=beats, daemon=True).start()
                elif kind == "task":
                    self.begin(message.task)
                elif kind == "stop":
                    with self.lock:
                        job = self.jobs.get(key_of(message.stop.key))
                    if job:
                        job.stop(message.stop.now)
                elif kind == "answer":
                    # VERDICT_UNKNOWN is no answer: another scheduler may have the run, or this one soon.
                    if message.answer.verdict in (envelope_pb2.VERDICT_RECORDED, envelope_pb2.VERDICT_STALE):
                        with self.lock:
                            self.outcomes.pop(key_of(message.answer.key), None)
                elif kind == "going_away":
                    log.info("the scheduler goes away: %s", message.going_away.reason)
                    return
        finally:
            over.set()
            with self.lock:
                self.outbox = None
            outbox.put(None)
            call.cancel()

    def beat(self, seconds, over):
        while not over.wait(seconds):
            self.heartbeat()

    def drain(self):
        """Takes nothing more; ends what is not done in time. What was stopped here is the scheduler's to try again."""
        self.draining.set()
        self.send(drain={})
        until = time.monotonic() + DRAIN
        while self.held() and time.monotonic() < until:
            time.sleep(0.1)
        with self.lock:
            # Their reports would say `stopped`, as if the scheduler had asked for it. It is to see them as lost.
            self.outbox = None
            jobs = list(self.jobs.values())
        for job in jobs:
            job.stop(now=True)


def channel(options):
    if not options.tls_ca:
        return grpc.insecure_channel(options.gateway, OPTIONS)

    def read(path):
        if not path:
            return None
        with open(path, "rb") as file:
            return file.read()

    credentials = grpc.ssl_channel_credentials(read(options.tls_ca), read(options.tls_key), read(options.tls_cert))
    return grpc.secure_channel(options.gateway, credentials, OPTIONS)


def keep_connected(worker):
    options = worker.options
    token = os.environ.get("TOL_WORKER_TOKEN") or os.environ.get("TOL_TOKEN")
    metadata = [("authorization", f"Bearer {token}")] if token else []
    wait = 0.2
    with channel(options) as connection:
        stub = worker_pb2_grpc.WorkersStub(connection)
        while True:
            began = time.monotonic()
            try:
                worker.session(stub, metadata)
            except grpc.RpcError as error:
                log.warning("%s: %s", error.code().name, error.details())
                if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                    os._exit(2)
            wait = 0.2 if time.monotonic() - began > 5 else min(wait * 2, 10)
            time.sleep(wait * random.uniform(0.5, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--queue", action="append", required=True)
    parser.add_argument("--capability", action="append", default=[])
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--name", default=f"python-{socket.gethostname()}-{os.getpid()}")
    parser.add_argument("--root", help="where the scheduler's project lies here, if not at the same path")
    parser.add_argument("--tls-ca", default=os.environ.get("TOL_TLS_CA"))
    parser.add_argument("--tls-cert", default=os.environ.get("TOL_TLS_CERT"))
    parser.add_argument("--tls-key", default=os.environ.get("TOL_TLS_KEY"))
    worker = Worker(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    threading.Thread(target=keep_connected, args=(worker,), daemon=True).start()
    ending.wait()
    worker.drain()


if __name__ == "__main__":
    main()
