"""Clouds' metadata services on this machine, as far as notices to spot machines go."""

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler

from tests.local_server import LocalServer

_TOKEN = "a-session"  # noqa: S105  of the imitated service


class MetadataServer(LocalServer):
    """Answers as Amazon's (with sessions) and Google's service do.

    Attributes:
        left_s: seconds until the machine is taken away; none without a notice.
        num_failures: questions that will still be answered with an error.
        num_questions: answered so far.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.left_s: float | None = None
        self.num_failures = 0
        self.num_questions = 0


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_PUT(self) -> None:
        has_lifetime = "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        is_token = self.path == "/latest/api/token" and has_lifetime
        self._answer(200 if is_token else 400, _TOKEN)

    def do_GET(self) -> None:
        self.server.num_questions += 1
        if self.server.num_failures:
            self.server.num_failures -= 1
            self._answer(500, "")
        elif self.path == "/latest/meta-data/spot/instance-action":
            self._answer_as_amazon()
        elif self.path == "/computeMetadata/v1/instance/preempted":
            is_known = self.headers.get("Metadata-Flavor") == "Google"
            self._answer(
                200 if is_known else 403, "FALSE" if self.server.left_s is None else "TRUE"
            )
        else:
            self._answer(404, "")

    def _answer_as_amazon(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != _TOKEN:
            self._answer(401, "")
        elif self.server.left_s is None:
            self._answer(404, "")
        else:
            end = datetime.now(UTC) + timedelta(seconds=self.server.left_s)
            notice = {"action": "terminate", "time": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
            self._answer(200, json.dumps(notice))

    def _answer_as_google(self) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            self._answer(403, "")
        else:
            self._answer(200, "FALSE" if self.server.left_s is None else "TRUE")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""
