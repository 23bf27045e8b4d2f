"""Who opens the page: Chromium without a window, or Node, which runs the page's modules alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from utils.bench import Timing, Timings
from utils.serving import Server

HERE = Path(__file__).resolve().parent
RUNTIME = HERE / "node_modules"
ROUNDS = 9
SECONDS = 120  # that a script may take
FLAGS = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--enable-unsafe-webgpu",  # WebGPU by the processor, where there is no GPU
    "--use-webgpu-adapter=swiftshader",
)


class PageError(RuntimeError):
    """What JavaScript threw."""


def chromium() -> str | None:
    """Return the path of a Chromium or Chrome, None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class _Visitor:
    """What both can do: load a model, ask it, time it."""

    host = ""
    has_window = False

    def __init__(self) -> None:
        self._key = ""

    def _call(self, method: str, *args: Any) -> Any:
        raise NotImplementedError

    def load(self, name: str, backend: str = "wasm") -> None:
        """Load a published model; `ask` then asks it.

        Raises PageError with what the engine said, where it cannot.
        """
        self._key = self._call("load", name, backend)

    def ask(self, pictures: np.ndarray) -> np.ndarray:
        """Return what the loaded model answers: (n, 28, 28) from 0 to 255 -> (n, 10) float32."""
        flat = np.asarray(pictures, np.float32).ravel().tolist()
        return np.array(self._call("ask", self._key, flat), np.float32).reshape(len(pictures), -1)

    def from_canvas(self, rgba: np.ndarray) -> np.ndarray:
        """Return what the page makes of a canvas: (side, side, 4) bytes -> (28, 28) float32."""
        flat = np.asarray(rgba, np.uint8).ravel().tolist()
        pixels = self._call("fromCanvas", flat, len(rgba))
        return np.array(pixels, np.float32).reshape(28, 28)

    def time(self, choices: Sequence[tuple[str, str]], picture: np.ndarray) -> Timings:
        """Time loaded models on one picture, side by side, by the page's own clock.

        choices: pairs of a model's name and a backend. Names of the result: "model on backend".
        """
        keys = [self._call("load", *choice) for choice in choices]
        flat = np.asarray(picture, np.float32).ravel().tolist()
        taken = self._call("time", keys, flat, ROUNDS)
        seconds = {key: np.divide(ms, 1e3).tolist() for key, ms in taken.items()}
        return Timings({key: Timing(s[0], tuple(s[1:])) for key, s in seconds.items()})


class Chromium(_Visitor):
    """The page in Chromium. `host` names it; `requests` are all that it ever asked of a network."""

    has_window = True

    def __init__(self, site: Server) -> None:
        super().__init__()
        self.requests: list[str] = []
        # Playwright's plain interface does not run where a notebook's event loop runs: a thread.
        self._thread = ThreadPoolExecutor(1)
        opened = self._thread.submit(_open, site.url, self.requests)
        driver, browser, self._page = opened.result()
        self.host = f"Chromium {browser.version.split('.')[0]}"
        self._end = weakref.finalize(self, _close, self._thread, browser, driver)

    def _do(self, action: Callable[..., Any], *args: Any) -> Any:
        """Return action(page, *args); it must not hold `self`, or nothing would ever close."""
        return self._thread.submit(action, self._page, *args).result()

    def _call(self, method: str, *args: Any) -> Any:
        return self.run("([method, ...args]) => window.visit[method](...args)", [method, *args])

    def run(self, script: str, argument: Any = None) -> Any:
        """Run a JavaScript function in the page, and return what it returns.

        Raises PageError with the first line of what it throws, or where it does not answer in time.
        """
        from playwright.sync_api import Error

        try:
            return self._do(_evaluate, script, argument)
        except Error as error:
            raise PageError(_said(error.message)) from None

    def pick(self, number: int) -> None:
        """Click on one of the ten pictures, as a visitor does."""
        self._do(_pick, number)

    def choose(self, name: str, backend: str | None = None) -> None:
        """Choose a model, and where it runs, in the page's own lists; wait until it is loaded."""
        self._do(_choose, name, backend)

    def draw(self, outline: np.ndarray) -> np.ndarray:
        """Draw an outline with the mouse: (k, 2) points x, y from 0 to 280 -> what the model sees.

        The page fills it when the button is let go. Returns (28, 28) float32.
        """
        pixels = self._do(_draw, np.asarray(outline).tolist())
        return np.array(pixels, np.float32).reshape(28, 28)

    def screenshot(self) -> bytes:
        """Return what a visitor sees, as a PNG."""
        return self._do(lambda page: page.screenshot())

    def close(self) -> None:
        """End Chromium."""
        self._end()


