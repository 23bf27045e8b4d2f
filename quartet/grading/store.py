"""The teacher's results in one SQLite file: durable as soon as known, and enough to grade again."""

from __future__ import annotations

import json
import secrets
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "grades.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS submission (
    learner TEXT NOT NULL, lesson TEXT NOT NULL, track TEXT NOT NULL,
    file TEXT NOT NULL, handed_in TEXT NOT NULL, digest TEXT NOT NULL, notebook BLOB NOT NULL,
    checks TEXT NOT NULL, grade TEXT NOT NULL,
    PRIMARY KEY (learner, lesson, track)
);
CREATE TABLE IF NOT EXISTS manual (
    learner TEXT NOT NULL, lesson TEXT NOT NULL, track TEXT NOT NULL, exercise TEXT NOT NULL,
    points REAL, comment TEXT NOT NULL,
    PRIMARY KEY (learner, lesson, track, exercise)
);
"""


@dataclass(frozen=True)
class Entry:
    """Whose notebook it is, of which lesson and track, and which file it came in.

    `digest` tells what was handed in.
    """

    learner: str
    lesson: str
    track: str
    file: str
    handed_in: str
    digest: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.learner, self.lesson, self.track


@dataclass(frozen=True)
class Row(Entry):
    """A graded submission: by which version of the exercises, and what `worker.grade` returned."""

    checks: str
    grade: dict[str, Any]


class Store:
    """The results in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(SCHEMA)

    def seed(self) -> int:
        """Return what the inputs of this folder's grading are made from; drawn once."""
        with self._connection() as connection:
            row = ("seed", str(secrets.randbits(32)))
            connection.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", row)
            ((value,),) = connection.execute("SELECT value FROM about WHERE name = 'seed'")
        return int(value)

    def put(self, row: Row, notebook: bytes) -> None:
        """Keep a result, in the place of an earlier one of the same learner, lesson and track."""
        values = (*row.key, row.file, row.handed_in, row.digest, zlib.compress(notebook))
        with self._connection() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO submission VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, row.checks, json.dumps(row.grade)),
            )

    def rows(self) -> list[Row]:
        """Return all results, by lesson, track and learner."""
        query = (
            "SELECT learner, lesson, track, file, handed_in, digest, checks, grade "
            "FROM submission ORDER BY lesson, track, learner"
        )
        with self._connection() as connection:
            return [Row(*about, json.loads(grade)) for *about, grade in connection.execute(query)]

    def notebook(self, key: tuple[str, str, str]) -> bytes:
        """Return the file of a submission that there is a result of."""
        query = "SELECT notebook FROM submission WHERE learner = ? AND lesson = ? AND track = ?"
        with self._connection() as connection:
            ((packed,),) = connection.execute(query, key)
        return zlib.decompress(packed)

    def set_manual(
        self, key: tuple[str, str, str], exercise: str, points: float | None, comment: str
    ) -> None:
        """Keep points or a comment that a person gave; they outlive every grading."""
        with self._connection() as connection:
            values = (*key, exercise, points, comment)
            connection.execute("INSERT OR REPLACE INTO manual VALUES (?, ?, ?, ?, ?, ?)", values)

    def manual(self) -> dict[tuple[str, str, str], dict[str, tuple[float | None, str]]]:
        """Return (learner, lesson, track) -> exercise -> points and comment given by a person."""
        found: dict[tuple[str, str, str], dict[str, tuple[float | None, str]]] = {}
        with self._connection() as connection:
            for learner, lesson, track, exercise, *given in connection.execute(
                "SELECT * FROM manual"
            ):
                found.setdefault((learner, lesson, track), {})[exercise] = tuple(given)
        return found

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open the file, commit at the end, roll back on an error."""
        connection = sqlite3.connect(self.path, timeout=60)
        try:
            with connection:
                yield connection
        finally:
            connection.close()
