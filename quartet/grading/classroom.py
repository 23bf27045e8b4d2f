"""Grade what a class handed in: many at a time, each result kept at once, and resumed where cut."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quartet import QuartetError, fingerprint
from quartet.grading import intake, report, settings, submission, worker
from quartet.grading.intake import Handed
from quartet.grading.store import NAME, Entry, Key, Row, Store
from quartet.source import lesson_names, resolve
from utils.tracks import ROOT, TRACKS

MOST_WAITING = 64  # submissions in memory at a time
SCHEDULER_SECONDS = 20  # for a Dask scheduler to answer
WORKER_SECONDS = 60  # for its first worker to be there
DECIDING = ("child", "judge", "session", "submission", "worker")  # modules here that make a grade
BYTES_EACH = 2**30  # measured: a submission that trains in a sandbox takes up to 0.7 GB


@dataclass(frozen=True)
class Job(Entry):
    """A submission to grade, and how its notebook is read; `problem` says why it cannot be."""

    read: Callable[[], bytes]
    problem: str = ""


@dataclass(frozen=True)
class Change:
    """How the points of one submission changed when it was graded again."""

    learner: str
    lesson: str
    track: str
    before: float
    after: float


def grade(
    place: Path,
    out: Path,
    wanted: Path | None = None,
    sandbox: bool = True,
    scheduler: str | None = None,
) -> tuple[list[Path], list[str]]:
    """Grade all submissions in a folder or ZIP and write the results to a folder.

    Those that this folder has a result for already are not graded again.

    Parameters
    ----------
    wanted : a TOML file with due dates and weights, see docs/grading.md; None takes the one that
        was given for this folder before.
    sandbox : False runs learners' code with all rights of whoever grades.
    scheduler : address of a Dask scheduler, "tcp://..."; None grades on this machine.

    Returns
    -------
    The files written, and what could not be graded, in words.

    Raises
    ------
    QuartetError if there is nothing to grade, a setting is wrong, or there is no sandbox.
    """
    text = None if wanted is None else settings.read(wanted)
    jobs, problems = sort(intake.find(place))
    store = Store(out)
    _keep(store, settings=text, problems=json.dumps(problems))
    known = {row.key: (row.digest, row.checks) for row in store.rows()}
    new = [job for job in jobs if known.get(job.key) != (job.digest, checks_version(job.lesson))]
    _run(new, store, sandbox, scheduler)
    return _report(out, store), problems


def regrade(
    out: Path, wanted: Path | None = None, sandbox: bool = True, scheduler: str | None = None
) -> list[Change]:
    """Grade again all that a folder holds the results of, as after a check was corrected.

    Points and comments that a person gave stay, and so do the rules, unless there are new ones.
    What was cut off goes on where it stopped, and still knows all points of before.

    Raises
    ------
    QuartetError if the folder holds no results, or there is no sandbox.
    """
    text, store = None if wanted is None else settings.read(wanted), _existing(out)
    store.begin_regrade(_totals(store))
    _keep(store, settings=text)
    done = {key: checks for key, (_, checks) in store.regraded().items()}
    left = [row for row in store.rows() if done[row.key] != checks_version(row.lesson)]
    _run([_again(row, store) for row in left], store, sandbox, scheduler)
    _report(out, store)
    before, after = store.regraded(), _totals(store)
    store.end_regrade()
    pairs = {key: (before[key][0], after[key]) for key in after}
    return [Change(*key, *pair) for key, pair in pairs.items() if pair[0] != pair[1]]


def mark(
    out: Path,
    learner: str,
    lesson: str,
    track: str,
    exercise: str,
    points: float | None,
    comment: str,
) -> None:
    """Keep points, or a comment, that a person gives to an exercise, and write the reports anew.

    Raises
    ------
    QuartetError if there is no such submission or exercise.
    """
    (lesson,) = resolve([lesson], lesson_names())
    store = _existing(out)
    row = next((row for row in store.rows() if row.key == (learner, lesson, track)), None)
    if row is None:
        raise QuartetError(f"{out} holds no submission of {learner!r} for {lesson} in {track}.")
    names = [result["exercise"] for result in row.grade["results"]]
    if exercise not in names:
        raise QuartetError(f"{lesson} has no exercise {exercise!r}. It has: {', '.join(names)}.")
    store.set_manual(row.key, exercise, points, comment)
    _report(out, store)


def _keep(store: Store, **about: str | None) -> None:
    """Keep what reports need besides grades; None leaves what was kept before."""
    for name, text in about.items():
        if text is not None:
            store.set_about(name, text)


def _report(out: Path, store: Store) -> list[Path]:
    """Write all reports, by the rules and problems that are kept."""
    return report.write(out, store, _rules(store), json.loads(store.about("problems") or "[]"))


def _rules(store: Store) -> settings.Rules:
    return settings.parse(store.about("settings"), store.path)


def _existing(out: Path) -> Store:
    if not (out / NAME).is_file():
        raise QuartetError(
            f"{out} holds no results: `quartet grade SUBMISSIONS --out {out}` first."
        )
    return Store(out)


def _totals(store: Store) -> dict[Key, float]:
    """Return each submission's points as they count: with weights, days late, and by hand."""
    rules, manual = _rules(store), store.manual()
    return {
        row.key: report.count(row, rules, manual.get(row.key, {})).total for row in store.rows()
    }


