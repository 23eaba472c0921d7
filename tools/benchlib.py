"""What tools/bench and its parts share: the rows, times, and a private daemon."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
QUICK = "--quick" in sys.argv
RUNS = 3 if QUICK else 9      # of what takes seconds, or matters less
STEP_LIMIT_S = 300

rows = []  # (what, figure, goal)


def row(what, figure, goal=""):
    rows.append((what, figure, goal))
    print(f"{what:58} {figure:>28}  {goal}", flush=True)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def spread(seconds):
    ms = [1000 * s for s in seconds]
    return f"{percentile(ms, 0.5):.0f} ms ({min(ms):.0f}–{max(ms):.0f})"


def timed_whole(command, **more):
    """How long a command took, its output and its errors."""
    start = time.monotonic()
    done = subprocess.run(command, timeout=STEP_LIMIT_S, stdin=more.pop("stdin", subprocess.DEVNULL),
                          capture_output=True, **more)
    took = time.monotonic() - start
    errors = done.stderr.decode("utf8", "replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit status {done.returncode}: "
                           f"{errors.strip()[-400:]}")
    return took, done.stdout.decode("utf8", "replace"), errors


def timed(command, **more):
    return timed_whole(command, **more)[:2]


def mib(kib):
    return f"{kib / 1024:.1f} MiB" if kib < 10240 else f"{kib / 1024:.0f} MiB"


def settle(condition, what):
    deadline = time.monotonic() + STEP_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} after {STEP_LIMIT_S} s")
        time.sleep(0.05)


def run_once(command, **more):
    """`command` prints a byte: seconds to that, and of the whole."""
    start = time.monotonic()
    child = subprocess.Popen([*command, "echo", "x"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, **more)
    byte = os.read(child.stdout.fileno(), 1)
    first = time.monotonic() - start
    _, errors = child.communicate(timeout=STEP_LIMIT_S)
    whole = time.monotonic() - start
    if child.returncode or byte != b"x":
        raise RuntimeError(f"{' '.join(command)}: exit status {child.returncode}: "
                           f"{errors.decode('utf8', 'replace').strip()[-400:]}")
    return first, whole


# ---- a daemon --------------------------------------------------------------------------------


class Husk:
    """A private daemon with further settings, and its command."""

    def __init__(self, build, directory, *settings):
        directory.mkdir()
        self.directory = directory
        self.program = str(build / "husk")
        self.environment = dict(os.environ, HUSK_SOCKET=str(directory / "husk.sock"))
        self.log = open(directory / "huskd.log", "wb")
        self.daemon = subprocess.Popen(
            [str(build / "huskd"), "--root", str(directory / "root"), "--socket",
             self.environment["HUSK_SOCKET"], "--on_exit", "stop", "--exit_deadline", "120s", *settings],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.daemon.poll() is None:
            with contextlib.suppress(RuntimeError):
                if self("images", "-q")[1].strip():
                    return
            time.sleep(0.05)
        self.close()
        raise RuntimeError("the daemon is not ready: " +
                           Path(self.log.name).read_text()[-1000:])

    def __call__(self, *words, **more):
        return timed([self.program, *words], env=self.environment, **more)

    def says(self, *words):
        return timed_whole([self.program, *words], env=self.environment)

    def json(self, *words):
        return json.loads(self(*words, "-o", "json")[1])

    def close(self):
        """Ends it, and its pods; once is enough."""
        if self.daemon.poll() is not None:
            return
        self.daemon.send_signal(signal.SIGTERM)
        try:
            self.daemon.wait(180)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        self.log.close()


def program_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().rsplit("/", 1)[-1]
