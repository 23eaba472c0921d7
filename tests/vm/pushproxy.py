#!/usr/bin/env python3
"""pushproxy.py PORTFILE REGISTRY: stands before a registry and makes pushes harder.

Writes its port to PORTFILE, and a line for each request to standard output: the method, the name of
the repository, Content-Range or "-", bytes of the body that were passed on, and the status. What it
does depends on the first part of the repository's name:

  plain    nothing
  large    a body over LIMIT is refused with 413; a chunk must have LEAST bytes, as it says
  narrow   the same, but a chunk must have more than LIMIT
  range    the first body that goes to each upload is answered with 416
  cut      it hangs up in the middle of the first three bodies over LIMIT, of which the registry gets
           a half, and tells of it, which Debian's does not: it forgets what was interrupted
  forget   it hangs up in the middle of the first two, and does not know how much has come
"""
import http.client
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LIMIT = 2 << 20
LEAST = 1 << 20
CUTS = {"cut": 3, "forget": 2}
DEADLINE_S = 60


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = DEADLINE_S
    lock = threading.Lock()
    cuts = {}
    ranges = set()
    halves = {}  # of uploads that were cut: where the rest goes, and how much has come

    def log_message(self, *_):
        pass

    def say(self, passed, status):
        name = self.path.split("/blobs/")[0].removeprefix("/v2/")
        print(self.command, name, self.headers.get("Content-Range", "-"), passed, status, flush=True)

    def refuse(self, status, body):
        self.rfile.read(body)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.say(0, status)

    def upload(self):
        return self.path.split("?")[0]

    def begins(self):
        return int(self.headers.get("Content-Range", "0-").split("-")[0])

    def cut(self, kind, body):
        """What has come is a half of it."""
        half = self.rfile.read(body // 2)
        status = "lost"
        if kind == "cut":
            begin = self.begins()
            headers = {**self.headers, "Content-Length": str(len(half)),
                       "Content-Range": f"{begin}-{begin + len(half) - 1}"}
            far = http.client.HTTPConnection(sys.argv[2], timeout=DEADLINE_S)
            far.request("PATCH", self.path.split("&digest=")[0], half, headers)
            answer = far.getresponse()
            where = urlsplit(answer.getheader("Location"))
            self.halves[self.upload()] = f"{where.path}?{where.query}", begin + len(half)
            status = answer.status
        self.say(len(half), f"cut-{status}")
        self.close_connection = True

    def fault(self, kind, body):
        """Whether the request was dealt with."""
        upload = self.upload()
        with self.lock:
            first = body > 0 and kind == "range" and "/uploads/" in upload and upload not in self.ranges
            cut = body > LIMIT and kind in CUTS and self.cuts.get(kind, 0) < CUTS[kind]
            if first:
                self.ranges.add(upload)
            if cut:
                self.cuts[kind] = self.cuts.get(kind, 0) + 1
        if kind in ("large", "narrow") and body > LIMIT:
            self.refuse(413, body)
        elif first or body and self.begins() != self.halves.get(upload, (0, self.begins()))[1]:
            self.refuse(416, body)
        elif cut:
            self.cut(kind, body)
        elif kind == "forget" and self.command == "GET" and "/uploads/" in self.path:
            self.refuse(404, 0)
        else:
            return False
        return True

    def handle_one(self):
        body = int(self.headers.get("Content-Length", 0))
        kind = self.path.removeprefix("/v2/").split("/")[0]
        if self.fault(kind, body):
            return
        path, _ = self.halves.get(self.upload(), (self.path, 0)) if self.command == "GET" else (self.path, 0)
        if self.command != "GET":
            self.halves.pop(self.upload(), None)
        far = http.client.HTTPConnection(sys.argv[2], timeout=DEADLINE_S)
        far.request(self.command, path, self.rfile.read(body), dict(self.headers))
        answer = far.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(key, value)
        if kind in ("large", "narrow") and self.command == "POST":
            self.send_header("OCI-Chunk-Min-Length", str(LEAST if kind == "large" else 2 * LIMIT))
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(data)
        self.say(body, answer.status)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_one


with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    server.daemon_threads = True
    with open(sys.argv[1] + ".new", "w") as f:
        f.write(str(server.server_address[1]))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    server.serve_forever()
