"""Run the proof, stage after stage; a line at its end says which ones failed.

    python -m quartet.proof [fast|changed]

fast: without what is slow, the notebooks among it. changed: what a change can have broken.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from quartet.proof.orphans import adopt_orphans, call
from utils.tracks import ROOT

PYTEST = ("python", "-m", "pytest", "-n", os.environ.get("JOBS", "auto"))
EVERYTHING = ("--nbval-lax", "notebooks", "solutions", "tests")
KINDS = {
    "whole": EVERYTHING,
    "fast": ("-m", "not slow", "tests"),
    "changed": ("--changed", *EVERYTHING),
}
STAGES = {
    "built files": ("quartet", "build", "--check"),
    "ruff": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "--quiet", "."),
}
# Unless they are set. Each kind of warm process serves a stretch of the tests, and takes 0.4 GiB.
SETTINGS = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "QUARTET_WARM_IDLE": "60"}


def main(arguments: Sequence[str]) -> int:
    """Run all stages of a kind; return the exit status."""
    kind = arguments[0] if arguments else "whole"
    if kind not in KINDS or len(arguments) > 1:
        print(f"There is no {' '.join(arguments)!r}. Choose among {', '.join(KINDS)}.")
        return 2
    adopt_orphans()
    begin, failed = time.monotonic(), []
    for name, command in (STAGES | {"tests": (*PYTEST, *KINDS[kind])}).items():
        print(f"\n== {name}", flush=True)
        if _run(command):
            failed.append(name)
    _run(("quartet", "kernels", "stop"), quiet=True)  # on Linux only there are any
    print(_summary(failed, time.monotonic() - begin))
    return bool(failed)


def _run(command: Sequence[str], quiet: bool = False) -> int:
    """Run a command of this environment in the project's folder; return its exit status."""
    scripts = Path(sys.executable).parent
    env = SETTINGS | dict(os.environ)
    env["PATH"] = f"{scripts}{os.pathsep}{env.get('PATH', '')}"
    program = shutil.which(command[0], path=env["PATH"]) or command[0]
    said = subprocess.DEVNULL if quiet else None
    return call([program, *command[1:]], cwd=ROOT, env=env, stdout=said, stderr=said)


def _summary(failed: list[str], seconds: float) -> str:
    """Return the closing lines."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = usage.ru_utime + usage.ru_stime
    verdict = f"Failed: {', '.join(failed)}." if failed else "All stages passed."
    return f"\n{seconds:.0f} s, {used:.0f} s of processor time.\n{verdict}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
