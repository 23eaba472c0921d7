#!/usr/bin/env python3
"""hostile.py PORTFILE: a registry that lies, one way for each name of a repository.

Writes its port to PORTFILE, and a line for each request to standard output: method, path, Range
header, bytes that were sent. What it serves otherwise is an image of one layer. Names:

  good            nothing wrong; `cut` hangs up after a third of the layer, `slow` sends it slowly
  bearer          wants a token, which is spent with the manifest, and the next one with the config;
                  its image has five layers
  push            takes no blob at the first try, and none before two are on their way at a time;
                  `refuse` takes none at all
  digest, size    the layer's bytes are others; are fewer than its descriptor says
  endless         the layer never ends
  range           sends from another byte than it was asked for
  loop            redirects to itself
  downgrade       redirects to a file: URL
  loris           sends a byte a second
  bomb            a manifest of 8 MiB
  deep            indexes in each other, without an end
  many            100000 layers
  nest            JSON of 100000 brackets
  both            a document that is index and manifest
  foreign         a layer of a media type that nobody knows
  schema1         docker's oldest manifest
  wrongmanifest   a manifest that has another digest than the name asks for
  headers         a head of 1 MiB
  token           a token of 1 MiB; `tokens`: another one for each request, none of which is good
  challenge       a challenge that is nonsense
  config          a config of 64 MiB
  diff            a config whose diff_id is another layer's
  traverse        a layer with a name that leads out
"""
import contextlib
import gzip
import hashlib
import io
import json
import random
import socketserver
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler

OCI = "application/vnd.oci.image."
ENDLESS_MAX = 1 << 28  # if nobody hangs up


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def describe(data, kind, **more):
    return {"mediaType": kind if "/" in kind else OCI + kind, "digest": sha(data),
            "size": len(data), **more}


def layer(name="file", size=6000000):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(random.Random(7).randbytes(info.size)))
    return out.getvalue()


TAR = layer()
GZ = gzip.compress(TAR, 1, mtime=0)
BLOBS = {}


def image(tar=TAR, packed=GZ, diff=None, config=b"", others=()):
    """Of that layer, and others which are not compressed."""
    config = config or json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [diff or sha(tar), *map(sha, others)]}}).encode()
    for data in (config, packed, *others):
        BLOBS[sha(data)] = data
    return json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                       "config": describe(config, "config.v1+json"),
                       "layers": [describe(packed, "layer.v1.tar+gzip"),
                                  *(describe(o, "layer.v1.tar") for o in others)]}).encode()


GOOD = image()


def deep():
    document = GOOD
    for _ in range(20):
        BLOBS[sha(document)] = document
        document = json.dumps({"schemaVersion": 2, "manifests": [
            describe(document, "index.v1+json" if document != GOOD else "manifest.v1+json",
                     platform={"os": "linux", "architecture": "amd64"})]}).encode()
    return document


def many():
    manifest = json.loads(GOOD)
    manifest["layers"] = [dict(manifest["layers"][0], size=n) for n in range(20000)]
    return json.dumps(manifest).encode()


def changed(**more):
    return json.dumps(dict(json.loads(GOOD), **more)).encode()


def traverse():
    tar = layer("../../etc/passwd")
    return image(tar, gzip.compress(tar, 1, mtime=0))


