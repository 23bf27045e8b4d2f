"""The command `quartet`: build, run, record and measure the notebooks, and open JupyterLab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from quartet import QuartetError

Lessons = Annotated[
    list[str] | None,
    typer.Argument(metavar="LESSON", help="As 03, 03_dense_layers or a path. None: all."),
]

Tracks = Annotated[
    list[str] | None,
    typer.Argument(metavar="TRACK", help="keras, pytorch, tensorflow or jax. None: all."),
]

Lesson = Annotated[str, typer.Argument(metavar="LESSON", help="As 03 or 03_dense_layers.")]
Exercise = Annotated[str, typer.Argument(metavar="EXERCISE", help="As check cells name it.")]
OneTrack = Annotated[
    str,
    typer.Option("--track", "-t", help="keras, pytorch, tensorflow or jax.", show_default=False),
]

Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Settings = Annotated[
    Path | None, typer.Option(help="TOML file with due dates and weights: docs/grading.md.")
]
Sandbox = Annotated[
    bool,
    typer.Option("--sandbox/--no-sandbox", help="Without: learners' code has all your rights."),
]
Scheduler = Annotated[
    str | None, typer.Option(help="Spread the work over a Dask cluster: tcp://HOST:PORT.")
]

Kind = Literal["notebook", "solution"]

TEACH = ("jupytext", "nbgrader")  # the extra that building needs and learning does not
REMEDY = "Run `pip install --constraint constraints.txt --editable '.[teach]'`."


class _Group(TyperGroup):
    """Commands whose expected errors are shown as one message instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except QuartetError as error:
            typer.echo(str(error), err=True)
        except ModuleNotFoundError as error:
            if error.name not in TEACH:
                raise
            typer.echo(f"This needs {error.name}, which is not installed. {REMEDY}", err=True)
        except OSError as error:
            typer.echo(f"A file cannot be read or written: {error}.", err=True)
        raise typer.Exit(1) from None


class _RunCommand(TyperCommand):
    """A command whose `-p NAME VALUE` takes two words, as papermill's does."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        joined, rest = [], iter(args)
        for arg in rest:
            joined.append(arg)
            if arg in ("-p", "--parameter"):
                joined.append("=".join(word for _, word in zip(range(2), rest, strict=False)))
        return super().parse_args(ctx, joined)


kernels = typer.Typer(
    help="Show the processes that warm kernels are forked from, start or stop them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app = typer.Typer(
    cls=_Group,
    help="Quartet: one lesson, four frameworks, the same numbers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def build(
    lessons: Lessons = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; report what is not in step.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite exercises that someone has worked in.")
    ] = False,
) -> None:
    """Build notebooks/, exercises/ and solutions/ from lessons/."""
    from quartet import build as builder
    from quartet.source import Refused

    if not check:
        written = builder.build(lessons or (), force=force)
        typer.echo(f"{len(written)} files written." if written else "Everything is in step.")
    elif problems := builder.check(lessons or ()):
        raise Refused(problems)
    else:
        typer.echo("Everything is in step.")


@app.command(cls=_RunCommand)
def run(
    lessons: Lessons = None,
    track: Annotated[
        list[str] | None, typer.Option("--track", "-t", help="A track; can be repeated. None: all.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME VALUE", help="Set a parameter; can be repeated."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs"),
    html: Annotated[bool, typer.Option("--html", help="Write HTML instead of notebooks.")] = False,
    kind: Annotated[
        Kind, typer.Option(help="The lessons themselves, or the solutions.")
    ] = "notebook",
) -> None:
    """Run notebooks, with other parameters if wanted; show time and memory."""
    from quartet import run as runner

    parameters = dict(_name_and_value(each) for each in parameter or ())
    runs = runner.run(lessons or (), track or (), parameters, out, kind, html)
    failed = [each for each in runs if each.outcome.error]
    typer.echo(f"Results are in {out}.")
    for each in failed:
        typer.echo(f"{each.result}: {each.outcome.error}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def check(
    lessons: Lessons = None,
    track: Annotated[
        list[str] | None, typer.Option("--track", "-t", help="A track; can be repeated. None: all.")
    ] = None,
) -> None:
    """Grade your own exercises with other inputs than the notebook's; show the points."""
    from quartet import learner

    if any(each.problem for each in learner.check(lessons or (), track or ())):
        raise typer.Exit(1)


@app.command()
def hint(lesson: Lesson, exercise: Exercise) -> None:
    """Show the next hint to an exercise."""
    from quartet import learner

    typer.echo(learner.hint(lesson, exercise))


@app.command()
def solution(lesson: Lesson, exercise: Exercise, track: OneTrack) -> None:
    """Show the solution of an exercise, after an attempt or when asked twice."""
    from quartet import learner

    typer.echo(learner.solution(lesson, exercise, track))