def sort(found: Iterable[Handed]) -> tuple[list[Job], list[str]]:
    """Return the newest notebook of each learner, lesson and track, and remarks on the others."""
    jobs: dict[Key, Job] = {}
    all_jobs, problems = [], []
    for handed in sorted(found, key=lambda each: each.when):
        try:
            all_jobs.append(_job(handed))
        except QuartetError as error:
            problems.append(f"{handed.file}: {error}")
    for job in _told_apart(all_jobs):
        if job.key in jobs:
            problems.append(f"{jobs[job.key].file}: not graded, {job.file} is newer")
        jobs[job.key] = job
    return [jobs[key] for key in sorted(jobs)], problems


def _job(handed: Handed) -> Job:
    """Return what is to be graded of a file that was handed in.

    Raises
    ------
    QuartetError if nothing tells of which lesson and track it is.
    """
    try:
        data = handed.read()
    except OSError as error:
        handed, data = replace(handed, problem=f"it cannot be read: {error.strerror}"), b""
    about = (handed.learner, *subject(handed, data), handed.file, handed.when.isoformat())
    digest = hashlib.sha256(data + handed.problem.encode()).hexdigest()
    return Job(*about, digest, handed.number, handed.read, handed.problem)


def _told_apart(jobs: list[Job]) -> list[Job]:
    """Return jobs in which learners of one name have their number in it.

    A system has another number for each learner. One may also give a learner another number in
    each assignment, so numbers count only where two of them hand in the same lesson and track.
    """
    numbers: dict[Key, set[str]] = defaultdict(set)
    for job in jobs:
        numbers[job.key] |= {job.number} - {""}
    namesakes = {learner for (learner, *_), found in numbers.items() if len(found) > 1}
    return [
        replace(job, learner=f"{job.learner} ({job.number})")
        if job.learner in namesakes and job.number
        else job
        for job in jobs
    ]


def _again(row: Row, store: Store) -> Job:
    problem = "" if store.notebook(row.key) else row.grade["problem"]
    return Job(*_about(row), lambda: store.notebook(row.key), problem)


def _about(entry: Entry) -> tuple[str, ...]:
    return tuple(getattr(entry, each.name) for each in fields(Entry))


def subject(handed: Handed, data: bytes) -> tuple[str, str]:
    """Return which lesson and track a notebook belongs to: by what it says, or by its name.

    Raises
    ------
    QuartetError if neither says so.
    """
    about, problem = {}, handed.problem
    if not problem:
        try:
            about = submission.parse(data, PurePosixPath(handed.file).name).metadata
        except QuartetError as error:
            problem = str(error)
    about = about.get("quartet", {})
    name, lessons = handed.file.lower(), lesson_names()
    lesson = about.get("lesson") or next((each for each in lessons if each in name), None)
    track = about.get("track") or next((each for each in TRACKS if each in name), None)
    if lesson not in lessons or track not in TRACKS:
        raise QuartetError(problem or "it does not say of which lesson and track it is.")
    return lesson, track


