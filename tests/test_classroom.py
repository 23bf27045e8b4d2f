"""A class's submissions: found in folders and ZIPs, graded once, reported without harm."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import nbformat
import pytest
from distributed import Client

from quartet import QuartetError, fingerprint
from quartet.grading import classroom, intake, report, settings, store, worker

LESSON, TRACK = "03_dense_layers", "jax"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")


def notebook(code: str | None = None) -> bytes:
    """Return a solved notebook without its slow exercise, with other code in the first one."""
    found = nbformat.read(worker.solution(LESSON, TRACK), as_version=4)
    for cell in found.cells:
        if cell.id == "deeper":
            cell.source = "def deeper(*args):\n    raise NotImplementedError"
        if cell.id == "dense_forward" and code is not None:
            cell.source = code
    return nbformat.writes(found).encode()


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a ZIP of names and bytes."""

    def make(files: dict[str, bytes], links: tuple[str, ...] = ()) -> Path:
        path = tmp_path / "handed_in.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                file.writestr(name, data)
            for name in links:
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                file.writestr(entry, "/etc/passwd")
        return path

    return make


# Intake


@pytest.mark.parametrize(
    ("name", "learner"),
    [
        ("Ada Byron_4711_assignsubmission_file_/03_dense_layers.ipynb", "Ada Byron"),
        ("byronada_12_345_03_dense_layers.ipynb", "byronada"),
        ("byronada_LATE_12_345_03_dense_layers-1.ipynb", "byronada"),
        ("ada/deep/down/any.ipynb", "ada"),
        ("ada_03_dense_layers.ipynb", "ada"),
        ("03_dense_layers (Ada).ipynb", "Ada"),
        ("03_dense_layers.ipynb", "03_dense_layers"),
        ("علی/03_dense_layers.ipynb", "علی"),
    ],
)
def test_a_name_says_whose_it_is(name: str, learner: str, zipped: Callable) -> None:
    assert [each.learner for each in intake.find(zipped({name: b"{}"}))] == [learner]


def test_a_zip_cannot_lead_anywhere(zipped: Callable, tmp_path: Path) -> None:
    files = {"../up.ipynb": b"{}", "/etc/root.ipynb": b"{}", "a/../../b.ipynb": b"{}"}
    found = intake.find(zipped(files, links=("eve/link.ipynb",)))
    assert len(found) == 4 and all(each.problem and each.read() == b"" for each in found)
    assert {each.problem for each in found} == {
        "its name leads out of the ZIP file",
        "it is a link; it was not followed",
    }
    assert os.listdir(tmp_path) == ["handed_in.zip"]


def test_a_zip_bomb_is_not_unpacked(zipped: Callable) -> None:
    (found,) = intake.find(zipped({"eve/bomb.ipynb": b"\0" * 10**9}))
    assert "it has 953 MB" in found.problem and found.place.stat().st_size < 2 * 10**6


def test_a_learners_zips_are_bounded_together(
    zipped: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MOST_BYTES", 25)
    files = {f"eve/{i}.ipynb": b"0123456789" for i in range(5)}
    found = intake.find(zipped(files | {"ada/1.ipynb": b"{}"}))
    told = {each.file: each.problem for each in found}
    assert [name for name, text in told.items() if text] == ["eve/3.ipynb", "eve/4.ipynb"]


def test_a_zip_in_a_learners_folder_is_that_learners(zipped: Callable, tmp_path: Path) -> None:
    data = notebook()
    mine = zipped({"ada/03.ipynb": data, "Bob_7_assignsubmission_file_/03.ipynb": data})
    (tmp_path / "class" / "eve").mkdir(parents=True)
    mine.rename(tmp_path / "class" / "eve" / "x.zip")
    (tmp_path / "class" / "link.zip").symlink_to(tmp_path / "class" / "eve" / "x.zip")
    found = intake.find(tmp_path / "class")
    assert [(each.learner, each.number) for each in found if not each.problem] == [("eve", "")] * 2
    (link,) = (each for each in found if each.problem)
    assert link.file == "link.zip" and "not followed" in link.problem


def test_namesakes_are_told_apart_by_their_number(zipped: Callable) -> None:
    data, other = notebook(), notebook().replace(LESSON.encode(), b"04_defining_models")
    name = "Ada Byron_{}_assignsubmission_file_/x.ipynb"
    (one,), _ = classroom.sort(intake.find(zipped({name.format(1): data})))
    assert (one.learner, one.number) == ("Ada Byron", "1")
    jobs, problems = classroom.sort(
        intake.find(zipped({name.format(1): data, name.format(2): data}))
    )
    assert [job.learner for job in jobs] == ["Ada Byron (1)", "Ada Byron (2)"] and not problems
    # Moodle numbers a learner anew in each assignment: this is one of them
    jobs, _ = classroom.sort(intake.find(zipped({name.format(1): data, name.format(2): other})))
    assert [job.learner for job in jobs] == ["Ada Byron", "Ada Byron"]


def test_an_entry_without_a_date_is_taken(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("ada/03.ipynb")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(entry, b"{}")
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 12), (b"PK\x01\x02", 14)):  # month 0, day 0
        place = raw.find(mark) + offset
        raw[place : place + 2] = b"\0\0"
    (tmp_path / "a.zip").write_bytes(raw)
    (found,) = intake.find(tmp_path / "a.zip")
    assert found.when == datetime(1980, 1, 1) and not found.problem


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / "03.ipynb").symlink_to(worker.solution(LESSON, TRACK))
    (found,) = intake.find(tmp_path)
    assert "not followed" in found.problem and found.read() == b""


