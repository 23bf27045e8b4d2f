"""Lesson 32: the page answers, keeps what it is shown, can be used by keyboard, and ends."""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import requests

from utils import browser, data, serving
from utils.browser import visitors

HERE = visitors.HERE
try:
    browser.need()
    MISSING = ""
except ModuleNotFoundError as error:
    MISSING = str(error)
no_chromium = not visitors.chromium() or not importlib.util.find_spec("playwright")
HOSTS = [
    pytest.param(
        "chromium",
        marks=[
            pytest.mark.browser,
            pytest.mark.skipif(bool(no_chromium), reason="no Chromium is installed"),
        ],
    ),
    pytest.param(
        "node", marks=pytest.mark.skipif(not shutil.which("node"), reason="no Node is installed")
    ),
]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


def answer(pictures: np.ndarray, W: np.ndarray) -> np.ndarray:  # (n, 28, 28), (784, 10) -> (n, 10)
    raised = np.exp(pictures.reshape(-1, 784) / np.float32(255) @ W)
    return raised / raised.sum(axis=1, keepdims=True)


def write_layers(folder: Path, W: np.ndarray) -> None:
    """Write a dense layer with a softmax for TensorFlow.js."""
    folder.mkdir()
    configs = [
        ("InputLayer", {"name": "in", "batch_input_shape": [None, 28, 28], "dtype": "float32"}),
        ("Rescaling", {"name": "scale", "scale": 1 / 255, "offset": 0}),
        ("Flatten", {"name": "flat"}),
        ("Dense", {"name": "out", "units": 10, "activation": "softmax", "use_bias": False}),
    ]
    stack = [{"class_name": name, "config": config} for name, config in configs]
    topology = {"class_name": "Sequential", "config": {"name": "tiny", "layers": stack}}
    entry = {"name": "out/kernel", "shape": W.shape, "dtype": "float32"}
    manifest = [{"paths": ["weights.bin"], "weights": [entry]}]
    model = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "weights.bin").write_bytes(W.tobytes())


