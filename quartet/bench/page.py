"""Make the benchmark's table and plot from its results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from quartet.bench import checking, grading
from quartet.bench.steps import BAR
from utils.tracks import TRACKS

INTRO = """\
# What was measured

Made by `make bench`; [results.json](results.json) has each single time. Every number is the median
of several rounds, in each of which everything that is compared ran once, one after the other. A
ratio is the median of the rounds' own ratios. Times depend on the machine; the ratios less. Plain
kernels have no compile cache either.

{cpus} processors ({machine}), Python {python}; {versions}.

![Seconds to the framework, and of whole runs of nbval](bench.png)
"""


def table(results: dict[str, Any]) -> str:
    """Return the page with a table for each part that was measured, as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    parts = [INTRO.format(**results | {"versions": versions})]
    sections = {
        "starts": _starts,
        "memory": _memory,
        "lessons": _lessons,
        "steps": _steps,
        "tiny": lambda found: _runs(found, "tiny", "Eight tiny notebooks through nbval", "3.5 ×"),
        "tree": lambda found: _runs(found, "tree", "All notebooks through nbval", "3 ×"),
        "grading": lambda found: _grading(found, "grading", "Grading a class"),
        "training": lambda found: _grading(found, "training", "Grading a class that trains"),
        "many": _many,
        "checks": _checks,
        "proof": _proof,
    }
    parts += [section(results) for name, section in sections.items() if results.get(name)]
    return "\n".join(parts)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw seconds to the framework and of the runs of nbval, once both were measured."""
    from matplotlib.figure import Figure

    if not results.get("starts") or not results.get("tree"):
        return
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    entries = [(e["track"], e["mode"], median(e["imported"])) for e in results["starts"]]
    labels = [f"{TRACKS[track].title}, {mode}" for track, mode, _ in entries]
    colors = [TRACKS[track].color for track, _, _ in entries]
    bars = left.barh(labels, [seconds for *_, seconds in entries], color=colors)
    left.bar_label(bars, fmt="%.2f", padding=3)
    left.set_title("Seconds from a kernel's start to its framework")
    runs = [(e["run"], median(e["seconds"])) for e in results["tree"]]
    bars = right.barh(*zip(*runs, strict=True), color="#666666")
    right.bar_label(bars, fmt="%.1f", padding=3)
    right.set_title("Seconds of nbval over all notebooks")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _starts(results: dict[str, Any]) -> str:
    rows, found = [], results["starts"]
    for plain, warm in zip(found[::2], found[1::2], strict=True):
        bar = {"pytorch": "4 ×", "jax": "-"}.get(plain["track"], "8 ×")
        cells = [TRACKS[plain["track"]].title]
        for key in ("first_line", "imported"):
            cells += [_seconds(plain[key]), _seconds(warm[key]), _ratio(plain[key], warm[key])]
        rows.append([*cells, bar, f"{results['warming'][plain['track']]:.1f}"])
    head = ["track", "first line: plain, s", "warm, s", "sooner"]
    head += ["framework imported: plain, s", "warm, s", "sooner", "bar", "to warm up, once, s"]
    return _heading(results, "starts", "From a kernel's start") + _markdown(head, rows)


def _memory(results: dict[str, Any]) -> str:
    rows, found = [], results["memory"]
    for plain, warm in zip(found[::2], found[1::2], strict=True):
        cells = [TRACKS[plain["track"]].title]
        for key in ("pss_mib", "own_mib"):
            share = median(w / p for p, w in zip(plain[key], warm[key], strict=True))
            cells += [f"{median(plain[key]):.0f}", f"{median(warm[key]):.0f}", f"{share:.2f}"]
        rows.append([*cells[:4], "0.33", *cells[4:]])
    head = ["track", "plain, MiB", "second warm kernel, MiB", "share", "bar"]
    head += ["not shared: plain, MiB", "second warm kernel, MiB", "share"]
    text = "All have imported the same: what a lesson uses. The first columns are the proportional "
    text += "set size, which counts a page that n processes share as one n-th. Here the warm "
    text += "process and both of its kernels share, so a kernel that had changed no page at all "
    text += "would still count a third. What is not shared is what one more kernel costs: by so "
    text += "much the proportional set sizes of all processes together grow when it starts.\n\n"
    return _heading(results, "memory", "Memory") + text + _markdown(head, rows)


def _lessons(results: dict[str, Any]) -> str:
    rows = []
    found = results["lessons"]
    for plain, warm, cached in zip(found[::3], found[1::3], found[2::3], strict=True):
        seconds = [each["seconds"] for each in (plain, warm, cached)]
        cells = [plain["lesson"], TRACKS[plain["track"]].title, *map(_seconds, seconds)]
        ratios = [_ratio(seconds[0], each) for each in seconds[1:]]
        rows.append([*cells, *ratios, str(max(cached["peak_mib"]))])
    head = ["lesson", "track", "plain, s", "warm, s", "warm with the compile cache, s"]
    head += ["warm: sooner", "with the cache: sooner", "peak, MiB"]
    return _heading(results, "lessons", "A whole lesson") + _markdown(head, rows)


def _steps(results: dict[str, Any]) -> str:
    rows = []
    for each in results["steps"]:
        own, ready = each["lesson_epoch"], each["builtin_epoch"]
        share = median(a / b for a, b in zip(own, ready, strict=True))
        milli = [f"{1000 * median(seconds):.0f}" for seconds in (own, ready)]
        rows.append([each["lesson"], TRACKS[each["track"]].title, *milli, f"{share:.2f}", str(BAR)])
    head = ["lesson", "track", "the lesson's step, ms", "ready-made, ms", "ratio", "bar"]
    text = "One epoch by the training step that a lesson ends with, and by the framework's own way "
    text += "of doing the same.\n\n"
    return _heading(results, "steps", "Training steps") + text + _markdown(head, rows)


def _runs(results: dict[str, Any], key: str, title: str, bar: str) -> str:
    first = results[key][0]["seconds"]
    rows = [
        [e["run"], _seconds(e["seconds"]), _ratio(first, e["seconds"])]
        + [bar if e["run"].startswith("warm") else "-", _busy(results, e)]
        for e in results[key]
    ]
    text = "Busy is how much of the time of all processors was used, by whatever ran: what is near "
    text += "100 % cannot be sooner without less work. Where two run at a time, OpenMP has one "
    text += "thread in each.\n\n"
    head = ["kernels", "seconds", "sooner", "bar", "busy"]
    return _heading(results, key, title) + text + _markdown(head, rows)


def _busy(results: dict[str, Any], run: dict[str, Any]) -> str:
    """Return the median share of the processors' time that the rounds of a run used."""
    pairs = zip(run["processor_seconds"], run["seconds"], strict=True)
    return f"{median(used / seconds for used, seconds in pairs) / results['cpus']:.0%}"


