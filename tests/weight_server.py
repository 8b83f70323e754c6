"""A web server of weight files on this machine, which can misbehave as servers do."""

import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

from tests.local_server import LocalServer


class WeightServer(LocalServer):
    """Serves `files` by name; counts requests.

    Attributes:
        files: content by name.
        cut: names of which only half is sent.
        stalled: names of which only half is sent, with the connection kept open.
        named_sums: sums by name, told in a redirection as the Hugging Face hub does.
        requests: how often each name was asked for.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.stalled: set[str] = set()
        self.named_sums: dict[str, str] = {}
        self.requests: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"{super().url}/mirror"


class _Handler(BaseHTTPRequestHandler):
    server: WeightServer

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.requests[name] += 1
        if name not in self.server.files:
            self.send_error(404)
            return
        if name in self.server.named_sums and "/elsewhere/" not in self.path:
            self.send_response(302)
            self.send_header("X-Linked-Etag", f'"{self.server.named_sums[name]}"')
            self.send_header("Location", f"/elsewhere/{name}")
            self.end_headers()
            return
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        misbehaves = name in self.server.cut | self.server.stalled
        self.wfile.write(content[: len(content) // 2] if misbehaves else content)
        self.wfile.flush()
        if name in self.server.stalled:
            time.sleep(60)

    def log_message(self, *_: object) -> None:
        pass
