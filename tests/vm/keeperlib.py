"""A keeper, and huskd's side of the wire to it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import wire

BUILD = os.environ.get("HUSK_BUILD") or os.path.join(wire.HERE, "..", "..", "build")
PATIENCE = 90
RAW, STDCOPY = 0, 1
CTR = {n: (n * 64)[:64] for n in "abcdef"}


class Refused(Exception):
    pass


class Control:
    """A connection to a keeper."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.buffer, self.seq, self.replies = bytearray(), 0, {}
        self.vm, self.ctrs, self.execs, self.events = [], [], [], []
        self.sock.sendall(wire.MAGIC + wire.message("HELLO", version=1, lowest=1, role="huskd"))
        self.synced = False

    def close(self):
        self.sock.close()

    def send(self, name, /, fd=None, **values):
        if any(f == "seq" for _, f in wire.MESSAGES[name][1]):
            self.seq += 1
            values["seq"] = self.seq
        data = wire.message(name, **values)
        if fd is None:
            self.sock.sendall(data)
            return self.seq
        data = data[:6] + b"\1\0" + data[8:]  # WIRE_FLAG_FD
        sent = socket.send_fds(self.sock, [data], [fd])
        self.sock.sendall(data[sent:])
        return self.seq

    def took(self, name, values):
        if name == "REPLY":
            self.replies[values["seq"]] = values
        elif name == "VM_STATE":
            self.vm.append(values)
        elif name == "CTR_STATE":
            self.ctrs.append(values)
        elif name == "EXEC_STATE":
            self.execs.append(values)
        elif name == "VM_EVENT":
            self.events.append(values)

    def read(self, deadline):
        self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = self.sock.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            raise AssertionError("nothing came in time")
        if not data:
            raise EOFError("the keeper closed the connection")
        self.buffer += data
        if not self.synced and wire.MAGIC in self.buffer:
            del self.buffer[:self.buffer.index(wire.MAGIC) + 16]
            self.synced = True
        while self.synced and len(self.buffer) >= 12:
            size = int.from_bytes(self.buffer[:4], "little")
            if len(self.buffer) < 12 + size:
                break
            name = wire.NAMES[int.from_bytes(self.buffer[4:6], "little")]
            self.took(name, wire.unpack(name, bytes(self.buffer[12:12 + size])))
            del self.buffer[:12 + size]

    def until(self, true, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while not true():
            self.read(deadline)
        return true()

    def wait(self, seq, patience=PATIENCE):
        reply = self.until(lambda: self.replies.get(seq), patience)
        if reply["failed"]:
            raise Refused(reply["message"])
        return reply

    def ask(self, name, /, patience=PATIENCE, **values):
        return self.wait(self.send(name, **values), patience)

    def ended(self, ctr, run=1):
        find = lambda: [c for c in self.ctrs if c["ctr"] == ctr and c["run"] == run and c["ended"]]
        return self.until(find)[-1]

    def exec_ended(self, exec_):
        find = lambda: [e for e in self.execs if e["exec"] == exec_ and e["ended"]]
        return self.until(find)[-1]


class Keeper:
    def __init__(self, machine="q35", accel="tcg", **boot):
        self.dir = tempfile.mkdtemp(prefix="husk-keeper-")
        self.path = f"{self.dir}/keeper.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(8)
        self.log = open(f"{self.dir}/keeper.log", "wb")
        program = os.path.abspath(f"{BUILD}/husk-keeper")

        # A shell puts the listener where the keeper looks for it.
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$0" vm-test 3<&0 </dev/null', program], cwd=self.dir,
            stdin=listener, stdout=self.log, stderr=self.log, start_new_session=True)
        listener.close()
        self.control = Control(self.path)
        self.settings = dict(
            vm="vm-test", machine=machine, accel=accel, cpus=1, memory_bytes=256 << 20,
            qemu="/usr/bin/qemu-system-x86_64", kernel=os.path.abspath(f"{BUILD}/guest/vmlinux"),
            initrd=os.path.abspath(f"{BUILD}/guest/initramfs.cpio"), append="", user="", disks=[],
            memory_return=1, module=os.path.abspath(f"{BUILD}/husk-qemu.so"),
            boot_deadline_ms=60000)
        self.settings.update(boot)

    def boot(self, **more):
        start = time.monotonic()
        self.control.ask("VM_BOOT", **{**self.settings, **more})
        return time.monotonic() - start

    def place(self):
        self.control.ask("POD_PLACE", pod="pod-1", hostname="web")

    def reconnect(self):
        self.control.close()
        self.control = Control(self.path)
        return self.control

    def file(self, name):
        return f"{self.dir}/{name}"

    def layer(self, name):
        path = self.file(name)
        with open(path, "wb") as f:
            f.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, stdin=subprocess.DEVNULL)
        return path

    def run(self, ctr, argv, image, layer, flags=0, run=1, name="web", **more):
        return self.control.ask("RUN", **{**dict(
            ctr=ctr, run=run, name=name, image_path=image, layer_path=layer,
            log_path=self.file(f"{name}.log"), argv=argv, env=["PATH=/bin"], cwd="/", user="",
            flags=flags), **more})

    def logged(self, name="web", stream=None):
        lines = [json.loads(line) for line in open(self.file(f"{name}.log"))]
        return "".join(x["log"] for x in lines if stream in (None, x["stream"]))

    def attach(self, ctr, framing=STDCOPY, **more):
        ours, theirs = socket.socketpair()
        self.control.ask("ATTACH", ctr=ctr, framing=framing, fd=theirs.fileno(), **more)
        theirs.close()
        return Client(ours, framing)

    def exec(self, id_, ctr, argv, framing=STDCOPY, flags=0, wait=True, **more):
        ours, theirs = socket.socketpair()
        seq = self.control.send("EXEC_START", exec=id_, ctr=ctr, argv=argv, flags=flags,
                                framing=framing, fd=theirs.fileno(), **more)
        theirs.close()
        if wait:
            self.control.wait(seq)
        return Client(ours, framing)

    def qemu(self):
        return self.control.vm[-1]["qemu_pid"]

    def end(self):
        """True if the keeper ended by itself."""
        try:
            self.control.send("VM_OFF", grace_ms=2000)
            self.control.until(lambda: self.control.vm and self.control.vm[-1]["state"] == 2, 20)
            self.control.send("DISMISS")
            return self.process.wait(20) == 0
        except (OSError, EOFError, AssertionError, subprocess.TimeoutExpired):
            return False

    def clean(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)
        self.control.close()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Client:
    """Who ran `husk exec` or `husk attach`."""

    def __init__(self, sock, framing):
        self.sock, self.framing = sock, framing
        self.out, self.err, self.raw = bytearray(), bytearray(), bytearray()
        sock.settimeout(PATIENCE)

    def send(self, data):
        self.sock.sendall(data)

    def end_input(self):
        self.sock.shutdown(socket.SHUT_WR)

    def feed(self, data):
        if self.framing == RAW:
            self.out += data
            return
        self.raw += data
        while len(self.raw) >= 8:
            size = int.from_bytes(self.raw[4:8], "big")
            if len(self.raw) < 8 + size:
                return
            assert self.raw[0] in (1, 2) and self.raw[1:4] == b"\0\0\0", self.raw[:8]
            (self.out if self.raw[0] == 1 else self.err).extend(self.raw[8:8 + size])
            del self.raw[:8 + size]

    def until(self, text):
        while text not in self.out:
            data = self.sock.recv(1 << 18)
            assert data, f"ended before {text!r}: {bytes(self.out)!r}"
            self.feed(data)

    def rest(self):
        """All until the keeper closes the connection: (stdout, stderr)."""
        while data := self.sock.recv(1 << 18):
            self.feed(data)
        self.sock.close()
        assert not self.raw
        return bytes(self.out), bytes(self.err)


def open_files(pid):
    """What a process has open: its descriptors' paths in /proc, and what they lead to."""
    files = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{number}"
        try:
            files[path] = os.readlink(path)
        except FileNotFoundError:
            continue  # closed meanwhile
    return files


def lives(pid):
    """Whether it has not ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf8") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def make_image(path):
    """An erofs with Debian's static busybox."""
    tree = tempfile.mkdtemp(prefix="husk-image-")
    for name in ("bin", "tmp", "etc", "proc", "dev", "root"):
        os.mkdir(f"{tree}/{name}")
    shutil.copy("/bin/busybox", f"{tree}/bin/busybox")
    for applet in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
        if applet != "busybox":
            os.symlink("busybox", f"{tree}/bin/{applet}")
    with open(f"{tree}/etc/passwd", "w") as f:
        f.write("root:x:0:0:root:/root:/bin/sh\n")
    with open(f"{tree}/bin/text", "w") as f:
        f.write("not a program\n")
    subprocess.run(["mkfs.erofs", "--quiet", path, tree], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return path
