"""Set up Quartet in .venv: a fitting Python, the pinned packages, and nothing twice.

    python3 tools/setup_env.py [EXTRA ...]      for example: dev

Standard library and plain syntax only: any Python 3 can run it far enough to say what is wrong.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(os.path.realpath(__file__)).parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "quartet.json"  # written last: what is installed
LOG = VENV / "quartet-install.log"
BROWSER = ROOT / "utils" / "browser"  # what runs in a browser comes from npm
NEED_BROWSER = {"deploy", "dev"}
SUPPORTED = ((3, 11), (3, 12), (3, 13))
GIGABYTES_NEW = 7  # measured: 5.8 for .venv and npm's packages, 1.2 for what pip keeps
GIGABYTES_MORE = 1

# What pip prints when the reason is not in its last error.
CAUSES = (
    (
        r"No space left on device|Errno 28\b|not enough space on the disk",
        "the disk became full. Free some space, also where temporary files go, and try again",
    ),
    (
        r"Retrying \(Retry|Failed to establish a new connection|Max retries exceeded|timed out",
        "the packages could not be fetched. Check the network (a proxy? a firewall?) and try again",
    ),
)


class Trouble(Exception):
    """What went wrong, in one sentence for the person at the keyboard."""


def main(arguments=None):
    """Set up what is missing; return the exit status."""
    parser = argparse.ArgumentParser(description="Set up Quartet in .venv.")
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml, for example dev")
    parser.add_argument("--exact", action="store_true", help="take this Python and no other")
    options = parser.parse_args(arguments)
    try:
        return set_up(set(options.extras), options.exact)
    except (Trouble, OSError) as trouble:
        print("Quartet was not set up: %s." % trouble, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command again goes on from here.", file=sys.stderr)
        return 130


def set_up(extras, exact):
    """Make .venv hold Quartet with these extras; return the exit status."""
    installed = read_stamp()
    python_fits = venv_version() == sys.version_info[:2] or not exact
    if installed.get("pins") == pins() and extras <= set(installed["extras"]) and python_fits:
        install_for_browsers(set(installed["extras"]))
        return 0
    if sys.version_info[:2] not in SUPPORTED:
        return set_up_with(other_python(exact), extras)
    extras |= set(installed.get("extras", []))
    fresh = venv_version() is None or not python_fits
    check_space(GIGABYTES_NEW if fresh else GIGABYTES_MORE)
    print("Setting up Quartet in .venv%s." % (", once: some minutes" if fresh else ""), flush=True)
    if STAMP.exists():
        STAMP.unlink()
    if fresh:
        create_venv()
    install(extras)
    STAMP.write_text(json.dumps({"pins": pins(), "extras": sorted(extras)}) + "\n")
    install_for_browsers(extras)
    return 0


def read_stamp():
    """Return what was installed to the end, {} if nothing."""
    try:
        return json.loads(STAMP.read_text()) if PYTHON.exists() else {}
    except (OSError, ValueError):
        return {}


def pins():
    """Return a hash over all that an installation depends on, its place included."""
    digest = hashlib.sha256(str(ROOT).encode())
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    for path in files + sorted(each for each in (ROOT / "config").iterdir() if each.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def venv_version():
    """Return the (major, minor) of .venv's Python; None if .venv cannot be used as it is."""
    try:
        config = (VENV / "pyvenv.cfg").read_text()
    except OSError:
        return None
    version = re.search(r"^version = (\d+)\.(\d+)", config, re.MULTILINE)
    here = str(VENV) in config  # a project that was moved or copied needs a new one
    return tuple(map(int, version.groups())) if version and here and PYTHON.exists() else None


def other_python(exact):
    """Return the path of a Python that fits, as the one that runs this does not."""
    for version in () if exact else SUPPORTED:
        for folder in os.get_exec_path():
            path = shutil.which("python%d.%d" % version, path=folder)
            test = "import sys, ensurepip; sys.exit(sys.version_info[:2] != %s)" % (version,)
            if path and not subprocess.call([path, "-c", test], stderr=subprocess.DEVNULL):
                return path
    raise Trouble(
        "it needs Python 3.11, 3.12 or 3.13, and this is Python %d.%d. Install one of them and say "
        "which to take, as in `make lab PYTHON=python3.11`" % sys.version_info[:2]
    )


