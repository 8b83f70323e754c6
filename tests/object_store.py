"""An S3 store on 127.0.0.1 that fails as told: moto's server behind a layer of faults."""

import itertools
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

READING = ("GET ", "HEAD ")

# Gives the status to answer a request with, by its method and target as in "PUT /bucket/object?x=1"
# and its running number; none to let it through.
Fault = Callable[[str, int], str | None]


def fail_never(_request: str, _number: int) -> None:
    """A store in order."""


def fail_often(request: str, number: int) -> str | None:
    """Every eighth request ends in an error of the server; every 200th that reads is slow."""
    if number % 200 == 1 and request.startswith(READING):
        time.sleep(4)  # clients give up after 3 s and ask again
    return "500 InternalError" if number % 8 == 0 else None


def refuse_writes(request: str, _number: int) -> str | None:
    """A store whose user may only read."""
    return None if request.startswith(READING) else "403 AccessDenied"


def fill_up_at(pattern: str) -> Fault:
    """A store without room for requests that match a regular expression."""

    def fail(request: str, _number: int) -> str | None:
        is_refused = re.search(pattern, request) and not request.startswith(READING)
        return "507 InsufficientStorage" if is_refused else None

    return fail


@dataclass
class ObjectStore:
    """A bucket, and what goes wrong with requests to it.

    Attributes:
        bucket: its name.
        address: host and port.
        client: that lists the bucket.
        fault: what goes wrong.
        num_refused: requests that were not let through.
    """

    bucket: str
    address: str
    client: Any
    fault: Fault = fail_never
    num_refused: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def make_uri(self, folder: str) -> str:
        """URI of a folder in the bucket, as a study's root."""
        place = f"scheme=http&endpoint_override={self.address}&region=us-east-1"
        return f"s3://{self.bucket}/{folder}?{place}"

    def list_objects(self, folder: str) -> dict[str, Any]:
        """When each object of a folder was written, by its path in it, without folders' marks."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{folder}/"
        )
        return {
            item["Key"].removeprefix(f"{folder}/"): item["LastModified"]
            for page in pages
            for item in page.get("Contents", ())
            if not item["Key"].endswith("/")
        }

    def refuse(self, request: str) -> str | None:
        """The status to answer a request with instead of the store's own."""
        status = self.fault(request, next(self._numbers))
        self.num_refused += status is not None
        return status


@contextmanager
def serve_store() -> Iterator[ObjectStore]:
    """An empty bucket on a free port, until the end of the block."""
    moto = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        target = f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        status = store.refuse(f"{environ['REQUEST_METHOD']} {target}")
        if status is None:
            return moto(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        code = status.split()[1]
        body = f"<Error><Code>{code}</Code><Message>as the test wants</Message></Error>".encode()
        start_response(status, [("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=_QuietHandler)
    address = f"127.0.0.1:{server.server_port}"
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{address}",
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    # moto keeps the buckets of a process in one place.
    store = ObjectStore(f"study-{uuid.uuid4().hex}", address, client)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        client.create_bucket(Bucket=store.bucket)
        yield store
    finally:
        server.shutdown()
        server.server_close()


class _QuietHandler(MotoRequestHandler):  # type: ignore[misc]
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        pass
