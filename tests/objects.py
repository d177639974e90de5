"""An object store for the tests: as much of S3's protocol as the registry asks for, on loopback, kept in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Objects(ThreadingHTTPServer):
    """The store; ``objects`` by bucket and key. While ``refused`` is set nothing may be written."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.refused = False

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which S3's clients find it."""
        return {
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def serving() -> Iterator[Objects]:
    """Yield a store that answers until the block ends."""
    with Objects() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Objects
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: a second waits 40 ms for the first to be acknowledged

    def do_PUT(self) -> None:
        data = self._body()
        with self.server.lock:
            if self.server.refused:
                self._answer(HTTPStatus.FORBIDDEN, b"<Error><Code>AccessDenied</Code></Error>")
            elif self.headers["If-None-Match"] == "*" and self._key in self.server.objects:
                self._answer(
                    HTTPStatus.PRECONDITION_FAILED, b"<Error><Code>PreconditionFailed</Code></Error>"
                )
            else:
                self.server.objects[self._key] = data
                self._answer(HTTPStatus.OK)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        with self.server.lock:
            if "list-type" in query:
                prefix = query.get("prefix", [""])[0]
                self._answer(HTTPStatus.OK, self._list(prefix, query.get("delimiter", [""])[0]))
            elif self._key in self.server.objects:
                self._answer(HTTPStatus.OK, self.server.objects[self._key])
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_DELETE(self) -> None:
        with self.server.lock:
            self.server.objects.pop(self._key, None)
        self._answer(HTTPStatus.NO_CONTENT)

    def do_POST(self) -> None:
        """Delete the objects that the body names."""
        keys = [part.partition("</Key>")[0] for part in self._body().decode().split("<Key>")[1:]]
        with self.server.lock:
            for key in keys:
                self.server.objects.pop(f"{self._key.rstrip('/')}/{key}", None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._answer(HTTPStatus.OK, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _list(self, prefix: str, delimiter: str) -> bytes:
        bucket = self._key.rstrip("/") + "/"
        keys = sorted(key.removeprefix(bucket) for key in self.server.objects if key.startswith(bucket))
        keys = [key for key in keys if key.startswith(prefix)]
        folders: list[str] = []
        if delimiter:
            deeper = {key for key in keys if delimiter in key[len(prefix) :]}
            folders = sorted({prefix + key[len(prefix) :].partition(delimiter)[0] for key in deeper})
            keys = [key for key in keys if key not in deeper]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;0&quot;</ETag><Size>{len(self.server.objects[bucket + key])}</Size></Contents>"
            for key in keys
        )
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(each)}{delimiter}</Prefix></CommonPrefixes>" for each in folders
        )
        return (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"
        ).encode()

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""
