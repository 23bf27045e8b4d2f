#!/bin/bash
# Prove it all, on two cores: every stage runs, and one line at the end says which ones failed.
#   tools/run_tests.sh [fast]      fast: what a small edit needs, without running the notebooks
cd "$(dirname "$0")/.." || exit 1
PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
closing=$(mktemp) && trap 'rm -f "$closing"' EXIT
failed=""

stage() { # stage NAME COMMAND...
    printf '\n== %s\n' "$1"
    "${@:2}" || failed="$failed${failed:+, }$1"
}

prove() { # pytest, whose closing line is kept for the end
    set -o pipefail
    python -m pytest -n "${JOBS:-2}" "$@" 2>&1 | tee "$closing.all"
    local status=$?
    tail -n 1 "$closing.all" >> "$closing"
    rm -f "$closing.all"
    return $status
}

stage "built files" quartet build --check
stage "ruff" ruff check .
stage "format" ruff format --check --quiet .
if [ "${1:-}" = fast ]; then
    stage "tests" prove -m "not slow" tests
else
    stage "notebooks" prove --nbval-lax --dist loadfile notebooks solutions
    stage "tests" prove tests
fi

quartet kernels stop > /dev/null 2>&1 # on Linux only there are any
if [ -z "$failed" ]; then summary="All stages passed."; else summary="Failed: $failed."; fi
printf '\n%s\n' "$summary"
cat "$closing"
[ -z "$failed" ]