def write_onnx(path: Path, W: np.ndarray) -> None:
    """Write the same as an ONNX graph."""
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("Div", ["flat", "by"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "W"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    numbers = {"W": W, "by": np.array([255], np.float32)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", float32, ["n", 28, 28])],
        [helper.make_tensor_value_info("probabilities", float32, ["n", 10])],
        [onnx.numpy_helper.from_array(value, name) for name, value in numbers.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)


@pytest.fixture(scope="module")
def W() -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((784, 10)) / 10).astype(np.float32)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return data.load("fashion_mnist")["x_test"][:4].astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, W: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_layers(folder / "layers", W)
    write_onnx(folder / "tiny.onnx", W)
    browser.publish(folder, "layers", "layers/model.json", engine="tfjs", format="layers")
    browser.publish(folder, "onnx", "tiny.onnx", engine="onnx")
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[serving.Server]:
    with browser.serve(folder) as server:
        yield server


@pytest.fixture(scope="module")
def page(site: serving.Server) -> Iterator[visitors.Chromium]:
    visitor = browser.visit(site, "chromium")
    yield visitor
    visitor.close()


def processes() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def left_over(before: set[int]) -> set[int]:
    """Return the new processes that have not ended after a while."""
    end = time.monotonic() + 15
    while processes() - before and time.monotonic() < end:
        time.sleep(0.1)
    return processes() - before


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", ["layers", "onnx"])
def test_javascript_answers_as_python(host, name, site, pictures, W) -> None:
    visitor = browser.visit(site, host)
    visitor.load(name, "wasm")
    assert np.abs(visitor.ask(pictures) - answer(pictures, W)).max() < 1e-5
    with pytest.raises(browser.PageError, match="does not run here|backend|not found"):
        visitor.load(name, "abacus")
    visitor.close()


@pytest.mark.parametrize("host", HOSTS)
def test_a_visitor_ends_when_nothing_refers_to_it(host, site, pictures) -> None:
    gc.collect()
    before = processes()
    visitor = browser.visit(site, host)
    visitor.load("layers", "wasm")
    visitor.ask(pictures)
    assert processes() - before
    del visitor
    gc.collect()
    assert not left_over(before)


@pytest.mark.parametrize("name", ["layers", "onnx"])
@pytest.mark.parametrize("host", HOSTS[:1])
def test_the_table_of_downloads_names_what_a_page_fetches(host, name, site) -> None:
    visitor = browser.visit(site, host)
    visitor.choose(name, "wasm")
    engine = {"layers": "tfjs", "onnx": "onnx"}[name]
    paths = [urlsplit(url).path for url in visitor.requests]
    fetched = {path for path in paths if path.startswith("/runtime/")}
    needed = {f"/runtime/{file.relative_to(visitors.RUNTIME)}" for file in browser.download(engine)}
    others = {f"/runtime/{file.relative_to(visitors.RUNTIME)}" for file in browser.download("tfjs")}
    assert needed <= fetched <= needed | others  # the first model of the chooser is loaded at once
    assert all(url.startswith(site.url) or url.startswith("data:") for url in visitor.requests)
    visitor.close()


@pytest.mark.parametrize("host", HOSTS[:1])
def test_the_page_by_keyboard(host, page, W) -> None:
    page.choose("onnx", "wasm")
    sent = len(page.requests)
    page._do(lambda tab: tab.click("#clear"))
    text = "() => document.querySelector('#answer').textContent"
    assert page.run(text) == "The paper is blank."
    page._do(lambda tab: tab.focus("#paper"))
    for key in ("Space", "Shift+ArrowRight", "ArrowDown", "Space", "Space"):
        page._do(lambda tab, key=key: tab.keyboard.press(key))
    page.run("() => window.answered()")
    drawn = np.zeros((28, 28), np.float32)
    drawn[14, 14:16] = 255  # one cell inked, its neighbor too; a third inked and cleared
    seen = np.array(page.run("() => window.seen()"), np.float32).reshape(28, 28)
    assert np.abs(seen - drawn).max() < 1
    shares = answer(seen[None], W)[0]
    best = data.load("fashion_mnist").classes[int(shares.argmax())]
    assert page.run(text) == f"{best}, {100 * shares.max():.1f} %"
    page._do(lambda tab: tab.locator("#samples button").nth(3).press("Enter"))
    page.run("() => window.answered()")
    assert page.run("() => document.querySelectorAll('[aria-pressed=true]').length") == 1
    assert len(page.requests) == sent


@pytest.mark.parametrize("host", HOSTS[:1])
def test_everything_on_the_page_has_a_name_and_can_be_reached(host, page) -> None:
    unnamed = """() => [...document.querySelectorAll('button, select, input, canvas')]
      .filter((it) => !it.closest('#samples button') || it.matches('button'))
      .filter((it) => !(it.ariaLabel || it.labels?.length || it.textContent.trim()))
      .map((it) => it.outerHTML)"""
    assert page.run(unnamed) == []
    assert page.run("() => document.documentElement.lang") == "en"
    assert page.run("() => document.querySelector('#paper').tabIndex") == 0
    assert page.run("() => document.querySelectorAll('#samples button').length") == 10
    assert page.run("() => document.querySelectorAll('#bars tr').length") == 10


@pytest.mark.parametrize("host", HOSTS[:1])
def test_the_chooser_offers_every_model_and_tells_what_fails(host, site, folder) -> None:
    (folder / "broken.onnx").write_bytes(b"no model")
    browser.publish(folder, "broken", "broken.onnx", engine="onnx")
    visitor = browser.visit(site, host)
    browser.withdraw(folder, "broken")
    options = "() => [...document.querySelectorAll('#model option')].map((it) => it.value)"
    assert visitor.run(options) == ["layers", "onnx", "broken"]
    visitor.choose("onnx")
    assert visitor.run("() => document.querySelector('#trouble').textContent") == ""
    visitor.choose("broken")
    assert "broken on wasm" in visitor.run("() => document.querySelector('#trouble').textContent")
    visitor.close()


@pytest.mark.parametrize("host", HOSTS[:1])
def test_nothing_leaves_the_page(host, page, pictures) -> None:
    page.load("onnx", "wasm")
    before = len(page.requests)
    for number in range(10):
        page.pick(number)
    page.draw([(60, 20), (220, 20), (220, 260), (60, 260)])
    page.ask(pictures)
    assert len(page.requests) == before
    send = """(send) => new Promise((tell) => {
      addEventListener("securitypolicyviolation", (e) => tell(e.effectiveDirective), {once: true});
      send === "fetch" ? fetch("http://127.0.0.1:9/") : new Image().src = "http://127.0.0.1:9/x";
    })"""
    assert page.run(send.replace('fetch("http', 'void fetch("http'), "fetch") == "connect-src"
    assert page.run(send, "image") == "img-src"


@pytest.mark.parametrize("host", HOSTS[:1])
def test_a_script_that_never_answers_is_given_up(host, page, pictures, monkeypatch) -> None:
    page.load("onnx", "wasm")
    with monkeypatch.context() as patch:
        patch.setattr(visitors, "SECONDS", 0.2)
        with pytest.raises(browser.PageError, match="no answer in 0.2 s"):
            page.run("() => new Promise(() => {})")
    assert page.ask(pictures).shape == (len(pictures), 10)  # the page is as it was


@pytest.mark.parametrize("host", HOSTS[:1])
def test_a_notebook_may_hold_the_page_in_a_frame(host, site, tmp_path) -> None:
    frame = f'<!doctype html><iframe src="{site.url}/" width="900" height="700"></iframe>'
    (tmp_path / "index.html").write_text(frame)
    command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
    visitor = browser.visit(site, host)
    with serving.start(command, ready="/", folder=tmp_path) as outer:
        visitor._do(lambda tab: tab.goto(outer.url))
        title = visitor._do(lambda tab: tab.frame_locator("iframe").locator("h1").inner_text())
    visitor.close()
    assert title == "Which garment?"


def test_the_server_gives_only_what_belongs_to_the_page(site, folder) -> None:
    secret = folder.parent / "secret.txt"
    secret.write_text("secret")
    (folder / "link.txt").symlink_to(secret)
    for path in ("/site/../secret.txt", "/site/%2e%2e/secret.txt", "/site/link.txt", "/server.py"):
        request = requests.Request("GET", site.url).prepare()
        request.url = site.url + path  # as it is: `requests` would tidy it
        assert requests.Session().send(request).status_code == 404, path
    assert requests.post(site.url, data=b"drawing", timeout=5).status_code == 501
    answer = requests.get(site.url, timeout=5)
    assert "connect-src 'self';" in answer.headers["Content-Security-Policy"]
    wasm = f"{site.url}/runtime/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"
    assert requests.head(wasm, timeout=5).headers["Content-Type"] == "application/wasm"


def test_what_is_published_must_be_there(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="write the model first"):
        browser.publish(tmp_path, "none", "none.onnx", engine="onnx")
    with pytest.raises(ValueError, match="use tfjs, onnx, litert"):
        browser.publish(tmp_path, "none", "none.onnx", engine="steam")


def test_who_lacks_something_is_told_how_to_get_it(monkeypatch, tmp_path) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(browser, "RUNTIME", tmp_path)
        with pytest.raises(ModuleNotFoundError, match="npm ci"):
            browser.need()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="Chromium"):
        browser.need()


def test_the_packages_are_pinned_and_locked_without_an_address() -> None:
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    locked = json.loads((HERE / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert all("resolved" not in entry for entry in locked.values())
    assert all("integrity" in entry for path, entry in locked.items() if path)
