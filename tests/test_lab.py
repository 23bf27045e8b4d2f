"""A lesson and an exercise in a real JupyterLab in Chromium, as a learner uses them."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.provisioning import KernelProvisionerFactory

from quartet.warm import client, provisioner
from utils import checks, parity
from utils.tracks import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TOKEN = "for-the-test"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed"),
]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what a learner opens, so that autosave does not touch the checkout."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("notebooks", "exercises"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "START.ipynb", folder)
    return folder


@pytest.fixture(scope="module")
def runtime() -> Iterator[None]:
    """Give the kernels warm processes of their own, and end them; the folder's name is short."""
    folder = Path(tempfile.mkdtemp(prefix="lab"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        for name in ("QUARTET_WARM", KernelProvisionerFactory.default_provisioner_name_env):
            patch.delenv(name, raising=False)  # as it is under `make lab`
        yield
        for status in client.running():
            with contextlib.suppress(OSError):  # it has ended by itself since
                client.stop(status.socket)
    shutil.rmtree(folder)


# What `make lab` runs, but on a copy, with a token that is known, and without warming all tracks.
START_LAB = """
import sys
from pathlib import Path
from quartet import lab
port, folder, token = sys.argv[1:]
usual = lab.arguments
lab.arguments = lambda port: [*usual(port, Path(folder)), f"--IdentityProvider.token={token}"]
lab.has_screen = lambda: False
lab.provisioner.warm_in_background = lambda: None
lab.lab(int(port))
"""


@pytest.fixture(scope="module")
def lab(course: Path, runtime: None) -> Iterator[str]:
    """Start JupyterLab on the copy; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", START_LAB, str(port), str(course), TOKEN]
    with open(course / "lab.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: urllib.request.urlopen(f"{address}/api?token={TOKEN}").status == 200, 60)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(120)  # it ends its kernels first
        finally:
            server.kill()


@pytest.fixture(scope="module")
def page(lab: str) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=quiet)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(f"{lab}/lab/tree/START.ipynb?token={TOKEN}&reset")
        page.wait_for_selector(".jp-Notebook", timeout=60_000)
        yield page
        browser.close()


def _wait(condition, seconds: float) -> None:
    """Wait until a condition holds; raise TimeoutError after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"not so after {seconds} s")


def _kernel(lab: str, path: str) -> dict:
    """Return what the server says of a notebook's kernel, {} if it has none."""
    with urllib.request.urlopen(f"{lab}/api/sessions?token={TOKEN}") as answer:
        sessions = json.load(answer)
    return next((each["kernel"] for each in sessions if each["path"] == path), {})


def _is_ready(kernel: dict) -> bool:
    """Return whether a kernel is idle and a page connected to it."""
    return bool(kernel and kernel["execution_state"] == "idle" and kernel["connections"])


def _run_all(page, lab: str, course: Path, path: str, seconds: float) -> nbformat.NotebookNode:
    """Open a notebook, run it from the menu, save it; return it as it is then on disk."""
    page.goto(f"{lab}/lab/tree/{path}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook", timeout=60_000)
    _wait(lambda: _is_ready(_kernel(lab, path)), 60)
    page.wait_for_selector("[data-status='idle']", timeout=60_000)
    _wait(lambda: _click_run_all(page), 60)

    def done() -> bool:
        page.keyboard.press("Control+s")
        try:
            notebook = nbformat.read(course / path, as_version=4)
        except nbformat.reader.NotJSONError:  # it is being saved
            return False
        last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
        return last.execution_count is not None

    _wait(done, seconds)
    return nbformat.read(course / path, as_version=4)


def _click_run_all(page) -> bool:
    """Click Run, Run All Cells; return whether a cell then waits, runs or has run.

    On a busy machine JupyterLab sometimes drops the click: whoever sees that clicks again.
    """
    from playwright.sync_api import TimeoutError as NotSeen

    page.keyboard.press("Escape")  # a menu that is open would be shut by the next click
    try:
        page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5_000)
        page.get_by_text("Run All Cells", exact=True).click(timeout=5_000)
    except NotSeen:
        return False
    page.wait_for_timeout(2_000)
    prompts = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-InputArea-prompt")
    return any(text.strip("[] :") for text in prompts.all_inner_texts())


def _is_told(page, text: str) -> bool:
    """Click Run All Cells; return whether JupyterLab then shows a text."""
    from playwright.sync_api import TimeoutError as NotSeen

    if not page.get_by_text(text).is_visible():
        _click_run_all(page)
    with contextlib.suppress(NotSeen):
        page.get_by_text(text).wait_for(timeout=20_000)
    return page.get_by_text(text).is_visible()


def _forked() -> set[int]:
    """Return the warm kernels; those of a process that is too busy to answer are missing."""
    return {pid for status in client.running() for pid in status.kernels}


def test_start_opens_with_its_table_of_lessons(page) -> None:
    page.wait_for_selector(".jp-Notebook a:has-text('exercises')", timeout=30_000)
    assert not page.get_by_text(
        "Would you like to get notified about official Jupyter news"
    ).count()


def test_a_lesson_runs_from_the_menu(page, lab: str, course: Path, tmp_path: Path) -> None:
    path = "notebooks/pytorch/03_dense_layers.ipynb"
    notebook = _run_all(page, lab, course, path, 240)
    page.screenshot(path=str(tmp_path / "lesson.png"))
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert not [o.evalue for o in outputs if o.output_type == "error"]
    assert not [o.text for o in outputs if o.get("name") == "stderr"]
    assert len(parity.read_records(notebook)["loss"]) == 1000


def test_an_untouched_exercise_answers_at_once(page, lab: str, course: Path) -> None:
    path = "exercises/pytorch/03_dense_layers.ipynb"
    notebook = _run_all(page, lab, course, path, 120)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    found = [o.data[checks.MIME] for o in outputs if checks.MIME in o.get("data", {})]
    assert len(found) == 5 and all(entry["points"] < entry["max_points"] for entry in found)


@pytest.mark.skipif(not provisioner.can_fork(), reason="kernels are forked on Linux only")
def test_a_crash_is_shown_and_the_kernel_restarts(page, lab: str, course: Path) -> None:
    path = "notebooks/pytorch/crash.ipynb"
    cells = [nbformat.v4.new_code_cell("import os; os._exit(1)")]
    spec = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})
    nbformat.write(notebook, course / path)
    page.goto(f"{lab}/lab/tree/{path}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook", timeout=60_000)
    _wait(lambda: _is_ready(_kernel(lab, path)), 60)
    _wait(_forked, 60)  # the kernel is a warm one
    forked = _forked()
    _wait(lambda: _is_told(page, "appears to have died. It will restart automatically"), 90)
    page.get_by_role("button", name="Ok", exact=True).click()
    _wait(lambda: _is_ready(_kernel(lab, path)), 60)
    _wait(lambda: _forked() - forked, 60)
