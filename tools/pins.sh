#!/bin/sh
# Write constraints.txt anew: the newest versions that work together, of all that pyproject.toml asks for.
# It needs uv. To keep a version back, write it into pyproject.toml for the time being.
set -eu
cd "$(dirname "$0")/.."
new=$(uv pip compile pyproject.toml --all-extras --universal --fork-strategy fewest \
    --python-version 3.11 --no-header --no-annotate --quiet)
{
    echo "# The versions that work together, on Linux, macOS and Windows, for Python 3.11 to 3.13."
    echo "# Written by \`make pins\`, for all extras of pyproject.toml. Not for editing by hand."
    echo "# torch has builds with CUDA and without: what only the former needs, it pins by itself."
    # What each line says of Python and of Emscripten stands in pyproject.toml already.
    echo "$new" | grep -Ev '^(cuda|nvidia|triton)\b' | sed -E \
        -e "s/python_full_version < '3.14' and //g" \
        -e "s/sys_platform != 'emscripten' and //; s/ (and|;) sys_platform != 'emscripten'//g"
} > constraints.txt
