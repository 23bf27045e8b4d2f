"""The proxy of the lessons: it routes, retries, loses nothing while it is told something new."""

import gc
import itertools
import json
import os
import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from utils import serving
from utils.serving.router import Router

# Answers with the path it was asked for; /busy says that it cannot serve, /drop says nothing.
BACKEND = """
    import http.server, json, sys
    class Backend(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        def do_GET(self):
            self.answer(200, {})
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/drop":
                return self.connection.shutdown(2)
            self.answer(503 if self.path == "/busy" else 200, {"path": self.path})
            self.close_connection = self.path == "/once"  # without a word about it
        def answer(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_): pass
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Backend).serve_forever()
"""


class Turns:
    """Each server in its turn; the others after it, if `retry`."""

    def __init__(self, urls: list[str], retry: bool = True) -> None:
        self.urls, self.retry, self.turns = urls, retry, itertools.count()
        self.heard: list[tuple[str, bool]] = []

    def order(self) -> list[str]:
        turn = next(self.turns) % len(self.urls)
        order = self.urls[turn:] + self.urls[:turn]
        return order if self.retry else order[:1]

    def report(self, url: str, ok: bool) -> None:
        self.heard.append((url, ok))


def backend() -> serving.Server:
    return serving.start([sys.executable, "-c", textwrap.dedent(BACKEND), "{port}"])


def nobody() -> str:
    return f"http://127.0.0.1:{serving.free_port()}"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with backend() as server:
        yield server.url


def post(router: Router, body: object = 0) -> requests.Response:
    return requests.post(router.url, json=body, timeout=10)


def test_a_request_goes_where_its_body_says_and_the_log_tells(url: str) -> None:
    with Router(lambda body: f"/{body['user']}", Turns([url])) as router:
        answer = post(router, {"user": "ada"})
        assert (answer.status_code, answer.json()) == (200, {"path": "/ada"})
        (seen,) = router.log
        assert (seen.body, seen.path, seen.tried, seen.status) == (
            {"user": "ada"},
            "/ada",
            (url,),
            200,
        )
        assert 0 < seen.seconds < 10 and seen.begin < time.perf_counter()


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"user": 1}', b"\xff"])
def test_a_request_that_cannot_be_routed_is_the_clients_fault(url: str, text: bytes) -> None:
    with Router(lambda body: "/" + body["user"], Turns([url])) as router:
        answer = requests.post(router.url, data=text, timeout=10)
        assert answer.status_code == 400 and "Error" in answer.json()["detail"]
        assert router.log == []


def test_round_robin_alone_fails_in_turn_and_a_retry_saves_the_request(url: str) -> None:
    dead = nobody()
    with Router(lambda body: "/", Turns([url, dead], retry=False)) as router:
        assert [post(router).status_code for _ in range(4)] == [200, 502, 200, 502]
        router.replicas = Turns([url, dead])
        assert [post(router).status_code for _ in range(4)] == [200] * 4
        assert [len(seen.tried) for seen in router.log] == [1, 1, 1, 1, 1, 2, 1, 2]
        assert router.replicas.heard[:3] == [(url, True), (dead, False), (url, True)]


def test_a_server_that_says_503_is_passed_over(url: str) -> None:
    with Router(lambda body: body, Turns([url])) as router:
        assert post(router, "/busy").status_code == 502
        assert router.replicas.heard == [(url, False)]


def test_a_connection_that_was_closed_meanwhile_is_no_failure(url: str) -> None:
    """The client keeps its connection, so the router keeps its own, until the server ends that."""
    with (
        Router(lambda body: body, Turns([url], retry=False)) as router,
        requests.Session() as session,
    ):
        for path in ("/a", "/once", "/b", "/c"):
            assert session.post(router.url, json=path, timeout=10).json() == {"path": path}
        assert all(ok for _, ok in router.replicas.heard)


def test_an_answer_that_breaks_off_is_a_failure(url: str) -> None:
    with Router(lambda body: body, Turns([url])) as router:
        assert post(router, "/drop").status_code == 502


@contextmanager
def under_load(router: Router) -> Iterator[Future[serving.Load]]:
    """Send 400 requests; give the block the stage when 100 were answered, and wait to the end.

    The last hundred wait for the end of the block, so that it always acts under load.
    """
    numbers, acted, route = itertools.count(), threading.Event(), router.route

    def gated(body: object) -> str:
        if next(numbers) >= 300:
            acted.wait(60)
        return route(body)

    router.route = gated
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(serving.load, router.url, [0], clients=4, requests=400)
        while len(router.log) < 100 and not load.done():
            time.sleep(0.001)
        try:
            yield load
        finally:
            acted.set()


def test_the_router_may_be_told_otherwise_under_load_and_nothing_is_lost(url: str) -> None:
    with Router(lambda body: "/one", Turns([url])) as router, under_load(router) as load:
        assert not load.done()
        router.route = lambda body: "/two"
    seen = load.result()
    paths = [seen.answers[i]["path"] for i in range(400)]
    assert seen.failed == 0 and set(paths) == {"/one", "/two"}
    assert paths[0] == "/one" and paths[-1] == "/two"


def test_a_killed_server_costs_no_request_if_another_one_is_tried(url: str) -> None:
    with backend() as victim, Router(lambda body: "/", Turns([url, victim.url])) as router:
        with under_load(router) as load:
            assert not load.done()
            os.kill(victim.pid, signal.SIGKILL)
        assert load.result().failed == 0
        assert {ok for server, ok in router.replicas.heard if server == url} == {True}
        assert (victim.url, False) in router.replicas.heard


def test_stopping_closes_the_port_and_lets_a_request_end(url: str) -> None:
    arrived, stopped = threading.Event(), threading.Event()

    def route(body: str) -> str:
        arrived.set()
        stopped.wait(60)
        return body

    router = Router(route, Turns([url]))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, router, "/late")
        assert arrived.wait(10)
        router.stop()
        router.stop()  # a second time is nothing
        with pytest.raises(requests.ConnectionError):
            post(router)
        assert not answer.done()
        stopped.set()
        assert answer.result().json() == {"path": "/late"}


def test_a_router_that_nobody_holds_any_more_ends() -> None:
    router = Router(lambda body: "/", Turns([nobody()]))
    port = int(router.url.split(":")[2].split("/")[0])
    assert json.loads(post(router).text)["detail"] == "no server answered"
    del router
    gc.collect()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.02)
    pytest.fail("the port still listens")