def test_what_cannot_be_taken_in_is_said(tmp_path: Path) -> None:
    with pytest.raises(QuartetError, match="There is no "):
        intake.find(tmp_path / "missing")
    with pytest.raises(QuartetError, match="holds no notebook"):
        intake.find(tmp_path)
    (tmp_path / "a.zip").write_text("no ZIP")
    with pytest.raises(QuartetError, match="is no ZIP file"):
        intake.find(tmp_path / "a.zip")


def test_the_newest_of_a_learners_notebooks_counts(tmp_path: Path) -> None:
    for name, when in (("old", 1_000_000), ("new", 2_000_000)):
        path = tmp_path / "ada" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(notebook())
        os.utime(path, (when, when))
    (job,), problems = classroom.sort(intake.find(tmp_path))
    assert (job.file, job.key) == ("ada/new.ipynb", ("ada", LESSON, TRACK))
    assert problems == ["ada/old.ipynb: not graded, ada/new.ipynb is newer"]


def test_a_foreign_notebook_is_named(tmp_path: Path) -> None:
    (tmp_path / "ada.ipynb").write_bytes(notebook().replace(b'"quartet"', b'"other"'))
    jobs, problems = classroom.sort(intake.find(tmp_path))
    assert not jobs and "does not say of which lesson and track" in problems[0]


# Rules


def test_days_late_and_weights_change_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        f"late_per_day = 0.1\n[lessons.{LESSON}]\ndue = 2026-11-20T12:00:00\n"
        f"[lessons.{LESSON}.weights]\ndense_forward = 6\n"
    )
    rules = settings.parse(settings.read(path), path)
    results = [{"exercise": "dense_forward", "points": 1, "max_points": 2, "lines": []}]
    grade = {"results": results, "remarks": [], "answers": {}, "problem": "", "seconds": 1}
    row = store.Row("ada", LESSON, TRACK, "f", "2026-11-21T13:00:00", "", "", "", grade)
    counted = report.count(row, rules, {})
    assert (counted.days_late, counted.total, counted.worth) == (2, 2.4, 6)
    by_hand = report.count(row, rules, {"dense_forward": (5.0, "well argued")})
    assert by_hand.total == 4.0 and by_hand.items[0].comment == "well argued"
    assert rules.days_late(LESSON, "2026-11-20T12:00:00") == 0
    assert rules.kept(30) == 0 and isinstance(rules.due[LESSON], datetime)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("late = 1", "'late' has no meaning"),
        ("late_per_day = 2", "a share, from 0 to 1"),
        ("[lessons.99_no]", "there is no lesson '99_no'"),
        (f"[lessons.{LESSON}]\ndue = 'soon'", "is no local time"),
        (f"[lessons.{LESSON}.weights]\nx = 1", "has no exercise 'x'"),
        (f"[lessons.{LESSON}.weights]\ndeeper = -1", "is -1; it is a number"),
        ("=", "cannot be read as TOML"),
    ],
)
def test_a_wrong_rule_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(QuartetError, match=message):
        settings.read(path)


