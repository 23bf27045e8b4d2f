"""The teacher's results in one SQLite file: durable as soon as known, and enough to grade again."""

from __future__ import annotations

import json
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
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
    checks TEXT NOT NULL, grade TEXT NOT NULL, number TEXT NOT NULL,
    PRIMARY KEY (learner, lesson, track)
);
CREATE TABLE IF NOT EXISTS regrade (
    learner TEXT NOT NULL, lesson TEXT NOT NULL, track TEXT NOT NULL,
    before REAL NOT NULL, checks TEXT NOT NULL,
    PRIMARY KEY (learner, lesson, track)
);
CREATE TABLE IF NOT EXISTS manual (
    learner TEXT NOT NULL, lesson TEXT NOT NULL, track TEXT NOT NULL, exercise TEXT NOT NULL,
    points REAL, comment TEXT NOT NULL,
    PRIMARY KEY (learner, lesson, track, exercise)
);
"""
Key = tuple[str, str, str]  # learner, lesson, track


@dataclass(frozen=True)
class Entry:
    """Whose notebook it is, of which lesson and track, and which file it came in.

    `digest` tells what was handed in, `number` what the system it came from calls the learner.
    """

    learner: str
    lesson: str
    track: str
    file: str
    handed_in: str
    digest: str
    number: str

    @property
    def key(self) -> Key:
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
        return int(self.about("seed"))

    def about(self, name: str) -> str:
        """Return what was kept under a name, "" if nothing was."""
        with self._connection() as connection:
            found = connection.execute("SELECT value FROM about WHERE name = ?", (name,))
            return next((value for (value,) in found), "")

    def set_about(self, name: str, value: str) -> None:
        """Keep a text under a name."""
        with self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def put(self, row: Row, notebook: bytes) -> None:
        """Keep a result, in the place of an earlier one of the same learner, lesson and track."""
        values = (*row.key, row.file, row.handed_in, row.digest, zlib.compress(notebook))
        with self._connection() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO submission VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, row.checks, json.dumps(row.grade), row.number),
            )
            where = "WHERE learner = ? AND lesson = ? AND track = ?"
            connection.execute(f"UPDATE regrade SET checks = ? {where}", (row.checks, *row.key))

    def begin_regrade(self, points: Mapping[Key, float]) -> None:
        """Note the points of submissions before they are graded again.

        Where a regrade was cut off, what it noted stays.
        """
        with self._connection() as connection:
            rows = [(*key, before, "") for key, before in points.items()]
            connection.executemany("INSERT OR IGNORE INTO regrade VALUES (?, ?, ?, ?, ?)", rows)

    def regraded(self) -> dict[Key, tuple[float, str]]:
        """Return a submission -> its points before the regrade, and by which checks it is done."""
        with self._connection() as connection:
            found = connection.execute("SELECT * FROM regrade")
            return {tuple(key): (before, checks) for *key, before, checks in found}

    def end_regrade(self) -> None:
        """Forget what was noted for a regrade."""
        with self._connection() as connection:
            connection.execute("DELETE FROM regrade")

    def rows(self) -> list[Row]:
        """Return all results, by lesson, track and learner."""
        query = (
            "SELECT learner, lesson, track, file, handed_in, digest, number, checks, grade "
            "FROM submission ORDER BY lesson, track, learner"
        )
        with self._connection() as connection:
            return [Row(*about, json.loads(grade)) for *about, grade in connection.execute(query)]

    def notebook(self, key: Key) -> bytes:
        """Return the file of a submission that there is a result of."""
        query = "SELECT notebook FROM submission WHERE learner = ? AND lesson = ? AND track = ?"
        with self._connection() as connection:
            ((packed,),) = connection.execute(query, key)
        return zlib.decompress(packed)

    def set_manual(self, key: Key, exercise: str, points: float | None, comment: str) -> None:
        """Keep points or a comment that a person gave; they outlive every grading.

        None and "" leave what was given before.
        """
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO manual VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "points = COALESCE(excluded.points, points), "
                "comment = COALESCE(NULLIF(excluded.comment, ''), comment)",
                (*key, exercise, points, comment),
            )

    def manual(self) -> dict[Key, dict[str, tuple[float | None, str]]]:
        """Return (learner, lesson, track) -> exercise -> points and comment given by a person."""
        found: dict[Key, dict[str, tuple[float | None, str]]] = {}
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
