#!/bin/bash
# JAX's compile cache on disk, with and without a bound on its size.
#
# A good guess: JAX_COMPILATION_CACHE_MAX_SIZE only matters once the folder is full.
# What happens (jax and jaxlib 0.10.2, Linux, CPU): with any bound, each program that is added reads
# the date file of every program that is there already, under a lock that all processes share.
# Adding n programs to an empty folder opens n * (n - 1) / 2 files more than without a bound (-1), far below the bound. Beside
# 3,271 programs, a notebook that compiles 118 new ones took four times the processor time that it
# takes without any cache.
# Source: jax/_src/lru_cache.py, LRUCache.put and _evict_if_needed.
#
# Output seen (date files read, programs kept; without a bound, then with one of 200 MB):
#   0 50
#   1225 50
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 filelock
cat > "$folder/count.py" <<'PYTHON'
"""Compile 50 programs; print how many date files were read meanwhile, and the programs kept."""

import os
import sys

FOLDER = os.environ["JAX_COMPILATION_CACHE_DIR"]
opened = 0


def watch(event, details):
    """Count the date files that are opened to be read."""
    global opened
    path = str(details[0]) if event == "open" else ""
    opened += path.startswith(FOLDER) and path.endswith("-atime") and "r" in str(details[1])


import jax
import jax.numpy as jnp
import numpy as np

sys.addaudithook(watch)
for rows in range(1, 51):
    jax.jit(lambda x: jnp.tanh(x @ x.T).sum())(np.ones((rows, 4)))
programs = sum(name.endswith("-cache") for name in os.listdir(FOLDER))
print(opened, programs)
PYTHON
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
export JAX_PLATFORMS=cpu
for bound in -1 200000000; do
    mkdir "$folder/$bound"
    JAX_COMPILATION_CACHE_DIR="$folder/$bound" JAX_COMPILATION_CACHE_MAX_SIZE=$bound \
        "$folder/venv/bin/python" "$folder/count.py"
done | tee "$folder/seen"
[ "$(tr '\n' ' ' < "$folder/seen")" = "0 50 1225 50 " ] || { echo "This has changed." >&2; exit 1; }
