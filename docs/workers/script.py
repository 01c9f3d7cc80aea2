"""Does one `run` task: starts its program in a process group of its own, and says how it ended.

Both workers beside this file use it. It knows nothing of how a task came here.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

from tol.v1 import task_pb2 as v1

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
CLEAN_UP = 5.0
OUTPUT_MAX = 8 * 1024 * 1024
STDERR_MAX = 4096
LINE_MAX = 64 * 1024
MESSAGE_MAX = 10 * 1024 * 1024 - 64 * 1024


class Failed(Exception):
    """Why there is no output, and would be none the next time either."""


def key_of(key):
    """A hand-out's key as something that can be looked up."""
    return (key.run_id, key.unit, key.token)


def wire_key(key):
    """The same as a message."""
    return v1.LeaseKey(run_id=key[0], unit=key[1], token=key[2])


def now_ms():
    return int(time.time() * 1000)


class Job:
    """One hand-out in work. `line(stream, text)` gets every line that the program prints."""

    def __init__(self, task, line, root=None):
        self.task, self.root, self.line = task, root, line
        self.key = key_of(task.key)
        self._lock = threading.Lock()
        self._process = None
        self._stopped = False
        self._secrets = []

    def stop(self, now):
        """Ends the process group: at once, or with some time to clean up first."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is None:
            return
        self._signal(process, signal.SIGKILL if now else signal.SIGTERM)
        if not now:
            timer = threading.Timer(CLEAN_UP, self._signal, (process, signal.SIGKILL))
            timer.daemon = True
            timer.start()

    def run(self):
        """Does the work; gives its outcome."""
        try:
            outcome = self._attempt()
            if outcome.ByteSize() > MESSAGE_MAX:
                raise Failed(
                    f"MESSAGE_TOO_LARGE: the outcome has {outcome.ByteSize()} bytes; give a file's name instead"
                )
            return outcome
        except Failed as failure:
            return v1.Outcome(failed={"class": "permanent", "message": str(failure)})
        except Exception as error:  # A fault of the worker must not leave a task without an end.
            return v1.Outcome(failed={"class": "transient", "message": f"the worker has failed: {error!r}"})

    def _attempt(self):
        task = self.task
        kind = task.WhichOneof("work")
        if kind != "run":
            raise Failed(f"this worker does `run` only, not `{kind}`")
        script = task.run
        with tempfile.TemporaryDirectory(prefix="tol-") as scratch:
            pairs = os.path.join(scratch, "output")
            open(pairs, "w").close()
            env = self._environment(script, pairs, scratch)
            process = self._start(script, env)
            if process is None:
                return v1.Outcome(stopped={})
            out, err = self._watch(process)
            if self._stopped:
                return v1.Outcome(stopped={})
            return self._outcome(script, process.returncode, out, err, pairs)

    def _environment(self, script, pairs, scratch):
        env = {name: os.environ[name] for name in (*INHERITED, *script.inherit_env) if name in os.environ}
        env.update({one.name: self._fill(one.value) for one in script.env})
        task = self.task
        step, item = re.fullmatch(r"(.*?)(?:\[(\d+)\])?", task.key.unit, re.DOTALL).groups()
        env.update(
            TOL_RUN_ID=task.key.run_id,
            TOL_STEP=step,
            TOL_ATTEMPT=str(task.attempt),
            TOL_IDEMPOTENCY_KEY=task.idempotency_key,
            TOL_OUTPUT=pairs,
            TOL_ARTIFACTS=scratch,
        )
        if item is not None:
            env["TOL_ITEM"] = item
        return env

    def _fill(self, text):
        """A text with the values of its secrets: they are known here and nowhere on the way."""
        return "".join(self._secret(part.secret) if part.HasField("secret") else part.plain for part in text.parts)

    def _secret(self, name):
        value = os.environ.get(f"TOL_SECRET_{name}")
        folder = os.environ.get("TOL_SECRETS_DIR")
        if value is None and folder:
            try:
                with open(os.path.join(folder, os.path.basename(name)), encoding="utf-8") as file:
                    value = file.read().removesuffix("\n")
            except FileNotFoundError:
                pass
        if value is None:
            raise Failed(f"the secret `{name}` is not set on this worker")
        # A line of a secret must not be seen in a line of the log either.
        self._secrets += [part for part in (value, *value.splitlines()) if len(part) >= 4]
        return value

    def _masked(self, text):
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _start(self, script, env):
        if script.WhichOneof("command") == "argv":
            argv = list(script.argv.words)
        else:
            options = {"sh": ["-eu"], "bash": ["-euo", "pipefail"]}
            argv = [script.shell.shell, *options[script.shell.shell], "-c", script.shell.script]
        folder, theirs = script.dir, self.task.root.rstrip("/")
        if self.root and theirs and (folder == theirs or folder.startswith(theirs + "/")):
            folder = self.root + folder[len(theirs) :]
        with self._lock:
            if self._stopped:
                return None
            try:
                self._process = subprocess.Popen(
                    argv,
                    cwd=folder,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise Failed(f"cannot start `{argv[0] if argv else ''}` in {folder}: {error}") from error
            return self._process

    def _watch(self, process):
        """Reads both streams to their end, and gives what stood in them."""
        out, err = bytearray(), []

        def read(pipe, stream):
            for raw in pipe:
                text = self._masked(raw.decode(errors="replace"))
                if stream == v1.STREAM_ERR:
                    err[:] = ["".join([*err, text])[-STDERR_MAX:]]
                elif len(out) <= OUTPUT_MAX:
                    out.extend(raw)
                self.line(stream, text.rstrip("\n")[:LINE_MAX])

        readers = [
            threading.Thread(target=read, args=pair, daemon=True)
            for pair in ((process.stdout, v1.STREAM_OUT), (process.stderr, v1.STREAM_ERR))
        ]
        for reader in readers:
            reader.start()
        process.wait()
        # What the program left behind in its group holds the pipes open; it ends with the task.
        for reader in readers:
            reader.join(timeout=1)
        if any(reader.is_alive() for reader in readers):
            self._signal(process, signal.SIGKILL)
        for reader in readers:
            reader.join()
        return bytes(out), "".join(err)

    def _outcome(self, script, code, out, stderr, pairs):
        if code != 0:
            kind = "permanent" if code in script.permanent_exit_codes else "transient"
            failed = {"class": kind, "message": f"exit code {code}" if code > 0 else f"killed by signal {-code}"}
            if code > 0:
                failed["exit_code"] = code
            return v1.Outcome(failed=failed | ({"stderr": stderr} if stderr else {}))
        if len(out) > OUTPUT_MAX:
            raise Failed(f"more than {OUTPUT_MAX} bytes were printed on standard output")
        text = self._masked(out.decode(errors="replace"))
        value = json_of(text) if script.json else {"text": text.removesuffix("\n")}
        with open(pairs, encoding="utf-8", errors="replace") as file:
            extra = pairs_of(self._masked(file.read()))
        if extra and not isinstance(value, dict):
            raise Failed("standard output is no JSON object, so what was written to TOL_OUTPUT cannot be added to it")
        done = {"outputs_json": json.dumps({**value, **extra} if extra else value), "exit_code": 0}
        return v1.Outcome(succeeded=done | ({"stderr": stderr} if stderr else {}))

    @staticmethod
    def _signal(process, number):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass


def json_of(text):
    """All of standard output as JSON, else its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    for candidate in (text, lines[-1] if lines else ""):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    raise Failed("`outputs: json`: neither standard output nor its last line is JSON")


def pairs_of(text):
    """What was written to TOL_OUTPUT: a JSON object, or lines `key=value`."""
    try:
        if text.lstrip().startswith("{"):
            return json.loads(text)
        return dict(line.split("=", 1) for line in text.splitlines() if line.strip())
    except ValueError as error:
        raise Failed(
            f"what was written to TOL_OUTPUT is neither a JSON object nor `key=value` lines: {error}"
        ) from error
