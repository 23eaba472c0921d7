#!/usr/bin/env python3
"""proxy.py PORTFILE: an HTTP proxy that wants a user's name and knows one host only, itself.

Writes its port to PORTFILE, and a line for each request to standard output: the method, what it is
for, and `ok` or `refused`. All names lead to 127.0.0.1, so that no test needs a name server. It
takes CONNECT (for TLS) and GET or HEAD of a whole URL (without).
"""
import base64
import os
import socket
import socketserver
import sys
import threading
from urllib.parse import urlsplit

WANTED = b"basic " + base64.b64encode(b"prox:pr0xy").lower()
PIECE = 65536
DEADLINE_S = 60


def pour(source, sink):
    """What comes out of one socket goes into the other, until the end."""
    try:
        while data := source.recv(PIECE):
            sink.sendall(data)
    except OSError:
        pass
    for one, how in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
        try:
            one.shutdown(how)
        except OSError:
            pass


class Handler(socketserver.StreamRequestHandler):
    timeout = DEADLINE_S
    rbufsize = 0  # what follows the head is the tunnel's

    def head(self):
        lines = []
        while (line := self.rfile.readline(PIECE).rstrip(b"\r\n")):
            lines.append(line)
        return lines

    def handle(self):
        lines = self.head()
        if not lines:
            return
        method, target, _ = lines[0].decode("latin1").split(" ", 2)
        known = any(line.lower() == b"proxy-authorization: " + WANTED for line in lines)
        print(method, target, "ok" if known else "refused", flush=True)
        if not known:
            self.wfile.write(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=p\r\n"
                             b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            return
        url = urlsplit(target if "//" in target else f"//{target}")
        with socket.create_connection(("127.0.0.1", url.port), DEADLINE_S) as far:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                path = f"{url.path}?{url.query}" if url.query else url.path
                kept = [line for line in lines[1:] if not line.lower().startswith(b"proxy-")]
                far.sendall(b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *kept,
                                          b"Connection: close", b"", b""]))
            back = threading.Thread(target=pour, args=(far, self.connection), daemon=True)
            back.start()
            pour(self.connection, far)
            back.join(DEADLINE_S)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


with Server(("127.0.0.1", 0), Handler) as server:
    with open(sys.argv[1] + ".new", "w") as f:
        f.write(str(server.server_address[1]))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    server.serve_forever()