def checks_version(lesson: str) -> str:
    """Return what changes when a grade may: checks, what they use, how answers run, packages."""
    checks = ROOT / "lessons" / lesson / "checks.py"
    used = fingerprint.imported([checks.read_text(encoding="utf-8")])
    used |= {ROOT / "quartet" / "grading" / f"{module}.py" for module in DECIDING}
    return fingerprint.of({checks, *used}, fingerprint.installed())[:16]


def prepare(lesson: str, track: str, seed: int) -> None:
    """Grade the solution, which is trusted: it must get all points; JAX keeps what it compiles.

    Raises
    ------
    QuartetError if it does not.
    """
    done = worker.grade(worker.solution(lesson, track).read_bytes(), lesson, track, seed, False)
    short = [each for each in done["results"] if each["points"] < each["max_points"]]
    if short or done["problem"]:
        what = ", ".join(each["exercise"] for each in short)
        raise QuartetError(
            f"Grading stopped: the checks of {lesson} do not give the {track} solution all of its "
            f"points ({what or done['problem']}). Correct lessons/{lesson}/checks.py."
        )


def at_a_time() -> int:
    """Return how many submissions to grade at once: one a processor, as memory allows."""
    free = psutil.virtual_memory().available // BYTES_EACH
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(mine or 1, free))


def _run(jobs: list[Job], store: Store, sandbox: bool, scheduler: str | None) -> None:
    """Grade jobs, keep each result as soon as it is known, and show how far it is."""
    seed, subjects = store.seed(), sorted({(job.lesson, job.track) for job in jobs})
    versions = {lesson: checks_version(lesson) for lesson, _ in subjects}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress, _pool(scheduler) as pool:
        checked = progress.add_task("solutions", total=len(subjects))
        solutions = {each: pool.submit(prepare, *each, seed) for each in subjects}
        for solution in solutions.values():
            solution.add_done_callback(lambda _: progress.advance(checked))
        task = progress.add_task("submissions", total=len(jobs))
        for job, graded in _results(pool, jobs, seed, sandbox):
            solutions[job.lesson, job.track].result()  # nothing is kept before it has all points
            store.put(Row(*_about(job), versions[job.lesson], graded), job.read())
            progress.advance(task)


def _results(
    pool: Executor, jobs: list[Job], seed: int, sandbox: bool
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Give each job with its grade, in the order in which they are done; few wait at a time."""
    left, running = iter(jobs), {}
    while True:
        for job in itertools.islice(left, MOST_WAITING - len(running)):
            grade = (worker.grade, job.read(), job.lesson, job.track, seed, sandbox)
            refuse = (worker.refuse, job.lesson, job.problem)
            running[pool.submit(*(refuse if job.problem else grade))] = job
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _pool(scheduler: str | None) -> AbstractContextManager[Executor]:
    """Return what runs submissions: threads here, each with a process, or a Dask cluster."""
    return _threads() if scheduler is None else _cluster(scheduler)


@contextmanager
def _threads() -> Iterator[Executor]:
    pool = ThreadPoolExecutor(at_a_time())
    try:
        yield pool
    finally:  # after an error or an interrupt, what waits is not begun
        pool.shutdown(cancel_futures=True)


@contextmanager
def _cluster(scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import Client, KilledWorker
    except ModuleNotFoundError:
        raise QuartetError("--scheduler needs Dask: pip install distributed.") from None
    try:
        client = Client(scheduler, timeout=SCHEDULER_SECONDS)
    except OSError as error:
        raise QuartetError(f"No Dask scheduler answers at {scheduler}: {error}.") from None
    with client, client.get_executor(pure=False) as pool:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
            yield pool
        except TimeoutError:
            raise QuartetError(f"The Dask scheduler at {scheduler} has no workers.") from None
        except KilledWorker as error:
            text = f"Dask gave up on a submission whose workers died again and again: {error}"
            raise QuartetError(text) from None