def _grading(results: dict[str, Any], part: str, title: str) -> str:
    rows, found = [], results[part]
    for slow, fast in zip(found[::2], found[1::2], strict=True):
        track, size = slow["track"], len(slow["points"])
        each = [f"{run['seconds'] / size:.2f}" for run in (slow, fast)]
        ratio = f"{slow['seconds'] / fast['seconds']:.1f} ×"
        same = sum(fast["points"].get(name) == points for name, points in slow["points"].items())
        memory = [str(run["peak_mib"]) for run in (slow, fast)]
        bar = f"{grading.BARS[track]} ×"
        rows.append([TRACKS[track].title, *each, ratio, bar, *memory, f"{same} of {size}"])
    head = ["track", "nbgrader, s each", "quartet, s each", "sooner", "bar"]
    head += ["nbgrader, peak MiB", "quartet, peak MiB", "same points"]
    text = "`nbgrader autograde` and `quartet grade` on the same submissions to "
    text += f"{found[0]['lesson']}: "
    text += "of five, two are right, one has a wrong answer, one an error, and one an empty cell. "
    text += "Each command starts cold and grades the class once. Learners see other inputs than "
    text += "`quartet` grades with, so points may differ. An answer that trains takes as long by "
    text += "either command.\n\n"
    return _heading(results, part, title) + text + _markdown(head, rows)


