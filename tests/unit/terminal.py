"""What husk does on a terminal; prints what is wrong, nothing if all is well.
terminal.py HUSK fake|real: against fake_huskd.py, or against a huskd."""
import os
import pty
import select
import signal
import sys
import termios
import time

HUSK, DAEMON = sys.argv[1:3]
DEADLINE_S = 60 if DAEMON == "real" else 20


def wrong(what, got=""):
    print(f"{what}: {got!r}" if got else what)


class Session:
    def __init__(self, *args, size=None):
        self.before = None
        self.text = b""
        self.status = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if size:
                termios.tcsetwinsize(0, size)
            os.execv(HUSK, ["husk", *args])
        self.before = termios.tcgetattr(self.fd)

    def read(self, wait_s):
        """What is there, or comes in that time, goes to text. False: nothing, or the end."""
        if not select.select([self.fd], [], [], wait_s)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        self.text += data
        return bool(data)

    def until(self, text):
        end = time.monotonic() + DEADLINE_S
        while text not in self.text and time.monotonic() < end:
            if not self.read(0.2):
                time.sleep(0.01)
        if text not in self.text:
            wrong(f"{text!r} did not come", self.text)

    def type(self, data):
        os.write(self.fd, data)

    def is_raw(self):
        return not termios.tcgetattr(self.fd)[3] & termios.ECHO

    def until_raw(self, raw):
        end = time.monotonic() + DEADLINE_S
        while self.is_raw() != raw:
            if time.monotonic() > end:
                wrong("the terminal is not " + ("raw" if raw else "restored"))
                return
            time.sleep(0.02)

    def until_stopped(self):
        """A SIGCONT before the stop that it is to end would be lost."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "T":
                    return
            time.sleep(0.02)
        wrong("husk does not stop")

    def end(self):
        """The exit status, or minus the signal; text has all that was written then."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.until_raw(False)
                while self.read(0):
                    pass
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
            if not self.read(0.05):
                time.sleep(0.01)  # an end of the terminal is readable for ever
        os.kill(self.pid, signal.SIGKILL)
        wrong("husk does not end", self.text)
        return None


s = Session("run", "-it", "--rm", "busybox", "sh", "-c", "echo ready; read x; echo got $x; exit 5")
s.until(b"ready")
s.until_raw(True)
s.type(b"word\n")
s.until(b"got word")
if (code := s.end()) != 5:
    wrong("exit status of run -it", code)

s = Session("run", "-it", "--rm", "busybox", "sh", "-c", "echo ready; sleep 60")
s.until(b"ready")
s.until_raw(True)
os.kill(s.pid, signal.SIGTERM)
if (code := s.end()) != 128 + signal.SIGTERM:
    wrong("exit status after SIGTERM", code)

s = Session("run", "-it", "--rm", "busybox", "sh", "-c", "echo ready; sleep 60")
s.until(b"ready")
s.until_raw(True)
os.kill(s.pid, signal.SIGTSTP)
s.until_raw(False)
s.until_stopped()
os.kill(s.pid, signal.SIGCONT)
s.until_raw(True)
os.kill(s.pid, signal.SIGSEGV)
if (code := s.end()) != -signal.SIGSEGV:
    wrong("exit status after a crash", code)


def ctrl_c_reaches(image):
    s = Session("run", "--rm", image, "sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done")
    s.until(b"ready")
    s.type(b"\x03")
    if (code := s.end()) != 9:
        wrong(f"exit status of {image} after ctrl-c", code)


def signalled_early():
    """The output is there, the answer to the start is not: the signal is for the process."""
    ctrl_c_reaches("early")


def detaches_in_haste():
    """A key is typed after ctrl-p ctrl-q, before the stream has ended."""
    s = Session("run", "-it", "--name", "hasty", "busybox", "sh", "-c", "echo ready; sleep 60")
    s.until(b"ready")
    s.until_raw(True)
    s.type(b"a\x10\x10\x11b")
    s.until(b"detached; ")
    if (code := s.end()) != 0:
        wrong("exit status after detaching in haste", code)


def waits():
    s = Session("run", "--rm", "--name", "a", "slow", "echo", "ready")
    s.until(b"starting pod 'a': it runs")
    s.until(b"\r\x1b[Kready")
    if (code := s.end()) != 0:
        wrong("exit status after waiting", code)


def begins():
    """What a process sees and writes at once."""
    for _ in range(5):
        s = Session("run", "-it", "--rm", "busybox", "stty", "size", size=(30, 100))
        if (code := s.end()) != 0 or b"30 100\r\n" not in s.text or b"\r\r" in s.text:
            wrong(f"the size at the start, status {code}", s.text)


def sizes():
    s = Session("run", "-it", "--rm", "busybox", "sh", "-c",
                "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done")
    s.until(b"ready")
    s.until_raw(True)
    for rows, columns in ((33, 101), (44, 55)):
        termios.tcsetwinsize(s.fd, (rows, columns))
        s.until(b"%d %d" % (rows, columns))
    os.kill(s.pid, signal.SIGTERM)
    s.end()


def detaches():
    s = Session("run", "-it", "--name", "detached", "busybox", "sh", "-c", "echo ready; read x; exit 6")
    s.until(b"ready")
    s.until_raw(True)
    s.type(b"\x10\x11")
    s.until(b"detached; ")
    if (code := s.end()) != 0:
        wrong("exit status after detaching", code)
    s = Session("attach", "detached")
    s.until_raw(True)
    s.type(b"\n")
    if (code := s.end()) != 6:
        wrong("exit status of attach", code)


ctrl_c_reaches("busybox")
for test in [waits, signalled_early, detaches_in_haste] if DAEMON == "fake" else [begins, sizes, detaches]:
    test()
