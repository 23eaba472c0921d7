"""A guest in a QEMU of its own, and the keeper's side of the wire to it."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

import wire

BUILD = os.environ.get("HUSK_BUILD") or os.path.join(wire.HERE, "..", "..", "build")
# As src/hyper/qemu_args.def has them.
CPU = os.environ.get("HUSK_TEST_CPU", "max,-erms,-fsrm,-smap,-pku,-pks,-la57,family=6,model=6,stepping=3")
APPEND = ("console=ttyS0 quiet loglevel=4 panic=-1 cryptomgr.notests random.trust_cpu=on tsc=reliable "
          "no_timer_check nokaslr mitigations=off init_on_alloc=0 randomize_kstack_offset=off psi=0 "
          "noautogroup audit=0 lsm=landlock,yama swiotlb=noforce "
          "initcall_blacklist=tracer_init_tracefs")


def tsc_khz():
    """microvm under TCG has no clock that the kernel could measure the TSC with; it is the host's."""
    for line in open("/proc/cpuinfo"):
        if line.startswith("cpu MHz"):
            return int(float(line.split(":")[1]) * 1000)
    return 1000000


MACHINES = {
    "q35": (["-machine", "q35,accel=tcg", "-device", "virtio-serial-pci"], "pci"),
    "microvm": (["-machine", "microvm,accel=tcg",
                 "-global", "virtio-mmio.force-legacy=false",
                 "-device", "virtio-serial-device"], "device"),
}


class Stream:
    """What came of one process of the guest."""

    def __init__(self):
        self.out, self.err = bytearray(), bytearray()
        self.ended, self.exited = set(), None
        self.credit = 0     # that the guest gave us
        self.quota = None   # None: grant what was read at once; else a number that is left
        self.received = 0
        self.last = 0.0