@app.command()
def reset(lesson: Lesson, track: OneTrack) -> None:
    """Start an exercise notebook afresh; the work so far is kept beside it."""
    from quartet import learner

    path, kept = learner.reset(lesson, track)
    typer.echo(f"As it was: {path}" + (f"\nYour work is kept: {kept}" if kept else ""))


@app.command()
def release(
    lessons: Annotated[
        list[str], typer.Argument(metavar="LESSON", help="As 03, 03_dense_layers or a path.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the copy.")],
    self_check: Annotated[
        bool,
        typer.Option("--self-check", help="Hand out the check cells' inputs and results, too."),
    ] = False,
) -> None:
    """Make what a class is handed out: the course without references and solutions."""
    from quartet.grading.release import release as make

    written = make(lessons, out, self_check)
    typer.echo(f"{len(written)} exercise notebooks, and what they need, are in {out}.")


@app.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="A folder, a ZIP of an LMS, a notebook.")],
    out: Out,
    settings: Settings = None,
    sandbox: Sandbox = True,
    scheduler: Scheduler = None,
) -> None:
    """Grade what a class handed in: gradebooks, and a page of feedback for each learner."""
    from quartet.grading import classroom

    written, problems = classroom.grade(submissions, out, settings, sandbox, scheduler)
    for text in problems:
        typer.echo(f"Look at: {text}", err=True)
    typer.echo(f"{len(written)} files written; begin with {out / 'summary.html'}.")


@app.command()
def regrade(
    out: Out, settings: Settings = None, sandbox: Sandbox = True, scheduler: Scheduler = None
) -> None:
    """Grade again, as after a check was corrected; show whose points change."""
    from quartet.grading import classroom

    changes = classroom.regrade(out, settings, sandbox, scheduler)
    for each in changes:
        where = f"{each.learner}, {each.lesson}, {each.track}"
        typer.echo(f"{where}: {each.before:g} points before, {each.after:g} now")
    typer.echo(f"{len(changes)} changed." if changes else "Nobody's points change.")


@app.command()
def mark(
    learner: Annotated[str, typer.Argument(help="As in gradebook.csv.")],
    lesson: Lesson,
    exercise: Exercise,
    track: OneTrack,
    out: Out,
    points: Annotated[float | None, typer.Option(help="Instead of the check's points.")] = None,
    comment: Annotated[str, typer.Option(help="For the page of feedback.")] = "",
) -> None:
    """Give points or a comment by hand; they are kept whenever it is graded again."""
    from quartet.grading import classroom

    classroom.mark(out, learner, lesson, track, exercise, points, comment)
    typer.echo(f"Kept, and written into the pages in {out}.")


@app.command()
def record(
    lessons: Annotated[
        list[str], typer.Argument(metavar="LESSON", help="As 03, 03_dense_layers or a path.")
    ],
) -> None:
    """Run lessons in all tracks, keep the numbers and checked outputs, and build them."""
    from quartet.record import record as record_lessons

    for path in record_lessons(lessons):
        typer.echo(f"Written: {path.as_posix()}")


@app.command()
def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(help="warming, starts, memory, lessons ...; all but proof by default."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often to measure each.")] = 5,
    against: Annotated[
        str, typer.Option(metavar="COMMIT", help="For proof: what `make test` is compared with.")
    ] = "",
) -> None:
    """Measure kernels, training steps, checks and grading side by side; write docs/bench/."""
    from quartet.bench import bench as measure

    typer.echo(f"Written: {measure(parts or (), rounds, against=against)}")


@app.command()
def lab(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8888,
) -> None:
    """Open JupyterLab on START.ipynb."""
    from quartet.lab import lab as open_lab

    open_lab(port)


app.add_typer(kernels, name="kernels")


@kernels.callback()
def kernels_list(context: typer.Context) -> None:
    """Show the warm processes and their kernels, with the memory of each."""
    if context.invoked_subcommand is None:
        from quartet.warm import report

        report.show()


@kernels.command("warm")
def kernels_warm(tracks: Tracks = None) -> None:
    """Start the warm processes of some tracks, so that their first kernel opens at once."""
    from quartet.warm import report

    report.warm(tracks or ())


@kernels.command("stop")
def kernels_stop(tracks: Tracks = None) -> None:
    """Stop the warm processes of some tracks. Kernels that run go on until they are shut down."""
    from quartet.warm import report

    report.stop(tracks or ())


def _name_and_value(text: str) -> tuple[str, Any]:
    """Return the two halves of a parameter, its value as Python reads it."""
    from quartet.run import parse_value

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise QuartetError(f"A parameter needs a name and a value, as `-p SEED 1`; got {text!r}.")
    return name, parse_value(value)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