def _many(results: dict[str, Any]) -> str:
    found = results["many"]
    text = (
        "{submissions} small submissions. `quartet grade` was killed when {kept} results were "
        "there, and started again: {lost} lost, {twice} graded twice, {seconds:.0f} seconds in "
        "all, at most {peak_mib} MiB for everything. The grading process itself took {early_mib} "
        "MiB at most until it had graded a tenth, and {late_mib} MiB at most until the end.\n"
    )
    return _heading(results, "many", "A thousand submissions") + text.format(**found)


def _checks(results: dict[str, Any]) -> str:
    rows = []
    for track, about in TRACKS.items():
        mine = [each for each in results["checks"] if each["track"] == track]
        beyond = {f"{e['lesson'][:2]} `{e['exercise']}`": median(e["seconds"]) for e in mine}
        if not beyond:
            continue
        slowest = max(beyond, key=beyond.__getitem__)
        late = sum(seconds > checking.BAR for seconds in beyond.values())
        numbers = [f"{median(beyond.values()):.3f}", f"{beyond[slowest]:.3f}"]
        rows.append([about.title, str(len(mine)), *numbers, slowest, str(late)])
    head = ["track", "exercises", "median, s", "slowest, s", "which", f"above {checking.BAR} s"]
    text = "What a self-check takes beyond the time that the learner's own function needs: the "
    text += "median of the rounds for each exercise, with the solution as the answer.\n\n"
    return _heading(results, "checks", "Self-checks") + text + _markdown(head, rows)


def _proof(results: dict[str, Any]) -> str:
    runs, plan = results["proof"]["runs"], results["proof"]["plan"]
    first = runs[0]
    rows = [
        [
            f"`{each['run']}`",
            f"{median(each['seconds']):.0f}",
            _ratio(first["seconds"], each["seconds"]),
        ]
        + [f"{median(each['processor_seconds']):.0f}"]
        + [_ratio(first["processor_seconds"], each["processor_seconds"])]
        + [f"{max(each['peak_mib'])}", f"{sum(each['passed'])} of {len(each['passed'])}"]
        for each in runs
    ]
    head = ["commit", "seconds", "sooner", "processor seconds", "less", "peak, MiB", "passed"]
    text = "`make test` in fresh clones, in turns, with empty caches; `JOBS` is the number of "
    text += "workers, where it is not the usual one. Processor time and memory are those of all "
    text += "processes.\n\n"
    more = [[str(e["workers"]), str(e["gib"]), str(e["processor_seconds"])] for e in plan]
    about = "\nWhat more workers would need: memory, as `make test` counts it, and the processor "
    about += "seconds of the one that has most to do.\n\n"
    needs = _markdown(["workers", "GiB", "processor seconds of the busiest"], more)
    heading = _heading({**results, "proof": runs}, "proof", "The whole proof")
    return heading + text + _markdown(head, rows) + about + needs


def _heading(results: dict[str, Any], part: str, title: str) -> str:
    first = results[part][0] if isinstance(results[part], list) else results[part]
    rounds = max((len(value) for value in first.values() if isinstance(value, list)), default=1)
    times = f"{rounds} rounds" if rounds > 1 else "once"
    return f"## {title}\n\nMeasured on {results['measured'][part]}, {times}.\n\n"


def _seconds(values: Iterable[float]) -> str:
    return f"{median(values):.2f}"


def _ratio(slow: list[float], fast: list[float]) -> str:
    return f"{median(s / f for s, f in zip(slow, fast, strict=True)):.1f} ×"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