class Guest:
    def __init__(self, machine="q35", memory=256, disks=(), cpus=1, extra=(), ram=None, state=None):
        """disks: [(serial, path, read_only)] on virtio-blk; (lun, path, read_only) on SCSI. ram: a
        file that is the guest's memory. state: of the devices of a template whose memory that is;
        the guest is then a clone, stopped until awake()."""
        self.dir = tempfile.mkdtemp(prefix="husk-guest-")
        self.buffer, self.streams, self.replies, self.logs = bytearray(), {}, {}, []
        self.seq, self.next_stream, self.hellos, self.sock = 0, 0, 0, None
        self.halted = False
        ours, theirs = socket.socketpair()
        self.qmp, monitor = socket.socketpair()
        args, bus = MACHINES[machine]
        if ram:
            share = "off" if state else "on"
            args = [args[0], args[1] + ",memory-backend=ram", *args[2:], "-object",
                    f"memory-backend-file,id=ram,size={memory}M,mem-path={ram},share={share}"]
        if state:
            args += ["-incoming", "defer"]
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none", "-cpu", CPU, "-m", str(memory), "-smp", str(cpus), *args,
            "-kernel", f"{BUILD}/guest/vmlinux", "-initrd", f"{BUILD}/guest/initramfs.cpio",
            "-append", APPEND + (f" tsc_early_khz={tsc_khz()}" if machine == "microvm" else ""),
            "-serial", f"file:{self.dir}/console",
            "-chardev", f"socket,id=agent,fd={theirs.fileno()}",
            "-device", "virtserialport,chardev=agent,name=husk.agent",
            "-chardev", f"socket,id=monitor,fd={monitor.fileno()}",
            "-mon", "chardev=monitor,mode=control",
            "-object", "rng-random,id=rng,filename=/dev/urandom",
            "-device", f"virtio-rng-{bus},rng=rng", *extra,
        ]
        scsi = False
        for n, (name, path, read_only) in enumerate(disks):
            ro = "on" if read_only else "off"
            command += ["-drive", f"if=none,id=d{n},format=raw,file={path},read-only={ro},"
                                  "file.locking=off"]
            if isinstance(name, int):
                command += [] if scsi else ["-device", f"virtio-scsi-{bus},id=scsi"]
                command += ["-device", f"scsi-hd,drive=d{n},bus=scsi.0,lun={name}"]
                scsi = True
            else:
                command += ["-device", f"virtio-blk-{bus},drive=d{n},serial={name}"]
        self.started = time.monotonic()
        with open(f"{self.dir}/qemu.log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log,
                                            pass_fds=[theirs.fileno(), monitor.fileno()])
        theirs.close()
        monitor.close()
        self.sock, self.state = ours, state
        ours.settimeout(0.05)
        self.qmp.settimeout(60)
        self.qmp_file = self.qmp.makefile("r")
        self.qmp_ready = False
        if ram:
            self.command("migrate-set-capabilities", capabilities=[
                {"capability": "x-ignore-shared", "state": True}])
        if not state:
            ours.sendall(wire.MAGIC + wire.message("HELLO", version=1, lowest=1, role="keeper"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        self.qmp_file.close()
        self.qmp.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir)

    def console(self):
        with open(f"{self.dir}/console", errors="replace") as f:
            return f.read()

    # ---- the machine ----

    def command(self, name, **arguments):
        """One command of QMP; its result."""
        if not self.qmp_ready:
            self.qmp_ready = True
            self.qmp_file.readline()
            self.command("qmp_capabilities")
        line = json.dumps({"execute": name, "arguments": arguments}) + "\n"
        self.qmp.sendall(line.encode())
        while True:
            answer = json.loads(self.qmp_file.readline())
            assert "error" not in answer, (name, answer["error"])
            if "return" in answer:
                return answer["return"]

    def migrated(self, deadline=30):
        end = time.monotonic() + deadline
        while (status := self.command("query-migrate").get("status")) != "completed":
            assert status != "failed" and time.monotonic() < end, f"migration: {status}"
            time.sleep(0.002)

    def freeze(self, state):
        """The guest becomes a template: its memory is in the file `ram`, its devices in `state`."""
        reply = self.request("FREEZE")
        assert not reply["failed"], reply
        self.command("stop")
        self.command("migrate", uri=f"exec:cat >{state}")
        self.migrated()
        self.command("quit")
        self.process.wait(30)

    def awake(self, machine_id, boot_id, entropy=None):
        """A clone begins to run, and becomes another one than its twins."""
        self.sock.sendall(wire.MAGIC)
        seq = self.request("AWAKE", wait=False, machine_id=machine_id, boot_id=boot_id,
                           entropy=entropy or os.urandom(64), time_ns=time.time_ns())
        self.command("migrate-incoming", uri=f"exec:cat {self.state}")
        self.migrated()
        self.command("cont")
        return self.reply(seq, "AWAKE")

    # ---- reading ----

    def pump(self):
        """Reads what there is, for at most 50 ms."""
        try:
            data = self.sock.recv(1 << 20)
        except socket.timeout:
            return
        except ConnectionError:
            data = b""
        if not data:
            time.sleep(0.02)
            return
        self.buffer += data
        self.take_frames()

    def take_frames(self):
        at, buffer = 0, self.buffer
        while len(buffer) - at >= 16 or (len(buffer) - at >= 12 and buffer[at] != 0xff):
            if buffer[at:at + 16] == wire.MAGIC:
                at += 16
                continue
            size = int.from_bytes(buffer[at:at + 4], "little")
            if len(buffer) - at < 12 + size:
                break
            kind = int.from_bytes(buffer[at + 4:at + 6], "little")
            stream = int.from_bytes(buffer[at + 8:at + 12], "little")
            with memoryview(buffer) as view:
                payload = view[at + 12:at + 12 + size]
                self.handle(wire.NAMES[kind], stream, payload)
                payload.release()
            at += 12 + size
        del buffer[:at]

    def handle(self, name, number, payload):
        stream = self.streams.get(number)
        if name in ("STDOUT", "STDERR"):
            self.handle_data(name, number, stream, payload)
            return
        m = wire.unpack(name, bytes(payload))
        if name == "HELLO":
            self.hellos += 1
            self.hello_time = time.monotonic() - self.started
        elif name == "REPLY":
            self.replies[m["seq"]] = m
        elif name == "CREDIT":
            stream.credit += m["bytes"]
        elif name == "EXITED":
            assert stream.ended == {"STDOUT", "STDERR"}, f"EXITED before the ends: {stream.ended}"
            stream.exited = m
        elif name == "HALTED":
            self.halted = True
        elif name == "GUEST_LOG":
            self.logs.append(m["line"])

    def handle_data(self, name, number, stream, payload):
        if not len(payload):
            stream.ended.add(name)
            return
        assert name not in stream.ended, "data after the end of its channel"
        stream.received += len(payload)
        stream.last = time.monotonic()
        if stream.quota is None:
            keep = stream.out if name == "STDOUT" else stream.err
            if len(keep) < 8 << 20:
                keep += payload
            self.grant(number, name, len(payload))

    def until(self, true, what, deadline=30):
        end = time.monotonic() + deadline
        while not true():
            self.pump()
            assert time.monotonic() < end, f"deadline: {what}\n{self.console()[-2000:]}"

    # ---- requests ----

    def send(self, data):
        end, data = time.monotonic() + 30, memoryview(data)
        while data:
            assert time.monotonic() < end, "deadline: the guest does not read"
            try:
                data = data[self.sock.send(data):]
            except socket.timeout:
                self.pump()

    def grant(self, number, name, size):
        self.send(wire.message("CREDIT", number, channel=wire.MESSAGES[name][0], bytes=size))

    def request(self, name, stream=0, wait=True, **values):
        self.seq += 1
        seq = self.seq
        self.send(wire.message(name, stream, seq=seq, **values))
        return self.reply(seq, name) if wait else seq

    def reply(self, seq, what="reply", deadline=30):
        self.until(lambda: seq in self.replies, what, deadline)
        return self.replies.pop(seq)

    def hello(self, deadline=60):
        self.until(lambda: self.hellos, "hello", deadline)
        return self.hello_time

    def setup(self, **values):
        values.setdefault("hostname", "pod-a")
        values.setdefault("time_ns", time.time_ns())
        reply = self.request("POD_SETUP", entropy=os.urandom(64), **values)
        assert not reply["failed"], reply

    def begin(self, name, quota=None, wait=True, **values):
        """Starts a process: (its stream number, the reply)."""
        self.next_stream += 1
        number = self.next_stream
        self.streams[number] = stream = Stream()
        stream.quota = quota
        result = self.request(name, number, wait=wait, **values)
        for channel in ("STDOUT", "STDERR"):
            if quota is None or quota:
                self.grant(number, channel, wire.WINDOW if quota is None else quota)
        return number, result

    def stdin(self, number, data):
        """Sends input as the guest gives credit; None ends it."""
        stream = self.streams[number]
        if data is None:
            self.send(wire.frame("STDIN", number))
            return
        data = memoryview(data)
        while data:
            self.until(lambda: stream.credit, "credit for input")
            size = min(len(data), stream.credit, wire.DATA_MAX)
            stream.credit -= size
            self.send(wire.frame("STDIN", number, bytes(data[:size])))
            data = data[size:]

    def ended(self, number, deadline=30):
        stream = self.streams[number]
        self.until(lambda: stream.exited, "exit", deadline)
        return stream
