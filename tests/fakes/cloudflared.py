"""A stand-in for cloudflared and for Cloudflare behind it: its command line, its messages, and what it does to a
request.

Modelled on https://github.com/cloudflare/cloudflared: cmd/cloudflared/tunnel, proxy/proxy.go, ingress/origin_proxy.go
and metrics/metrics.go. A name on the internet is a Unix socket in `$MMD_FAKE_EDGE`, called NAME.trycloudflare.com or by
the tunnel id in the token. A token for `revoked` is refused. A file `unreachable` in the folder simulates a missing
network, a file `silent` an edge that does not answer.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, NoReturn
from urllib.parse import urlsplit

_VALUED = {"--config", "--metrics", "--grace-period", "--url", "--http-host-header"}
_OF_RUN = {"--url", "--http-host-header"}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


def install_fake_cloudflared(folder: Path) -> Path:
    """Install this program as `cloudflared` into a folder, for a test's PATH."""
    program = folder / "cloudflared"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{Path(__file__).resolve()}" "$@"\n')
    program.chmod(0o755)
    return program


def token(tunnel_id: str) -> str:
    """Return what `cloudflared tunnel token NAME` prints."""
    return base64.b64encode(json.dumps({"a": "account", "t": tunnel_id, "s": "c2VjcmV0"}).encode()).decode()


def say(level: str, text: str) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f"{now} {level} {text}", file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    print(text, file=sys.stderr, flush=True)
    sys.exit(1)


def parse(words: list[str]) -> tuple[dict[str, str], bool]:
    """Return the options, and whether the verb is `tunnel run`."""
    if not words or words.pop(0) != "tunnel":
        fail("Incorrect Usage: only tunnels are made here")
    options: dict[str, str] = {}
    runs = False
    while words:
        word = words.pop(0)
        if word == "run":
            runs = True
        elif word == "--no-autoupdate" and not runs:
            options[word] = ""
        elif word in (_OF_RUN if runs else _VALUED):
            options[word] = words.pop(0)
        else:
            fail(f"Incorrect Usage: flag provided but not defined: {word.removeprefix('-')}")
    return options, runs


class Edge(ThreadingUnixStreamServer):
    daemon_threads = True
    origin = ""
    host_header = ""
    hostname = ""


class Visitor(BaseHTTPRequestHandler):
    """A request from the internet, forwarded as cloudflared forwards it."""

    protocol_version = "HTTP/1.1"
    server: Edge

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        theirs = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        origin = HTTPConnection(urlsplit(self.server.origin).netloc, timeout=60)
        try:
            origin.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in (theirs | self.of_cloudflare()).items():
                origin.putheader(name, value)
            if body:
                origin.putheader("Content-Length", str(len(body)))
            origin.endheaders(body)
            self.answer(origin)
        except OSError:
            say("ERR", f'error="Unable to reach the origin service" originService={self.server.origin}')
            self.send_error(502)
        finally:
            origin.close()

    def of_cloudflare(self) -> dict[str, str]:
        return {
            "Host": self.server.host_header or self.headers["Host"],
            "X-Forwarded-Host": self.headers["Host"],
            "X-Forwarded-For": "203.0.113.9",
            "X-Forwarded-Proto": "https",
            "Cf-Connecting-Ip": "203.0.113.9",
            "Cf-Ray": "8f0000000000000a-CDG",
            "Cf-Visitor": '{"scheme":"https"}',
            "Cdn-Loop": "cloudflare; loops=1",
            "Connection": "keep-alive",
        }

    def answer(self, origin: HTTPConnection) -> None:
        answer = origin.getresponse()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := answer.read1(1 << 16):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = pass_on  # noqa: N815 http.server's names

    def log_message(self, *_: Any) -> None:
        """Log nothing, like cloudflared without --loglevel debug."""

    def address_string(self) -> str:
        return "203.0.113.9"


class Metrics(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer
    hostname = ""

    def do_GET(self) -> None:
        body = json.dumps({"hostname": self.hostname}).encode() if self.path == "/quicktunnel" else b"OK\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def in_a_box(*lines: str) -> None:
    width = max(map(len, lines)) + 4
    say("INF", f"+{'-' * width}+")
    for line in lines:
        say("INF", f"|  {line:<{width - 4}}  |")
    say("INF", f"+{'-' * width}+")


def where(edge: Path, *, runs: bool) -> tuple[str, str]:
    """Return the name of the tunnel, and its hostname if the tunnel needs no account."""
    if runs:
        try:
            tunnel_id = json.loads(base64.b64decode(os.environ["TUNNEL_TOKEN"], validate=True))["t"]
            if tunnel_id != "revoked":
                return tunnel_id, ""
            refusal = "Unauthorized: Invalid tunnel secret"
            say("ERR", f'Register tunnel error from server side error="{refusal}" connIndex=0 event=0 ip=198.51.100.7')
            fail(refusal)
        except KeyError:
            fail('"cloudflared tunnel run" requires the ID or name of the tunnel to run')
    say(
        "INF",
        "Thank you for trying Cloudflare Tunnel. Doing so, without a Cloudflare account, is a quick way to try it.",
    )
    say("INF", "Requesting new quick Tunnel on trycloudflare.com...")
    if (edge / "unreachable").exists():
        lookup = "dial tcp: lookup api.trycloudflare.com: Temporary failure in name resolution"
        fail(f'failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": {lookup}')
    hostname = f"fake-words-{os.getpid()}.trycloudflare.com"
    in_a_box(
        "Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):",
        f"https://{hostname}",
    )
    return hostname, hostname


def ready() -> None:
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.sendto(b"READY=1", address.replace("@", "\0", 1))


def main() -> None:
    options, runs = parse(sys.argv[1:])
    if options["--config"] == "/dev/null":
        say("ERR", "Configuration file /dev/null was empty")
    edge = Path(os.environ["MMD_FAKE_EDGE"])
    name, hostname = where(edge, runs=runs)
    Metrics.hostname = hostname
    host, _, port = options["--metrics"].rpartition(":")
    metrics: HTTPServer = ThreadingHTTPServer((host, int(port)), Metrics)
    say("INF", f"Starting metrics server on {host}:{metrics.server_port}/metrics")
    (edge / name).unlink(missing_ok=True)
    tunnel = Edge(str(edge / name), Visitor)
    tunnel.origin, tunnel.host_header = options["--url"], options["--http-host-header"]
    for server in (metrics, tunnel):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    say("INF", "Registered tunnel connection connIndex=0 event=0 ip=198.51.100.7 location=cdg07 protocol=quic")
    if not (edge / "silent").exists():
        ready()
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    say("INF", "Initiating graceful shutdown due to signal terminated ...")
    (edge / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
