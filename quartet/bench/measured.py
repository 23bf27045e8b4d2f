"""Run a command; print how long it and all that it started were at work, and in how much memory.

python -m quartet.bench.measured FOLDER COMMAND ...
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time

from quartet.proof.orphans import adopt_orphans, call
from quartet.run import MIB, memory

SAMPLE_SECONDS = 10  # a look at all processes takes a tenth of a second


def measured(folder: str, command: list[str]) -> tuple[int, dict[str, float]]:
    """Return the exit status of a command, its wall and processor seconds, and its peak memory.

    What it leaves behind counts, too, and is waited for.
    """
    adopt_orphans()
    done, peak, begin = threading.Event(), [0], time.perf_counter()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], memory(os.getpid()))

    threading.Thread(target=watch, daemon=True).start()
    status = call(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    seconds = time.perf_counter() - begin
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    done.set()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    about = {"seconds": round(seconds, 1), "peak_mib": round(peak[0] / MIB)}
    return status, about | {"processor_seconds": round(usage.ru_utime + usage.ru_stime, 1)}


if __name__ == "__main__":
    code, found = measured(sys.argv[1], sys.argv[2:])
    print(json.dumps(found))
    sys.exit(code)
