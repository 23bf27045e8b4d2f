"""Servers of the lessons: they answer, tell why they do not, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
import requests

from utils import extras, serving

HTTP = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
# A server whose child leaves its session and ignores SIGTERM, as TorchServe's and Ray's do.
STRAY = """
    import http.server, os, signal, sys
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.pause()
        os._exit(0)
    os.wait()
    http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""
ECHO = """
    import http.server, sys
    class Echo(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            self.answer(200, b"{}")
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(400 if body == b"3" else 200, body)
        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_): pass
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), "{port}"]


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def nothing_left(processes: list[psutil.Process], port: int, seconds: float = 10) -> bool:
    gone, alive = psutil.wait_procs(processes, seconds)
    with socket.socket() as probe:
        return not alive and probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_answers_and_is_gone_after_its_block():
    with serving.start(HTTP, ready="/") as server:
        assert requests.get(server.url, timeout=5).status_code == 200
        processes = family(server._guard.pid)
        assert server.alive and server.pid in {process.pid for process in processes}
    assert nothing_left(processes, server.port)


def test_what_a_server_started_ends_with_it():
    server = serving.start(python(STRAY), ready="/", grace=1)
    deadline = time.monotonic() + 5
    while len(processes := family(server._guard.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes) == 3, "the guard, the server and its stray child"
    server.stop()
    assert nothing_left(processes, server.port)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_killed_kernel_leaves_no_server(name):
    code = f"""
        import time
        from utils import serving
        server = serving.start({python(STRAY)!r}, ready="/")
        print(server._guard.pid, server.port, flush=True)
        time.sleep(60)
    """
    kernel = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    guard, port = map(int, kernel.stdout.readline().split())
    processes = family(guard)
    os.kill(kernel.pid, getattr(signal, name))
    kernel.wait()
    assert nothing_left(processes, port)


def test_a_server_that_nothing_refers_to_ends():
    server = serving.start(HTTP, ready="/")
    processes, port = family(server._guard.pid), server.port
    del server
    assert nothing_left(processes, port)


def test_a_server_that_ends_says_why():
    code = "print('the model is missing', flush=True); raise SystemExit(3)"
    with pytest.raises(serving.ServerError, match="ended with 3") as caught:
        serving.start(python(code))
    assert str(caught.value).endswith("\nthe model is missing")


def test_a_server_that_never_answers_is_ended():
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(serving.ServerError, match="No answer from .*/health in 1 s") as caught:
        serving.start(python(code), seconds=1)
    assert not psutil.pid_exists(int(str(caught.value).splitlines()[-1]))


def test_load_counts_what_was_answered_and_what_was_not():
    with serving.start(python(ECHO), ready="/") as server:
        seen = serving.load(server.url, [1, 2, 3, 4], clients=3, requests=40)
    assert seen.statuses == {200: 30, 400: 10}
    assert seen.failed == 10 and len(seen.latencies) == 30
    assert all(answer == [1, 2, 3, 4][i % 4] for i, answer in seen.answers.items())
    assert 0 < seen.percentile(50) <= seen.percentile(99) and seen.throughput > 0


def test_load_on_a_dead_server_is_an_error_and_no_exception():
    seen = serving.load(f"http://127.0.0.1:{serving.free_port()}", [1], clients=2, requests=6)
    assert seen.statuses == {"ConnectionRefusedError": 6} and seen.failed == 6


def test_missing_packages_are_named_with_the_command_that_helps():
    extras.need("json")
    with pytest.raises(ModuleNotFoundError, match="needs no_such_package.*make deploy"):
        extras.need("json", "no_such_package")
