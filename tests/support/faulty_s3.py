"""A proxy on loopback in front of an S3 server that answers some requests as a bad day would."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.patience import PATIENCE_S

_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests of this method for a segment.

    `status` is answered instead of asking the server; with `after`, the server is asked all the same. `cuts` ends the
    connection without an answer, `hangs` never answers, `flips` changes a byte of the answer, `forgets` says that
    all is well and stores nothing.
    """

    method: str
    times: int
    status: int | None = None
    after: bool = False
    cuts: bool = False
    hangs: bool = False
    flips: bool = False
    forgets: bool = False


@dataclass(slots=True)
class FaultyS3:
    upstream: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        for fault in self.faults:
            if fault.times and fault.method == method and ".tar.gz" in path:
                fault.times -= 1
                return fault
        return None


@contextmanager
def faulty(upstream: str) -> Iterator[FaultyS3]:
    """The proxy, running."""
    proxy = FaultyS3(upstream)
    server = _Server(proxy)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: FaultyS3) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.proxy.take(self.command, self.path)
        if fault is None:
            self._send(*self._ask(body))
        elif fault.hangs or fault.cuts:
            if fault.hangs:
                self.server.proxy.ended.wait()
            else:
                self._ask(body)
            self.close_connection = True
        elif fault.forgets or (fault.status is not None and not fault.after):
            self._send(fault.status or 200, {"ETag": '"none"'}, b"")
        else:
            status, headers, data = self._ask(body)
            flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if fault.flips else data
            self._send(fault.status or status, headers, flipped)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815  # What http.server looks for.

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.server.proxy.upstream).netloc, timeout=PATIENCE_S)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
