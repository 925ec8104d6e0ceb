"""A slow source and a store like S3, over HTTP, for the example: objects come at the pace that the request asks for.

python storage.py                  prints its address; --port=0 takes a free port
"""

import argparse
import hashlib
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: an object, and the parts in which the source sends it
OBJECT_BYTES, PARTS = 256 * 1024, 16


class Storage(ThreadingHTTPServer):
    """Objects by name, and the connections that were made."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Answers)
        self.digests: dict[str, str] = {}
        self.connections = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count the connection, and serve it in a thread."""
        self.connections += 1
        super().process_request(request, client_address)


class Answers(BaseHTTPRequestHandler):
    """GET /source/NAME?seconds=5, PUT /store/NAME, and GET /store: what is there."""

    protocol_version = "HTTP/1.1"
    server: Storage

    def do_GET(self) -> None:
        """Send an object slowly, or tell what is stored."""
        url = urlsplit(self.path)
        if url.path == "/store":
            stored = sum(digest == content_digest(name) for name, digest in self.server.digests.items())
            self._answer(json.dumps({"stored": stored, "connections": self.server.connections}).encode())
            return
        seconds = float(parse_qs(url.query).get("seconds", ["0"])[0])
        self.send_response(200)
        self.send_header("Content-Length", str(OBJECT_BYTES))
        self.end_headers()
        part = content(url.path.rpartition("/")[2])[: OBJECT_BYTES // PARTS]
        for _ in range(PARTS):
            time.sleep(seconds / PARTS)
            self.wfile.write(part)

    def do_PUT(self) -> None:
        """Take an object."""
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            part = self.rfile.read(min(left, OBJECT_BYTES // PARTS))
            if not part:
                return
            left -= len(part)
            digest.update(part)
        self.server.digests[self.path.rpartition("/")[2]] = digest.hexdigest()
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def content(name: str) -> bytes:
    """Return what the object of that name consists of."""
    part = OBJECT_BYTES // PARTS
    return (name.encode() * (part // len(name.encode()) + 1))[:part] * PARTS


def content_digest(name: str) -> str:
    """Return the digest of the object."""
    return hashlib.sha256(content(name)).hexdigest()


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description="A slow source and a store.")
    reader.add_argument("--port", type=int, default=8765)
    with Storage(reader.parse_args().port) as storage:
        print(f"http://127.0.0.1:{storage.server_port}", flush=True)
        storage.serve_forever()
