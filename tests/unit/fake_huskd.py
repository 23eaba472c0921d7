"""A stand-in for huskd, for tests of the command line: the routes of docs/api.md that husk uses,
with processes of this host in place of containers. fake_huskd.py SOCKET"""
import json
import os
import re
import select
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

PODS = {}  # id -> {"spec", "process", "code", "started"}
EXECS = {}
CALLS = []  # what was asked, for /calls
LOCK = threading.Condition()


class Refusal(Exception):
    def __init__(self, status, kind, message):
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message


def pod_of(name):
    for pod, entry in PODS.items():
        if name in (pod, entry["cid"]):
            return entry
    raise Refusal(404, "not_found", f"container '{name}' does not exist")


SPAWNED = []


def command_of(spec):
    return spec["containers"][0].get("command") or ["true"]


def spawn(command, tty=False):
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT if tty else subprocess.PIPE,
                                   start_new_session=True)
    except FileNotFoundError:
        return None
    SPAWNED.append(process.pid)
    return process


def end(signum, frame):
    """With the stand-in go all processes that it started, and theirs."""
    for pid in SPAWNED:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    os._exit(0)


def pump(process, sock, tty, stdin):
    """Carries a process's output in frames until it has ended."""
    def feed():
        while True:
            data = sock.recv(1 << 17)
            if not data:
                break
            if tty and b"\x10\x11" in data:
                sock.shutdown(socket.SHUT_RDWR)
                return
            try:
                process.stdin.write(data)
                process.stdin.flush()
            except OSError:
                break
        try:
            process.stdin.close()
        except OSError:
            pass
    if stdin:
        threading.Thread(target=feed, daemon=True).start()
    else:
        process.stdin.close()
    pipes = {process.stdout.fileno(): 1}
    if process.stderr:
        pipes[process.stderr.fileno()] = 2
    while pipes:
        for fd in select.select(list(pipes), [], [])[0]:
            data = os.read(fd, 1 << 17)
            if not data:
                del pipes[fd]
                continue
            head = b"" if tty else struct.pack(">BxxxI", pipes[fd], len(data))
            try:
                sock.sendall(head + data)
            except OSError:
                process.kill()
                return
    process.wait()


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.one():
            pass

    def one(self):
        line = self.rfile.readline(256 << 10).split()
        if line and len(line) < 3:  # as the HTTP library does it: an answer, the rest is not read
            page = b"<html>Your HTTP header was too big</html>"
            self.wfile.write(b"HTTP/1.1 431 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))
            return False
        if not line:
            return False
        self.method, target = line[0].decode(), line[1].decode()
        headers = {}
        while (header := self.rfile.readline().strip()):
            key, _, value = header.partition(b":")
            headers[key.strip().lower().decode()] = value.strip().decode()
        url = urllib.parse.urlsplit(target)
        self.q = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.body = self.read_body(headers)
        CALLS.append(f"{self.method} {target}")
        name = self.method.lower() + url.path.replace("/", "_")
        try:
            if not hasattr(self, name):
                raise Refusal(404, "not_found", f"no route {url.path}")
            answer = getattr(self, name)()
            if answer is None:
                return False
            self.reply(200, answer)
        except Refusal as r:
            self.reply(r.status, {"kind": r.kind, "message": r.message})
        return True

    def read_body(self, headers):
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while (size := int(self.rfile.readline(), 16)):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(headers.get("content-length", 0)))

    def reply(self, status, value):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.wfile.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    def hijack(self):
        self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
                         b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")

    def chunks(self, pieces):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for p in pieces:
            self.wfile.write(b"%x;x=y\r\n%s\r\n" % (len(p), p))
        self.wfile.write(b"0\r\nTrailer: x\r\n\r\n")

    # ---- routes ------------------------------------------------------------------------------

    def get_calls(self):
        return "\n".join(CALLS).encode()

    def get_version(self):
        return {"ID": 1, "Version": "9.9.9", "ApiVersion": "1.17"}

    def get_info(self):
        return {"ID": 1, "Containers": 1, "Images": 2, "Pods": 3, "Driver": "block",
                "DriverStatus": [["Backing Filesystem", "ext4"]], "MemTotal": 25770000000,
                "Operating System": "Test", "VMs": 1, "Accel": "tcg", "Settings": {"a": 1}}

    def client_pid(self):
        client = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.unpack("iii", client)[0]

    def client_interrupt(self):
        os.kill(self.client_pid(), signal.SIGTERM)

    def client_catches_sigterm(self):
        """As it does while it carries a stream."""
        with open(f"/proc/{self.client_pid()}/status", encoding="ascii") as status:
            caught = int(re.search(r"SigCgt:\s*(\w+)", status.read())[1], 16)
        return caught >> (signal.SIGTERM - 1) & 1

    def post_pod_create(self):
        spec = json.loads(self.body)
        if spec["containers"][0]["image"] == "nosuch":
            raise Refusal(404, "not_found", "image 'nosuch' is not here")
        if spec["id"] in PODS:
            raise Refusal(409, "exists", f"pod '{spec['id']}' exists already")
        cid = (spec["id"].encode().hex() + "0" * 64)[:64]
        PODS[spec["id"]] = {"spec": spec, "process": None, "cid": cid, "over": False,
                            "created": len(CALLS)}
        if spec["containers"][0]["image"] == "interrupt":  # before the client knows that it is made
            self.client_interrupt()
        return {"ID": spec["id"], "Code": 0, "Cause": ""}

    def get_pod_info(self):
        entry = pod_of(self.q["podName"])
        return {"spec": {"containers": [{"containerID": entry["cid"]}]}}

    def get_container_info(self):
        entry = pod_of(self.q["container"])
        return {"container": {"tty": entry["spec"]["containers"][0].get("tty", False),
                              "containerID": entry["cid"]},
                "status": {"name": entry["spec"]["id"], "phase": "failed", "terminated":
                           {"reason": f"no program {command_of(entry['spec'])[0]}"}}}

    def post_attach(self):
        entry = pod_of(self.q["container"])
        first = entry["spec"]["containers"][0]
        self.hijack()
        if first["image"] == "fails":  # its start does, while we wait for it
            entry["failed"] = True
            self.connection.sendall(struct.pack(">BxxxI", 2, 14) + b"husk: no QEMU\n")
            return None
        with LOCK:
            LOCK.wait_for(lambda: entry["process"] is not None or entry["over"], 20)
        if entry["process"]:
            pump(entry["process"], self.connection, first.get("tty"), first.get("stdin"))
        with LOCK:
            entry["over"] = True
            LOCK.notify_all()
        return None

    def wait_for_feed(self, since):
        """Until the client has asked for events, which it shows while it waits."""
        end = time.monotonic() + 15
        while not any("/events" in call for call in CALLS[since:]) and time.monotonic() < end:
            time.sleep(0.05)

    def post_pod_start(self):
        entry = pod_of(self.q["podId"])
        if entry["spec"]["containers"][0]["image"] == "nostart":
            raise Refusal(503, "unavailable", "no QEMU")
        if entry["spec"]["containers"][0]["image"] == "slow":
            self.wait_for_feed(entry["created"])
            time.sleep(1)
        with LOCK:
            entry["process"] = spawn(command_of(entry["spec"]))
            entry["over"] = entry["process"] is None
            LOCK.notify_all()
        if entry["spec"]["containers"][0]["image"] == "early":  # its output is there before our answer
            time.sleep(1)
        return {}

    def get_exitcode(self):
        if self.q.get("exec"):
            process = EXECS[self.q["exec"]]["process"]
            return process.wait() % 256 if process else 127
        entry = pod_of(self.q["container"])
        with LOCK:
            LOCK.wait_for(lambda: entry["over"], 30)
        if not entry["process"]:
            return 127
        code = entry["process"].wait()
        if entry["spec"]["containers"][0]["image"] == "late":
            while self.client_catches_sigterm():  # it has not seen the end of its stream
                time.sleep(0.02)
            self.client_interrupt()
            time.sleep(1)
        return code if code >= 0 else 128 - code

    def delete_pod(self):
        entry = PODS.pop(self.q["podId"], None)
        if not entry:
            raise Refusal(404, "not_found", f"pod '{self.q['podId']}' does not exist")
        if entry["process"]:
            entry["process"].kill()
        return {"ID": self.q["podId"], "Code": 0, "Cause": ""}

    def post_pod_stop(self):
        pod_of(self.q["podId"])
        return {"ID": self.q["podId"], "Code": 0, "Cause": ""}

    def be_away(self):
        """As while huskd is restarted, for so many signals as the container's image says: away-3."""
        entry = pod_of(self.q["container"])
        image = entry["spec"]["containers"][0]["image"]
        entry["asked"] = entry.get("asked", 0) + 1
        if image.startswith("away-") and entry["asked"] <= int(image[5:]):
            raise Refusal(503, "unavailable", "huskd is being stopped")

    def post_container_kill(self):
        self.be_away()
        pod_of(self.q["container"])["process"].send_signal(int(self.q["signal"]))
        return {}

    def post_exec_kill(self):
        self.be_away()
        EXECS[self.q["exec"]]["process"].send_signal(int(self.q["signal"]))
        return {}

    def post_exec_create(self):
        pod_of(self.q["container"])
        name = f"exec-{len(EXECS):010d}"
        EXECS[name] = {**self.q, "command": json.loads(self.q["command"]), "process": None}
        return name

    def post_exec_start(self):
        e = EXECS[self.q["exec"]]
        if e["command"][0] == "firehose":  # so many megabytes, as fast as it goes
            self.hijack()
            frame = struct.pack(">BxxxI", 1, 1 << 17) + bytes(1 << 17)
            for _ in range(int(e["command"][1]) * 2):
                self.connection.sendall(frame * 4)
            e["process"] = spawn(["true"])
            return None
        if e["command"][0] == "cut":  # frames, and so many bytes of one more
            self.hijack()
            self.connection.sendall(struct.pack(">BxxxI", 1, 4) + b"out\n" +
                                    (struct.pack(">BxxxI", 1, 4) + b"out\n")[:int(e["command"][1])])
            e["process"] = spawn(["true"])
            return None
        if e["command"][0] == "drain":
            self.hijack()
            while self.connection.recv(1 << 18):
                pass
            e["process"] = spawn(["true"])
            return None
        if e["command"][0] == "refused":  # the container has ended since
            raise Refusal(412, "state", "container 'web' is not running but stopped")
        e["process"] = spawn(e["command"])
        if self.q.get("detach") == "true" and not e["process"]:
            raise Refusal(404, "not_found", f"container 'web': no program {e['command'][0]}")
        if self.q.get("detach") == "true":
            return {}
        self.hijack()
        pump(e["process"], self.connection, e["tty"] == "true", e.get("stdin") == "true")
        return None

    def get_list(self):
        pods = [{"id": p, "name": p, "vm": "", "status": "running", "labels": e["spec"].get("labels", {})}
                for p, e in sorted(PODS.items())]
        items = {"pod": pods,
                 "container": [{"id": e["cid"], "name": p, "pod": p, "status": "running"}
                               for p, e in sorted(PODS.items())],
                 "vm": [{"id": "vm-QSfCSgWxlX", "pod": "web", "status": "associated"}],
                 "image": [{"id": "sha256:" + "8dcdc1d6a0bb" * 5 + "0000", "size": 1110000, "created":
                            "2017-07-14T02:40:00Z", "names": ["docker.io/library/busybox:latest"]}]}
        return {"item": self.q["item"], "items": items[self.q["item"]]}

    def get_inspect(self):
        if self.q.get("kind") == "container":
            entry = pod_of(self.q["name"])
            state = "running" if entry["process"] else "pending"
            starts = entry["spec"]["containers"][0]["image"] == "fails" and "failed" not in entry
            return {"name": entry["spec"]["id"], "pod": entry["spec"]["id"], "state": state,
                    "want": "running" if entry["process"] or starts else "stopped"}
        entry = PODS.get(self.q["name"])
        if not entry:
            raise Refusal(404, "not_found", f"'{self.q['name']}' does not exist")
        return entry["spec"]

    def get_events(self):
        events = [{"time": "2026-01-01T00:00:00Z", "kind": "pod", "id": "a", "name": "a",
                   "reason": "Started", "message": "it runs"},
                  {"time": "2026-01-01T00:00:01Z", "kind": "vm", "id": "vm-1", "name": "",
                   "reason": "Gone", "message": "it ended"}]
        text = b"".join(json.dumps(e).encode() + b"\n" for e in events)
        self.chunks([text[:20], text[20:]])
        return None

    def get_container_logs(self):
        def frame(fd, text):
            return struct.pack(">BxxxI", fd, len(text)) + text
        text = frame(1, b"out\n") + frame(2, b"err\n") + frame(1, b"more\n" * 20000)
        self.chunks([text[:3], text[3:13], text[13:]])
        return None

    def post_image_load(self):
        self.chunks([b'{"status":"Loading layer","progressDetail":{"current":1,"total":2},"id":"ab"}\n',
                     b'{"stream":"Loaded image: x:%d\\n"}\n' % len(self.body)]
                    if self.body != b"bad" else [b'{"error":"it is not a tar"}'])
        return None

    def get_images_save(self):
        if self.q["names"] == "endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\narchive")
            time.sleep(30)
            return None
        return b"archive"

    def delete_image(self):
        if self.q["imageId"] == "used":
            raise Refusal(409, "busy", "image 'used' is used by pod 'web'")
        return {"imagesList": []}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
    signal.signal(signal.SIGTERM, end)
    Server(sys.argv[1], Handler).serve_forever()