def _open(url: str, requests: list[str]) -> tuple[Any, Any, Any]:
    """Start Chromium, open the page, and keep writing down what it asks for."""
    from playwright.sync_api import sync_playwright

    driver = sync_playwright().start()
    # Chromium's own sandbox does not run for root.
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    browser = driver.chromium.launch(executable_path=chromium(), args=flags)
    page = browser.new_page(viewport={"width": 960, "height": 640})
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    page.wait_for_selector("body[data-ready]", state="attached", timeout=60_000)
    return driver, browser, page


def _evaluate(page: Any, script: str, argument: Any = None) -> Any:
    """Run a JavaScript function, and let it fail where what it awaits does not come.

    Playwright limits all else, but not this: a WebGPU adapter that never answers would hang us. The
    limit stands in the page, so that this thread is free again, and can close Chromium.
    """
    late = f"new Error('no answer in {SECONDS} s')"
    limit = f"new Promise((_, fail) => setTimeout(() => fail({late}), {SECONDS * 1000}))"
    return page.evaluate(f"(it) => Promise.race([({script})(it), {limit}])", argument)


def _pick(page: Any, number: int) -> None:
    page.locator("#samples button").nth(number).click()
    _evaluate(page, "() => window.answered()")


def _choose(page: Any, name: str, backend: str | None) -> None:
    loaded = "() => document.querySelector('#answer').textContent !== 'Loading the model.'"
    page.select_option("#model", name)
    page.wait_for_function(loaded)
    if backend and page.input_value("#backend") != backend:
        page.select_option("#backend", backend)
        page.wait_for_function(loaded)


def _draw(page: Any, points: list[list[float]]) -> list[float]:
    box = page.locator("#paper").bounding_box()
    places = [(box["x"] + x, box["y"] + y) for x, y in [*points, points[0]]]
    page.click("#clear")
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()
    _evaluate(page, "() => window.answered()")
    return page.evaluate("() => window.seen()")


def _close(thread: ThreadPoolExecutor, browser: Any, driver: Any) -> None:
    def close() -> None:
        browser.close()
        driver.stop()

    with contextlib.suppress(Exception):  # it is closed already, or the interpreter ends
        thread.submit(close).result(10)
    thread.shutdown(wait=False)


class Node(_Visitor):
    """The page's modules in Node: no window, no canvas, no GPU. `requests` reached the server."""

    def __init__(self, site: Server) -> None:
        super().__init__()
        self._site = site
        version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        self.host = f"Node {version.stdout.strip().lstrip('v').split('.')[0]}"
        self._node = subprocess.Popen(
            ["node", HERE / "node.mjs", site.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _end, self._node)

    def _call(self, method: str, *args: Any) -> Any:
        self._node.stdin.write(json.dumps([method, *args]) + "\n")
        self._node.stdin.flush()
        line = self._node.stdout.readline()
        if not line:
            raise PageError("Node ended.")
        reply = json.loads(line)
        if "error" in reply:
            raise PageError(_said(reply["error"]))
        return reply["value"]

    @property
    def requests(self) -> list[str]:
        """What the server has been asked for, by its log."""
        return re.findall(r'"GET (\S+)', self._site.text)

    def close(self) -> None:
        """End Node."""
        self._end()


def _end(node: subprocess.Popen) -> None:
    node.stdin.close()  # with its standard input it ends, also where this process is killed
    node.stdout.close()
    try:
        node.wait(5)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def _said(message: str) -> str:
    """Return what an error says, without JavaScript's stack and the names of its classes."""
    lines = takewhile(lambda line: not line.startswith("    at "), message.splitlines())
    return re.sub(r"^(Page\.evaluate: )?((\w*Error|\w\w): )?", "", " ".join(lines))
