"""A page that holds a model: publish it, serve it from 127.0.0.1, visit it without a screen.

    browser.publish(folder, "my model", "model.onnx", engine="onnx")
    site = browser.serve(folder)  # a server of utils.serving: site.url, site.stop()
    page = browser.visit(site)  # Chromium without a window; Node where there is no Chromium
    page.load("my model", "wasm")
    page.ask(pictures)  # (n, 28, 28) from 0 to 255 -> (n, 10) probabilities, computed by JavaScript

The models and how they are written stand in the notebooks; what runs them in `page/engines/`.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from IPython.display import display

from utils import data, serving
from utils.browser.visitors import HERE, RUNTIME, Chromium, Node, PageError, chromium

__all__ = [
    "PageError",
    "download",
    "need",
    "publish",
    "serve",
    "show",
    "source",
    "visit",
    "withdraw",
]

# The files that a page fetches to run an engine on WebAssembly, below node_modules.
FILES = {
    "tfjs": (
        "@tensorflow/tfjs/dist/tf.fesm.min.js",
        "@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.fesm.min.js",
        "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm",
    ),
    "onnx": (
        "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    ),
    "litert": (
        "@litertjs/core/dist/index.js",
        "@litertjs/wasm-utils/dist/index.js",
        "@litertjs/core/wasm/litert_wasm_internal.js",
        "@litertjs/core/wasm/litert_wasm_internal.wasm",
    ),
}


def need() -> None:
    """Raise an error that says what to install, where the engines or a visitor are missing."""
    if not all((RUNTIME / name).is_file() for files in FILES.values() for name in files):
        raise ModuleNotFoundError(
            "This lesson also needs the packages of utils/browser/package.json. Install Node 20 or "
            "later with npm, then run `make deploy` in Quartet's folder, or `npm ci "
            f"--ignore-scripts` in {HERE}."
        )
    if not (chromium() and find_spec("playwright")) and not shutil.which("node"):
        raise ModuleNotFoundError(
            "This lesson needs Chromium with the Python package playwright, or Node 20 or later "
            "in its place, and finds neither on the path."
        )


def publish(
    folder: str | Path, name: str, file: str, *, engine: str, format: str | None = None
) -> None:
    """Add a model to the catalog of a folder that is to be served, or replace the one so named.

    name: what the page's chooser says. file: the model, below the folder. engine: "tfjs", "onnx"
    or "litert". format: "layers" or "graph", for tfjs.
    """
    if engine not in FILES:
        raise ValueError(f"Unknown engine {engine!r}: use {', '.join(FILES)}.")
    if not (Path(folder) / file).is_file():
        raise FileNotFoundError(f"There is no {file!r} in {folder}: write the model first.")
    path = Path(folder) / "catalog.json"
    catalog = json.loads(path.read_text()) if path.is_file() else _empty_catalog()
    catalog["models"][name] = {"engine": engine, "file": file, "format": format}
    path.write_text(json.dumps(catalog))


def withdraw(folder: str | Path, name: str) -> None:
    """Take a model out of the catalog; its files stay."""
    path = Path(folder) / "catalog.json"
    catalog = json.loads(path.read_text())
    del catalog["models"][name]
    path.write_text(json.dumps(catalog))


def _empty_catalog() -> dict:
    """Return a catalog without a model: the classes, and one test picture of each."""
    clothes = data.load("fashion_mnist")
    first = [int(np.argmax(clothes["y_test"] == label)) for label in range(len(clothes.classes))]
    samples = [
        {"label": label, "pixels": clothes["x_test"][i].ravel().tolist()}
        for label, i in enumerate(first)
    ]
    return {"classes": list(clothes.classes), "samples": samples, "models": {}}


def serve(folder: str | Path) -> serving.Server:
    """Serve the page with a folder's models on a free port of 127.0.0.1."""
    server = HERE / "server.py"
    return serving.start([sys.executable, "-S", server, "{port}", Path(folder).resolve()], grace=0)


def show(site: serving.Server) -> None:
    """Show the page below a notebook's cell, under a link that opens it in a tab of its own."""
    link = f'<p><a href="{site.url}/" target="_blank" rel="noopener">{site.url}</a></p>'
    frame = f'<iframe src="{site.url}/" title="Which garment?" width="100%" height="680"></iframe>'
    display({"text/html": link + frame, "text/plain": site.url}, raw=True)


def visit(site: serving.Server, host: str | None = None) -> Chromium | Node:
    """Open a site in Chromium without a window; in Node where there is none.

    host: "chromium" or "node" to insist on one of them.
    """
    found = bool(chromium() and find_spec("playwright"))
    return (
        Chromium(site) if (host or ("chromium" if found else "node")) == "chromium" else Node(site)
    )


def source(engine: str) -> str:
    """Return the JavaScript that the page and Node run for an engine."""
    return (HERE / "page" / "engines" / f"{engine}.js").read_text(encoding="utf-8")


def download(engine: str) -> list[Path]:
    """Return the files that a page must fetch to run an engine on WebAssembly, models apart."""
    return [RUNTIME / name for name in FILES[engine]]
