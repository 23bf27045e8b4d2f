"""What `quartet kernels` shows and does, for the person at the keyboard."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable

import psutil
from rich.console import Console
from rich.table import Table

from quartet import QuartetError
from quartet.warm import client
from quartet.warm.client import Status
from quartet.warm.places import WarmError
from quartet.warm.provisioner import can_fork
from utils.tracks import TRACKS

MIB = 2**20


def show() -> None:
    """Print a table of the warm processes and of the kernels that were forked from each."""
    _check_platform()
    found = client.running()
    if not found:
        print(
            "No warm process runs. It starts with a track's first kernel, or now: "
            "quartet kernels warm"
        )
        return
    table = Table("track", "process", "state", "kernels")
    table.add_column("MiB of its own", justify="right")
    for each in found:
        kernels = f"{len(each.kernels)}" if each.kernels else "-"
        track = f"{each.track} ({each.backend})" if each.backend else each.track
        table.add_row(track, str(each.pid), each.state, kernels, memory(each.pid))
        for pid in each.kernels:
            table.add_row("", str(pid), "kernel", "", memory(pid))
    Console().print(table)
    print("A page that several processes share counts in part for each of them.")


def warm(tracks: Iterable[str]) -> None:
    """Start the warm processes of some tracks, one after the other.

    Raises
    ------
    QuartetError if a track is unknown or a process does not start.
    """
    for track in _known(tracks):
        try:
            with Console().status(f"{track}: importing"):
                status = client.warm(track)
        except WarmError as error:
            raise QuartetError(f"{track}: {error}") from None
        print(f"{track}: ready, {memory(status.pid)} MiB")


def stop(tracks: Iterable[str]) -> None:
    """Stop the warm processes of some tracks.

    Raises
    ------
    QuartetError if a track is unknown.
    """
    wanted = _known(tracks)
    for each in client.running():
        if each.track in wanted:
            with contextlib.suppress(OSError):
                client.stop(each.socket)
            print(f"{each.track}: {_stopped(each)}")


def memory(pid: int) -> str:
    """Return a process's share of the memory in MiB: pages that it shares count in part (PSS)."""
    try:
        return f"{psutil.Process(pid).memory_full_info().pss / MIB:.0f}"
    except psutil.Error:
        return "-"


def _check_platform() -> None:
    if not can_fork():
        raise QuartetError(f"Kernels are forked on Linux only; on {sys.platform} they are plain.")


def _known(tracks: Iterable[str]) -> list[str]:
    _check_platform()
    wanted = list(tracks) or list(TRACKS)
    for track in wanted:
        if track not in TRACKS:
            raise QuartetError(f"There is no track {track!r}. Choose among {', '.join(TRACKS)}.")
    return wanted


def _stopped(status: Status) -> str:
    count = len(status.kernels)
    return f"stops when its {count} running kernels end" if count else "stopped"