def set_up_with(python, extras):
    """Run this file again with another Python; return its exit status."""
    print("Python %d.%d is not the right one: taking %s." % (sys.version_info[:2] + (python,)))
    sys.stdout.flush()
    return subprocess.call([python, __file__, "--exact"] + sorted(extras))


def check_space(gigabytes):
    """Refuse to begin on a disk that would become full."""
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < gigabytes:
        raise Trouble(
            "it needs %d GB of disk space, and %.1f GB are free in %s" % (gigabytes, free, ROOT)
        )


def create_venv():
    """Make an empty .venv, in place of any that is there."""
    python = getattr(sys, "_base_executable", None) or sys.executable  # not one inside .venv
    command = [python, "-m", "venv", "--clear", str(VENV)]
    status, lines = run_quietly(command)
    if status:
        advice = (
            ". On Debian and Ubuntu, install its package python%d.%d-venv" % sys.version_info[:2]
        )
        what = "%s cannot make a virtual environment (%s)" % (python, lines[-1].rstrip("."))
        raise Trouble(what + (advice if "ensurepip" in "".join(lines) else ""))


def install(extras):
    """Install the project, editable, with its pinned packages."""
    target = ".[%s]" % ",".join(sorted(extras)) if extras else "."
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", "-c", "constraints.txt", "-e", target]
    status, output = run_and_show(command)
    if status:
        raise Trouble(cause(output))


def install_for_browsers(extras):
    """Install the packages of npm that the lesson on browsers needs, if they are not there."""
    lock, copy = BROWSER / "package-lock.json", BROWSER / "node_modules" / "installed.json"
    if not extras & NEED_BROWSER or not lock.exists():
        return
    if copy.exists() and copy.read_bytes() == lock.read_bytes():
        return
    npm = shutil.which("npm")
    if npm is None:
        print("Without npm the lesson on browsers cannot run: install Node.js 20 or newer.")
        return
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    status, lines = run_quietly(command, BROWSER)
    if status:
        raise Trouble("npm cannot install what utils/browser asks for: %r" % lines[0])
    shutil.copy(str(lock), str(copy))


def run_quietly(command, folder=ROOT):
    """Run a command to its end; return its exit status and the lines that it printed."""
    done = subprocess.run(
        command,
        cwd=str(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    return done.returncode, done.stdout.strip().splitlines() or ["no reason given"]


def run_and_show(command):
    """Run pip in the project's folder and show how far it is; return exit status and output."""
    output, done = ["Starting pip"], threading.Event()
    ticker = threading.Thread(target=show, args=(output, done), daemon=True)
    ticker.start()
    process = subprocess.Popen(
        command,
        cwd=str(ROOT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        errors="replace",
    )
    try:
        output.extend(process.stdout)
    finally:
        done.set()
        ticker.join()
    return process.wait(), output


def show(output, done):
    """Print the time and what pip does: in place on a terminal, else now and then on a new line."""
    start, terminal = time.time(), sys.stdout.isatty()
    width = shutil.get_terminal_size().columns - 1
    before, after = ("\r\033[K", "") if terminal else ("", "\n")
    while not done.wait(0.5 if terminal else 20):
        text = "  %4d s  %s" % (time.time() - start, summary(output))
        print(before + text[:width], end=after, flush=True)
    print(before + "  %4d s  pip has ended" % (time.time() - start), flush=True)


def summary(output):
    """Return the step that pip is at, from its output so far."""
    steps = ("Building", "Collecting", "Downloading", "Installing", "Preparing", "Using cached")
    line = next((line for line in reversed(output) if line.strip().startswith(steps)), output[0])
    if line.startswith("Installing collected packages"):
        return "Installing %d packages" % len(line.split(", "))
    return line.strip()


def cause(output):
    """Return why pip failed, in a sentence, and keep its output."""
    try:
        LOG.write_text("".join(output))
        log = " (all of pip's output is in %s)" % LOG.relative_to(ROOT)
    except OSError:
        log = ""
    text = "".join(output)
    for pattern, sentence in CAUSES:
        if re.search(pattern, text):
            return sentence + log
    errors = [line for line in output if re.match(r"\s*(ERROR|\w+Error): ", line)] or output
    return "pip says %r%s" % (errors[-1].strip(), log)


if __name__ == "__main__":
    sys.exit(main())