MANIFESTS = {
    "bomb": GOOD + b" " * (8 << 20), "deep": deep(), "many": many(),
    "nest": b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
    "both": changed(manifests=[]),
    "foreign": changed(layers=[describe(GZ, "application/x-strange")]),
    "schema1": b'{"schemaVersion":1,"name":"x","tag":"1","fsLayers":[]}',
    "config": image(config=b" " * (64 << 20)), "diff": image(diff="sha256:" + "0" * 64),
    "traverse": traverse(), "bearer": image(others=[layer(f"file{n}", 1000) for n in range(4)]),
}
SPENT = {sha(MANIFESTS["bearer"]), json.loads(MANIFESTS["bearer"])["config"]["digest"]}
cut = set()  # of blobs that were cut off once
tried = set()  # digests of blobs that were sent
pair = threading.Barrier(2, timeout=20)
tokens = [0]  # how many were given out for `bearer`: only the last one is good


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.count(len(body))

    def count(self, size):
        print(self.command, self.path, self.headers.get("Range", "-"), size, flush=True)

    def do_GET(self):
        try:
            self.serve()
        except OSError:
            self.close_connection = True

    def do_HEAD(self):
        self.answer(404)

    def do_POST(self):
        self.answer(202, Location=f"{self.path.split('?')[0]}1")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name, _, digest = self.path.partition("?digest=")
        if "/manifests/" in name:
            self.answer(201)
        elif digest != sha(body):
            self.answer(400)
        elif "/refuse/" in name or digest not in tried:
            tried.add(digest)
            self.answer(503)
        else:
            with contextlib.suppress(threading.BrokenBarrierError):
                pair.wait()
            self.answer(500 if pair.broken else 201)

    def serve(self):
        parts = self.path.split("?")[0].split("/")
        if parts[1:] == ["token", "good"]:
            tokens[0] += 1
            self.answer(200, json.dumps({"token": f"t{tokens[0]}"}).encode())
            return
        if parts[1] == "token":
            self.answer(200, json.dumps({"token": "x" * ((1 << 20) if "big" in parts else 9)
                                         }).encode())
            return
        if len(parts) < 5 or parts[1] != "v2":
            self.answer(404)
            return
        name, what, key = parts[2], parts[3], parts[4]
        if name == "bearer" and self.headers.get("Authorization") != f"Bearer t{tokens[0]}":
            realm = f"http://127.0.0.1:{self.server.server_address[1]}/token/good"
            self.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="{realm}",service="s"')
            return
        if what == "manifests":
            self.manifest(name, key)
        else:
            self.blob(name, key)

    def manifest(self, name, key):
        here = f"http://127.0.0.1:{self.server.server_address[1]}"
        if name in ("token", "tokens", "challenge"):
            realm = f"{here}/token" + ("/big" if name == "token" else "")
            asks = f'Bearer realm="{realm}",service="s"' if name != "challenge" else '=,"'
            self.answer(401, b"{}", WWW_Authenticate=asks)
        elif name == "headers":
            self.answer(200, GOOD, **{f"X-{n}": "y" * 1000 for n in range(1000)})
        elif name == "downgrade":
            self.answer(302, Location="file:///etc/passwd")
        elif name == "wrongmanifest":
            self.answer(200, GOOD + b" ", Docker_Content_Digest=sha(GOOD))
        elif name == "deep" and key in BLOBS:
            self.answer(200, BLOBS[key])
        else:
            body = MANIFESTS.get(name, GOOD)
            self.spend(name, sha(body))
            self.answer(200, body, Content_Type="application/json")

    def spend(self, name, digest):
        tokens[0] += name == "bearer" and digest in SPENT

    def blob(self, name, key):
        data = BLOBS.get(key)
        self.spend(name, key)
        if data is None:
            self.answer(404)
            return
        if key != sha(GZ):
            self.answer(200, data)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if name == "digest":
            self.answer(200, data[:-1] + bytes([data[-1] ^ 1]))
        elif name == "size":
            self.answer(200, data[:-1000])
        elif name == "loop":
            self.answer(307, Location=self.path)
        elif name == "endless":
            self.stream(200, None, lambda n: b"z" * 65536 if n < ENDLESS_MAX else None)
        elif name == "loris":
            self.stream(200, len(data), lambda n: (time.sleep(1), data[n:n + 1])[1])
        elif name == "range" and start == 0:
            self.stream(200, len(data), lambda n: data[n:n + 65536] if n < 1 << 20 else None)
        elif name == "range":
            self.piece(data, 0)
        elif name == "cut" and name not in cut:
            cut.add(name)
            third = len(data) // 3
            self.stream(200, len(data), lambda n: data[n:min(n + 65536, third)] or None)
        elif name == "slow" and start == 0:
            self.stream(200, len(data),
                        lambda n: (time.sleep(0.1), data[n:n + 65536] or None)[1])
        else:
            self.piece(data, start)

    def piece(self, data, start):
        if "Range" not in self.headers:
            self.answer(200, data)
        else:
            self.answer(206, data[start:],
                        Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")

    def stream(self, status, length, more):
        """Sends what more(n) gives after n bytes, until it gives None; then hangs up."""
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.close_connection = True
        sent = 0
        try:
            while True:
                data = more(sent)
                if data is None:
                    break
                self.wfile.write(data)
                sent += len(data)
        finally:
            self.count(sent)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        pass


with Server(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(sys.argv[1] + ".new", "w") as f:
        f.write(str(server.server_address[1]))
    import os
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    threading.Event().wait()
