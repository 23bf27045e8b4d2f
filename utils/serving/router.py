"""A small HTTP proxy in front of several servers: who answers is decided anew for each request.

    router = Router(route=lambda body: "/v1/predict", replicas=replicas)
    requests.post(router.url, json={"user": "ada", "instances": [[0, 255]]}, timeout=5)

`route` and `replicas` are the policy, and belong to the one who uses the router. Both may be
replaced at any time by an assignment: a request asks each of them once, so it sees the old one or
the new one and never half of each.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit

BAD_REQUEST, BAD_GATEWAY, UNAVAILABLE = 400, 502, 503
LOOK_SECONDS = 0.05
FAILED = (OSError, http.client.HTTPException)


class Replicas(Protocol):
    """Servers that can stand in for each other."""

    def order(self) -> list[str]:
        """Return the URLs to try for the next request, the first one first."""

    def report(self, url: str, ok: bool) -> None:
        """Hear how a try went: not ok if there was no answer, or 503."""


@dataclass(frozen=True)
class Seen:
    """One request as the router saw it.

    begin     when it came, on the clock of `time.perf_counter`
    seconds   until the whole answer was there
    body      the decoded JSON of the request
    path      where `route` sent it
    tried     the servers that were asked, in order; the last one gave the answer, if any did
    status    what the client got: 502 if no server answered
    """

    begin: float
    seconds: float
    body: Any
    path: str
    tried: tuple[str, ...]
    status: int


class Router:
    """A running proxy: `url`, `log` (what it has seen), `route`, `replicas`, `stop`.

    It listens on 127.0.0.1 in threads of this process, until `stop`, the end of a `with` block, or
    until nothing refers to it any more.
    """

    def __init__(
        self, route: Callable[[Any], str], replicas: Replicas, timeout: float = 30
    ) -> None:
        """Start the proxy.

        route: takes the decoded JSON of a request, returns the path on the server that answers.
        replicas: says which servers to try. timeout: seconds that each try may take.
        """
        self.route, self.replicas, self.timeout = route, replicas, timeout
        self.log: list[Seen] = []
        self._kept = threading.local()
        handler = type("Handler", (_Handler,), {"router": weakref.ref(self)})
        server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(LOOK_SECONDS,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/predict"
        self._end = weakref.finalize(self, _end, server)

    def answer(self, text: bytes) -> tuple[int, bytes]:
        """Pass a request on; return the status and the body of the answer."""
        begin = time.perf_counter()
        try:
            body = json.loads(text)
            path, replicas = self.route(body), self.replicas
        except (KeyError, TypeError, ValueError) as error:
            return BAD_REQUEST, _problem(f"{type(error).__name__}: {error}")
        status, answer, tried = BAD_GATEWAY, _problem("no server answered"), []
        for url in replicas.order():
            tried.append(url)
            got = self._ask(url, path, text)
            replicas.report(url, ok=got is not None)
            if got is not None:
                status, answer = got
                break
        seconds = time.perf_counter() - begin
        self.log.append(Seen(begin, seconds, body, path, tuple(tried), status))
        return status, answer

    def _ask(self, url: str, path: str, text: bytes) -> tuple[int, bytes] | None:
        """Return a server's answer; None if there is none, or if it says that it cannot serve."""
        with suppress(*FAILED):
            got = self._post(url, path, text)
            return None if got[0] == UNAVAILABLE else got
        return None

    def _post(self, url: str, path: str, text: bytes) -> tuple[int, bytes]:
        """Send on the connection that this thread has kept, or, where that is gone, on a new one.

        A server may close a connection that was idle while a request is on its way to it. That is
        no failure of the server; and to ask for a prediction twice does no harm.
        """
        kept: dict[str, http.client.HTTPConnection] = vars(self._kept)
        if connection := kept.pop(url, None):
            with suppress(*FAILED):
                got = _send(connection, path, text)
                kept[url] = connection
                return got
            connection.close()
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=self.timeout)
        try:
            got = _send(connection, path, text)
        except FAILED:
            connection.close()
            raise
        kept[url] = connection
        return got

    def stop(self) -> None:
        """Take no more requests; those that are under way are still answered."""
        if closing := self._end():
            closing.join()

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # clients that may wait to be let in


class _Handler(BaseHTTPRequestHandler):
    """Reads requests from one client's connection, one after the other, in a thread of its own."""

    protocol_version = "HTTP/1.1"  # keeps connections
    wbufsize = -1  # headers and body leave together
    disable_nagle_algorithm = True
    router: weakref.ref[Router]

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        router = self.router()
        status, answer = router.answer(text) if router else (UNAVAILABLE, _problem("stopped"))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Write nothing: the router has its own log."""


def _send(connection: http.client.HTTPConnection, path: str, text: bytes) -> tuple[int, bytes]:
    connection.request("POST", path, text, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def _problem(text: str) -> bytes:
    return json.dumps({"detail": text}).encode()


def _end(server: _Server) -> threading.Thread:
    """Close the port, in a thread: the one who asks may be the garbage collector, anywhere."""

    def close() -> None:
        server.shutdown()
        server.server_close()

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    return closing