# Reports


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """Return a folder with the results of a learner whose name and code are hostile."""
    evil = "<script>alert(1)</script>"
    results = [{"exercise": "deeper", "points": 1, "max_points": 2, "lines": [[False, evil]]}]
    grade = {"results": results, "remarks": [evil], "answers": {"deeper": evil}}
    grade |= {"problem": "", "seconds": 1.5}
    keep = store.Store(tmp_path / "out")
    for name in (evil, "=HYPERLINK(1)", "../../up", "علی"):
        about = (name, LESSON, TRACK, f"{evil}.ipynb", "2026-11-20T12:00:00", "d", "4711", "c")
        keep.put(store.Row(*about, grade), b"{}")
    report.write(tmp_path / "out", keep, settings.Rules(), [evil])
    return tmp_path / "out"


def test_pages_run_nothing_of_what_was_handed_in(marked: Path) -> None:
    pages = [*(marked / "feedback").iterdir(), marked / "summary.html"]
    assert len(pages) == 5
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text and "default-src 'none'" in text
        assert "&lt;script&gt;" in text or page.name == "summary.html"
    assert all(page.parent.parent == marked for page in (marked / "feedback").iterdir())


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_a_browser_shows_the_pages_and_runs_nothing(marked: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, asked, dialogs = browser.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        for path in [*(marked / "feedback").iterdir(), marked / "summary.html"]:
            page.goto(path.as_uri())
            text = page.inner_text("body")
            assert "1 of 2 points" in text or "Summary of grades" in text
            assert page.locator("script").count() == 0
        width = page.eval_on_selector("img", "plot => plot.naturalWidth")
        browser.close()
    assert width > 500 and not dialogs, "the summary has its plot"
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_gradebooks_are_no_formulas_and_hold_every_learner(marked: Path) -> None:
    rows = list(csv.DictReader((marked / "gradebook.csv").open(encoding="utf-8", newline="")))
    assert {row["learner"] for row in rows} >= {"'=HYPERLINK(1)", "../../up", "علی"}
    assert all(row["points"] == "1.0" and row["worth"] == "2" for row in rows)
    canvas = list(csv.DictReader((marked / "canvas.csv").open(encoding="utf-8", newline="")))
    head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", LESSON]
    assert list(canvas[0]) == head
    assert (canvas[0]["Student"], canvas[0][LESSON]) == ("    Points Possible", "2")
    assert [(row["ID"], row[LESSON]) for row in canvas[1:]] == [("4711", "1.0")] * 4
    moodle = marked / "moodle" / f"{LESSON}.csv"
    rows = list(csv.DictReader(moodle.open(encoding="utf-8", newline="")))
    assert {(row["Identifier"], row["Grade"]) for row in rows} == {("Participant 4711", "1.0")}
    assert {row["Last modified (grade)"] for row in rows} == {"-"}
    assert {row["Feedback comments"] for row in rows} == {"deeper: 1 of 2"}
    (first, *_) = sorted((marked / "gradescope").iterdir())
    assert json.loads(first.read_text(encoding="utf-8"))["tests"][0]["max_score"] == 2


# The whole way

RIGHT = "def dense_forward(x, W, b):\n    return jax.nn.relu(x @ W + b)"


@pytest.fixture
def handed_in(tmp_path: Path) -> Path:
    """Return a folder with the submissions of four learners."""
    folder = tmp_path / "handed_in"
    codes = {"ada": None, "bob": "1 / 0", "eve": "import os\nos._exit(0)", "kim": RIGHT}
    for name, code in codes.items():
        (folder / name).mkdir(parents=True)
        (folder / name / f"{LESSON}.ipynb").write_bytes(notebook(code))
    return folder


def points(out: Path) -> dict[str, float]:
    rows = csv.DictReader((out / "gradebook.csv").open(encoding="utf-8", newline=""))
    return {row["learner"]: float(row["points"]) for row in rows}


EXPECTED = {"ada": 8, "bob": 6, "eve": 6, "kim": 8}


@LINUX
@pytest.mark.slow
def test_a_class_is_graded_marked_by_hand_and_graded_again(
    handed_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    written, problems = classroom.grade(handed_in, out)
    assert points(out) == EXPECTED and not problems
    assert out / "moodle" / f"{LESSON}.csv" in written
    monkeypatch.setattr(worker, "grade", None)  # nothing is graded twice
    classroom.grade(handed_in, out)
    monkeypatch.undo()
    classroom.mark(out, "bob", "03", TRACK, "dense_forward", 1.5, "")
    classroom.mark(out, "bob", "03", TRACK, "dense_forward", None, "a good idea")
    assert points(out) == EXPECTED | {"bob": 7.5}
    (page,) = (out / "feedback").glob("bob*")
    assert "a good idea" in page.read_text(encoding="utf-8")
    assert classroom.regrade(out) == [] and points(out) == EXPECTED | {"bob": 7.5}
    with pytest.raises(QuartetError, match="holds no submission of 'mallory'"):
        classroom.mark(out, "mallory", "03", TRACK, "dense_forward", 1, "")


@pytest.mark.parametrize(
    ("name", "is_graded_again"),
    [
        (f"lessons/{LESSON}/checks.py", True),
        ("utils/checks.py", True),
        ("utils/wire.py", True),
        ("quartet/grading/judge.py", True),
        ("packages/numpy-9.9.dist-info", True),
        (f"lessons/{LESSON}/lesson.md", False),
        ("utils/parity.py", False),
        ("quartet/grading/report.py", False),
    ],
)
def test_what_makes_a_second_grading_grade_again(
    name: str, is_graded_again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (f"lessons/{LESSON}", "utils", "quartet/grading"):
        without = shutil.ignore_patterns("node_modules", "__pycache__")
        shutil.copytree(classroom.ROOT / folder, tmp_path / folder, ignore=without)
    (tmp_path / "packages").mkdir()
    monkeypatch.setattr(fingerprint.sysconfig, "get_path", lambda _: str(tmp_path / "packages"))
    for module in (classroom, fingerprint):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    before = classroom.checks_version(LESSON)
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    assert (classroom.checks_version(LESSON) != before) == is_graded_again


@LINUX
@pytest.mark.slow
def test_a_corrected_check_shows_whose_points_change(
    handed_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    classroom.grade(handed_in / "ada", out)
    exercises = worker.checks.load_exercises(LESSON)
    fewer = {name: exercises[name] for name in ("dense_forward", "deeper")}
    monkeypatch.setattr(worker.checks, "load_exercises", lambda lesson: fewer)
    with monkeypatch.context() as broken:  # cut off when all is graded, before it is told
        broken.setattr(report, "write", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            classroom.regrade(out)
    with monkeypatch.context() as done:
        done.setattr(worker, "grade", None)  # what was graded again is not graded once more
        (change,) = classroom.regrade(out)
    assert (change.before, change.after) == (8, 2)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@LINUX
@pytest.mark.slow
def test_rules_and_what_was_not_graded_outlive_a_regrade(handed_in: Path, tmp_path: Path) -> None:
    rules, out = tmp_path / "rules.toml", tmp_path / "out"
    rules.write_text(f"[lessons.{LESSON}.weights]\ndense_forward = 20\n")
    (handed_in / "ada" / "notes.ipynb").write_bytes(b"{}")
    _, problems = classroom.grade(handed_in / "ada", out, rules)
    assert points(out) == {"03_dense_layers": 26} and len(problems) == 1
    assert classroom.regrade(out) == [] and points(out) == {"03_dense_layers": 26}
    assert "notes.ipynb" in (out / "summary.html").read_text(encoding="utf-8")
    rules.write_text(f"[lessons.{LESSON}.weights]\ndense_forward = 2\n")
    (change,) = classroom.regrade(out, rules)
    assert (change.before, change.after) == (26, 8)


BROKEN = {  # what is in a file -> what its learner is told
    "no cell type": ('{"cells": [{"source": "", "metadata": {}}]', "its cells cannot be read"),
    "a list as track": ('{"cells": []', "its cells cannot be read"),
    "a merge conflict": ("<<<<<<< mine\n{", "line 1 is a mark of a merge conflict"),
    "empty": ("", "the file is empty"),
    "no JSON": ("PK", "it is not JSON"),
    "too large": (" " * (51 * 2**20), "more than 50"),
}


@LINUX
@pytest.mark.slow
def test_a_broken_file_costs_only_its_own_learner(tmp_path: Path) -> None:
    handed_in, out = tmp_path / "class", tmp_path / "out"
    for name, (text, _) in BROKEN.items():
        path = handed_in / name / f"{LESSON}_{TRACK}.ipynb"
        path.parent.mkdir(parents=True)
        track = '["jax"]' if name == "a list as track" else f'"{TRACK}"'
        about = f'"metadata": {{"quartet": {{"lesson": "{LESSON}", "track": {track}}}}}'
        rest = f', {about}, "nbformat": 4, "nbformat_minor": 5}}' if text.startswith("{") else ""
        path.write_text(text + rest)
    for name in ("ada", "torn"):
        (handed_in / name).mkdir()
    (handed_in / "ada" / f"{LESSON}.ipynb").write_bytes(notebook('raise ValueError("\\ud800")'))
    (handed_in / "torn" / "work.zip").write_bytes(b"PK no ZIP")
    _, problems = classroom.grade(handed_in, out)
    assert [text for text in problems if "torn/work.zip" in text] == problems and problems
    assert points(out) == dict.fromkeys(BROKEN, 0) | {"ada": 6}
    for name, (_, said) in BROKEN.items():
        (page,) = (out / "feedback").glob(f"{name}-*")
        text = page.read_text(encoding="utf-8")
        assert "It could not be graded" in text and said in text, name


@LINUX
@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(handed_in: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "quartet.cli", "grade", handed_in, "--out", out]
    store.Store(out)  # so that its results can be counted from the start
    one = {min(os.sched_getaffinity(0))}  # a processor: results come one after the other
    for wanted in (1, 2):  # killed twice, each time after one more result
        run = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, one),
        )
        end = time.monotonic() + 120
        while run.poll() is None and time.monotonic() < end and len(_rows(out)) < wanted:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
    kept = {row.learner: row.grade for row in _rows(out)}
    assert 2 <= len(kept) < len(EXPECTED), "it was killed before it was done"
    classroom.grade(handed_in, out)
    assert points(out) == EXPECTED
    assert all(row.grade == kept.get(row.learner, row.grade) for row in _rows(out))


def _rows(out: Path) -> list[store.Row]:
    return store.Store(out).rows() if (out / store.NAME).is_file() else []


def test_a_solution_that_fails_its_own_check_stops_the_grading(
    handed_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"results": [{"exercise": "deeper", "points": 1, "max_points": 2}], "problem": ""}
    monkeypatch.setattr(worker, "grade", lambda *args: short)
    with pytest.raises(QuartetError, match="Grading stopped: the checks of 03_dense_layers"):
        classroom.grade(handed_in, tmp_path / "out")
    assert not _rows(tmp_path / "out")


def test_a_scheduler_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(QuartetError, match="No Dask scheduler answers at tcp://127.0.0.1:1"),
        classroom._cluster("tcp://127.0.0.1:1"),
    ):
        pass


@pytest.fixture
def dask() -> Iterator[Callable[..., str]]:
    """Return a function that starts a Dask scheduler on loopback, and workers; it says where."""
    processes = []

    def start(workers: int = 0) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        address = f"tcp://127.0.0.1:{port}"
        scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
        one = ["dask_worker", address, "--nthreads", "1", "--no-nanny"]
        for name, *options in (scheduler, *[one] * workers):
            command = [sys.executable, "-m", f"distributed.cli.{name}", *options, "--no-dashboard"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen(command, **quiet))
        with Client(address, timeout=60, set_as_default=False):
            return address  # it answers

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def cluster(dask: Callable[..., str]) -> Iterator[Client]:
    """Return a client of a cluster with two workers."""
    with Client(dask(workers=2), timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


@LINUX
@pytest.mark.slow
def test_a_cluster_grades_each_submission_once_though_a_worker_dies(
    handed_in: Path, tmp_path: Path, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = cluster
    pids = client.run(os.getpid)
    kept, lost = [], []
    put = store.Store.put

    def put_and_kill(self: store.Store, row: store.Row, notebook: bytes) -> None:
        put(self, row, notebook)
        kept.append(row.learner)
        at_work = [address for address, tasks in client.processing().items() if tasks]
        if at_work and not lost:
            lost.append(at_work[0])
            os.kill(pids[at_work[0]], signal.SIGKILL)

    monkeypatch.setattr(store.Store, "put", put_and_kill)
    monkeypatch.setattr(classroom, "prepare", print)  # no result is kept before it has ended
    classroom.grade(handed_in, tmp_path / "out", scheduler=client.scheduler.address)
    assert lost, "the worker died with submissions in hand"
    assert points(tmp_path / "out") == EXPECTED
    assert sorted(kept) == sorted(EXPECTED)


def test_a_cluster_without_workers_is_named(
    dask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classroom, "WORKER_SECONDS", 1)
    address = dask()
    with pytest.raises(QuartetError, match="has no workers"), classroom._cluster(address):
        pass
