"""A folder served as an S3 bucket, for reading: the three requests that pyarrow makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.local_server import LocalServer, serving

BUCKET = "bucket"


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port; gives the host and port."""
    handler = type("Handler", (_Handler,), {"folder": folder})
    with serving(LocalServer(handler)) as server:
        yield f"127.0.0.1:{server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        file = self.folder / key
        if bucket == BUCKET and "list-type" in query:
            self._send(200, self._list(query.get("prefix", ""), query.get("delimiter")))
        elif bucket == BUCKET and file.is_file():
            self._send_file(file)
        else:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _list(self, prefix: str, delimiter: str | None) -> bytes:
        paths = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*")}
        files = {key: path for key, path in paths.items() if path.is_file()}
        keys = sorted(key for key in files if key.startswith(prefix))
        folders = set()
        if delimiter:
            rests = {key: key.removeprefix(prefix) for key in keys}
            folders = {
                prefix + rest.split(delimiter)[0] + delimiter
                for rest in rests.values()
                if delimiter in rest
            }
            keys = [key for key in keys if delimiter not in rests[key]]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{files[key].stat().st_size}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        prefixes = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            for name in sorted(folders)
        )
        count = f"<KeyCount>{len(keys) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{count}{contents}{prefixes}</ListBucketResult>".encode()

    def _send_file(self, file: Path) -> None:
        data = file.read_bytes()
        wanted = self.headers.get("Range")
        if wanted is None:
            self._send(200, data)
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        shown = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._send(206, part, {"Content-Range": shown})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
