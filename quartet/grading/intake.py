"""Find what was handed in: a folder per learner, loose notebooks, or the ZIP of a Moodle or Canvas.

A ZIP is read, never unpacked: what a name in it says about folders has no effect on the disk.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from quartet import QuartetError
from quartet.grading.submission import LARGEST
from quartet.source import lesson_names

MOST_FILES = 100_000  # in a ZIP
MOST_BYTES = 10 * LARGEST  # of one learner's files in a ZIP, unpacked

# Name of the folder, or the file, that these systems give to each submission.
MOODLE = re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_\w+")
CANVAS = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<file>.+)")


@dataclass(frozen=True)
class Handed:
    """One file that was handed in, by whom and when; `problem` says why it cannot be read.

    `place` is the file, or the ZIP that holds it under the name `file`. `number` is what the
    system calls the learner, "" where the name of the file does not tell it.
    """

    learner: str
    file: str
    when: datetime
    place: Path
    problem: str = ""
    number: str = ""

    def read(self) -> bytes:
        """Return the bytes of the notebook, empty if it cannot be read."""
        if self.problem:
            return b""
        if self.place.suffix.lower() != ".zip":
            return self.place.read_bytes()
        with zipfile.ZipFile(self.place) as file, file.open(self.file) as stream:
            return stream.read(LARGEST + 1)  # whatever size the entry claims to have


def find(place: Path) -> list[Handed]:
    """Return the notebooks in a folder, a ZIP, or the one at this path, by learner.

    Raises
    ------
    QuartetError if there is nothing of the kind.
    """
    if not place.exists():
        raise QuartetError(f"There is no {place}.")
    if place.is_dir():
        found = list(_in_folder(place))
    elif place.suffix.lower() == ".zip":
        found = list(_in_zip(place))
    else:
        found = [_file(place, PurePosixPath(place.name))]
    if not found:
        raise QuartetError(f"{place} holds no notebook (*.ipynb).")
    return sorted(found, key=lambda each: (each.learner, each.file))


def _in_folder(folder: Path) -> Iterator[Handed]:
    for path in sorted(folder.rglob("*")):
        inside = PurePosixPath(path.relative_to(folder).as_posix())
        if path.suffix == ".ipynb" and not _is_hidden(inside):
            yield _file(path, inside)
        elif path.suffix.lower() == ".zip":
            yield from _zip_in_folder(path, inside)


def _zip_in_folder(path: Path, inside: PurePosixPath) -> Iterator[Handed]:
    """Give the notebooks of a ZIP: a class's, or that of the learner in whose folder it is."""
    handed = _file(path, inside)
    if len(inside.parts) == 1 and not handed.problem:
        yield from _in_zip(path)
        return
    try:
        found = [] if handed.problem else list(_in_zip(path))
    except QuartetError as error:
        handed = replace(handed, problem=str(error))
    if handed.problem:
        yield handed
        return
    for each in found:  # what its names say of the learner, only the learner says
        yield replace(each, learner=handed.learner, number=handed.number)


def _file(path: Path, inside: PurePosixPath) -> Handed:
    about = path.lstat()
    when = datetime.fromtimestamp(about.st_mtime).replace(microsecond=0)
    handed = Handed(*_names(inside), when, path, number=_number_of(inside))
    if not stat.S_ISREG(about.st_mode):
        return replace(handed, problem="it is a link or no file; it was not followed")
    if about.st_size > LARGEST and path.suffix == ".ipynb":
        return replace(handed, problem=_too_large(about.st_size))
    return handed


def _in_zip(path: Path) -> Iterator[Handed]:
    unpacked: Counter[str] = Counter()
    try:
        with zipfile.ZipFile(path) as file:
            if len(file.infolist()) > MOST_FILES:
                raise QuartetError(f"{path} holds more than {MOST_FILES} files.")
            for entry in file.infolist():
                inside = PurePosixPath(entry.filename.replace("\\", "/"))
                if inside.suffix.lower() in (".ipynb", ".zip") and not _is_hidden(inside):
                    yield _entry(path, entry, inside, unpacked)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise QuartetError(f"{path} is no ZIP file, or it is damaged: {error}.") from None


def _entry(
    path: Path, entry: zipfile.ZipInfo, inside: PurePosixPath, unpacked: Counter[str]
) -> Handed:
    """Return an entry of a ZIP; `unpacked` counts the bytes of each learner's."""
    learner, _ = _names(inside)
    handed = Handed(learner, entry.filename, _when(entry), path, number=_number_of(inside))
    if stat.S_ISLNK(entry.external_attr >> 16):
        return replace(handed, problem="it is a link; it was not followed")
    if inside.is_absolute() or ".." in inside.parts:
        return replace(handed, problem="its name leads out of the ZIP file")
    if inside.suffix.lower() == ".zip":
        return replace(handed, problem="it is a ZIP file in a ZIP file: unpack the outer one first")
    if unpacked[learner] > MOST_BYTES:
        return replace(handed, problem=f"{learner}'s files before it had {MOST_BYTES // 2**20} MB")
    try:
        size = len(handed.read())
    except Exception as error:  # whatever a ZIP made by hand sets off
        return replace(handed, problem=f"it is damaged or encrypted in the ZIP file: {error}")
    unpacked[learner] += size
    return replace(handed, problem=_too_large(entry.file_size)) if size > LARGEST else handed


def _when(entry: zipfile.ZipInfo) -> datetime:
    """Return when a file in a ZIP was changed; the first day of the format if it does not tell."""
    try:
        return datetime(*entry.date_time)
    except ValueError:
        return datetime(1980, 1, 1)


def learner_of(inside: PurePosixPath) -> str:
    """Return whose a file is, by its path in the folder or ZIP.

    >>> learner_of(PurePosixPath("Ada Byron_4711_assignsubmission_file_/03_dense_layers.ipynb"))
    'Ada Byron'
    >>> learner_of(PurePosixPath("byronada_LATE_12_345_03_dense_layers.ipynb"))
    'byronada'
    >>> learner_of(PurePosixPath("ada/03_dense_layers.ipynb"))
    'ada'
    """
    if match := _of_a_system(inside):
        return match["name"]
    if len(inside.parts) > 1:
        return inside.parts[0]
    rest = inside.stem
    for lesson in lesson_names():
        rest = rest.replace(lesson, "")
    return rest.strip(" _-.()") or inside.stem


def _number_of(inside: PurePosixPath) -> str:
    match = _of_a_system(inside)
    return match["id"] if match else ""


def _of_a_system(inside: PurePosixPath) -> re.Match[str] | None:
    """Return how Moodle or Canvas names the learner of a file, None where neither did."""
    if match := MOODLE.fullmatch(inside.parts[0]):
        return match
    return CANVAS.fullmatch(inside.stem) if len(inside.parts) == 1 else None


def _names(inside: PurePosixPath) -> tuple[str, str]:
    """Return a file's learner and name; bytes that are no text are written out."""
    return tuple(plain_text(name) for name in (learner_of(inside), str(inside)))


def plain_text(text: str) -> str:
    """Return a text that can be written as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_hidden(inside: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) and part != ".." for part in inside.parts)


def _too_large(size: int) -> str:
    return f"it has {size // 2**20} MB, more than {LARGEST // 2**20}: its outputs are to be cleared"
