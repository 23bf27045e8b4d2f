"""The set-up: what is declared, pinned, installed and said when something is missing."""

from __future__ import annotations

import ast
import importlib.metadata as metadata
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import psutil
import pytest
import yaml
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from quartet import QuartetError
from quartet import lab as lab_module
from quartet.cli import app
from utils.tracks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = [
    line.partition(" ;")[0]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
]
VERSIONS = dict(pin.split("==") for pin in PINS if "==" in pin)


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


# What is declared and pinned


def test_every_pin_is_exact_and_from_nowhere_in_particular() -> None:
    wrong = [pin for pin in PINS if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)]
    assert not wrong
    assert len(VERSIONS) == len(PINS)


def test_pins_leave_out_what_only_the_cuda_build_of_torch_needs() -> None:
    assert VERSIONS["torch"] == "2.13.0"
    assert not [name for name in VERSIONS if re.match("nvidia|cuda|triton", name)]


def test_every_declared_package_is_pinned() -> None:
    declared = [*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]
    names = {canonicalize_name(Requirement(each).name) for each in declared} - {"quartet"}
    assert names <= VERSIONS.keys()


def needed(name: str, extras: frozenset[str], found: set[str]) -> set[str]:
    """Return what a package and all that it needs here brings, as far as it is installed."""
    for text in metadata.requires(name) or []:
        each = Requirement(text)
        fits = [each.marker is None or each.marker.evaluate({"extra": e}) for e in {*extras, ""}]
        key = canonicalize_name(each.name)
        if any(fits) and key not in found:
            found.add(key)
            needed(each.name, frozenset(each.extras), found)
    return found


def test_what_is_installed_is_what_is_pinned() -> None:
    found = needed("quartet", frozenset({"dev", "teach"}), set()) - {"quartet"}
    assert len(found) > 150
    installed = {name: metadata.version(name).partition("+")[0] for name in found}
    # Installed by hand on top of a CUDA build of torch, its own libraries are not ours to pin.
    ours = {k: v for k, v in installed.items() if not re.match("nvidia|cuda|triton", k)}
    assert ours == {name: VERSIONS.get(name) for name in ours}


def test_every_import_is_declared() -> None:
    names = {canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]}
    names |= set(EXTRAS["teach"])
    owners = metadata.packages_distributions()
    for path in [*(ROOT / "utils").glob("*.py"), *(ROOT / "quartet").glob("*.py")]:
        for module in imported(path) - set(sys.stdlib_module_names) - {"utils", "quartet"}:
            owned_by = {canonicalize_name(each) for each in owners[module]}
            assert owned_by & names, f"{path.name} imports {module}"


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    origins = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in plain | origins}


def test_conda_users_get_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert (python, pip) == ("python=3.11", "pip")
    # All from the project itself, in the pinned versions: there is nothing to fall behind.
    assert from_pip == {"pip": ["-c constraints.txt", "-e ."]}


# tools/setup_env.py, in a project of its own whose path has a space


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    shutil.copytree(ROOT / "config", folder / "config")
    (folder / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup_env.py", folder / "tools")
    for name in ("pyproject.toml", "constraints.txt", "Makefile"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def tool(project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the tool as a module; its pip only takes note of what it is asked for."""
    spec = importlib.util.spec_from_file_location("setup_env", project / "tools" / "setup_env.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.asked, tool.answer = [], (0, [])

    def create_venv() -> None:
        tool.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        tool.PYTHON.touch()
        major, minor = sys.version_info[:2]
        text = f"version = {major}.{minor}.0\ncommand = python -m venv {tool.VENV}\n"
        (tool.VENV / "pyvenv.cfg").write_text(text)
        tool.asked.append("venv")

    def run_and_show(command: list[str]) -> tuple[int, list[str]]:
        tool.asked.append(command[-1])
        return tool.answer

    monkeypatch.setattr(tool, "create_venv", create_venv)
    monkeypatch.setattr(tool, "run_and_show", run_and_show)
    return tool


def test_it_installs_once(tool: ModuleType) -> None:
    assert tool.main([]) == 0
    assert tool.asked == ["venv", "."]
    assert tool.main([]) == 0
    assert tool.asked == ["venv", "."]


def test_extras_add_up(tool: ModuleType) -> None:
    for extras in (["teach"], ["dev"], ["teach"], []):
        assert tool.main(extras) == 0
    assert tool.asked == ["venv", ".[teach]", ".[dev,teach]"]


@pytest.mark.parametrize(
    "name", ["constraints.txt", "pyproject.toml", "config/ipython_kernel_config.py"]
)
def test_a_change_is_installed(tool: ModuleType, name: str) -> None:
    assert tool.main(["dev"]) == 0
    with (tool.ROOT / name).open("a") as file:
        file.write("\n")
    assert tool.main([]) == 0
    assert tool.asked == ["venv", ".[dev]", ".[dev]"]


@pytest.fixture
def npm(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with a line for each call of a made-up npm, which fails where asked to."""
    tool.BROWSER.mkdir(parents=True)
    (tool.BROWSER / "package-lock.json").write_text("{}\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "npm").write_text(
        f'#!/bin/sh\necho "$1" >> "{tmp_path}/calls"\n'
        f'[ ! -e "{tmp_path}/fail" ] || {{ echo "npm error EACCES"; exit 1; }}\n'
        "mkdir -p node_modules\n"
    )
    (tmp_path / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "calls"


def test_what_runs_in_a_browser_is_installed_where_it_is_needed(
    tool: ModuleType, npm: Path
) -> None:
    assert tool.main([]) == 0 and not npm.exists()
    assert tool.main(["deploy"]) == tool.main(["deploy"]) == tool.main([]) == 0
    assert npm.read_text() == "ci\n"
    (tool.BROWSER / "package-lock.json").write_text("{ }\n")
    assert tool.main([]) == 0
    assert npm.read_text() == "ci\nci\n"


def test_npm_that_fails_is_one_sentence_and_is_tried_again(
    tool: ModuleType, npm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (npm.parent / "fail").touch()
    assert tool.main(["deploy"]) == 1
    error = capsys.readouterr().err
    assert "npm cannot install" in error and "EACCES" in error and error.count("\n") == 1
    (npm.parent / "fail").unlink()
    assert tool.main([]) == 0
    assert npm.read_text() == "ci\nci\n"


def test_without_npm_all_else_is_set_up(
    tool: ModuleType, npm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    assert tool.main(["deploy"]) == 0
    assert "install Node.js" in capsys.readouterr().out


def test_a_copied_environment_is_made_anew(tool: ModuleType) -> None:
    assert tool.main([]) == 0
    text = (tool.VENV / "pyvenv.cfg").read_text().replace("a project", "where it was")
    (tool.VENV / "pyvenv.cfg").write_text(text)
    tool.STAMP.unlink()
    assert tool.main([]) == 0
    assert tool.asked == ["venv", ".", "venv", "."]


def test_a_folder_that_jupyterlab_leaves_in_config_does_no_harm(tool: ModuleType) -> None:
    assert tool.main([]) == 0
    (tool.ROOT / "config" / ".ipynb_checkpoints").mkdir()
    assert tool.main([]) == 0
    assert tool.asked == ["venv", "."]


def test_a_missing_file_is_one_sentence(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (tool.ROOT / "constraints.txt").unlink()
    assert tool.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Quartet was not set up: ") and error.count("\n") == 1
    assert "No such file or directory" in error and "constraints.txt" in error


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("The virtual environment was not created: ensurepip is not available.", True),
        ("Error: [Errno 13] Permission denied: '/somewhere/.venv'", False),
    ],
)
def test_a_venv_that_cannot_be_made_says_why(
    project: Path, monkeypatch: pytest.MonkeyPatch, said: str, advice: bool
) -> None:
    spec = importlib.util.spec_from_file_location("setup_env", project / "tools" / "setup_env.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    answer = SimpleNamespace(returncode=1, stdout=said + "\n")
    monkeypatch.setattr(tool.subprocess, "run", lambda *args, **options: answer)
    with pytest.raises(tool.Trouble) as trouble:
        tool.create_venv()
    assert said.rstrip(".") in str(trouble.value)
    assert ("install its package" in str(trouble.value)) is advice


NO_NETWORK = "WARNING: Retrying (Retry(total=4, ...)) after connection broken\n"


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (["ERROR: [Errno 28] No space left on device\n"], "the disk became full"),
        ([NO_NETWORK, "ERROR: No matching distribution found\n"], "could not be fetched"),
        (["noise\n", "ERROR: Cannot install a and b\n", "\n"], "ERROR: Cannot install a and b"),
        (["  OSError: no such README\n", "error: failed\n", "hint: see above\n"], "no such README"),
    ],
)
def test_a_failed_install_says_why_and_is_tried_again(
    tool: ModuleType, capsys: pytest.CaptureFixture[str], output: list[str], sentence: str
) -> None:
    tool.answer = (1, output)
    assert tool.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Quartet was not set up: ") and sentence in error
    assert error.count("\n") == 1
    assert tool.LOG.read_text() == "".join(output)
    assert not tool.STAMP.exists()
    tool.answer = (0, [])
    assert tool.main([]) == 0
    assert tool.asked == ["venv", ".", "."]


def test_a_full_disk_is_noticed_before(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool.shutil, "disk_usage", lambda path: SimpleNamespace(free=3e9))
    assert tool.main([]) == 1
    assert "needs 7 GB of disk space, and 3.0 GB are free" in capsys.readouterr().err
    assert tool.asked == []


@pytest.fixture
def old_python(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make the tool run on Python 3.8, with only one folder, which is returned, to search."""
    monkeypatch.setattr(tool.sys, "version_info", (3, 8, 18))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_a_wrong_python_is_told_so(
    tool: ModuleType, old_python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([]) == 1
    error = capsys.readouterr().err
    assert "needs Python 3.11, 3.12 or 3.13, and this is Python 3.8" in error
    assert "make lab PYTHON=python3.11" in error and error.count("\n") == 1
    assert not tool.VENV.exists()


FAKE = '#!/bin/sh\n[ "$1" = -c ] && exit {status}\necho "$@" > "{note}"\n'


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins for other Pythons are shell scripts")
def test_a_right_python_beside_it_is_taken(
    tool: ModuleType, old_python: Path, tmp_path: Path
) -> None:
    for name, status in (("python3.11", 1), ("python3.12", 0), ("python3.13", 0)):
        script = FAKE.format(status=status, note=tmp_path / name)
        (old_python / name).write_text(script)
        (old_python / name).chmod(0o755)
    assert tool.main(["dev"]) == 0
    said = (tmp_path / "python3.12").read_text()
    assert said == f"{tool.__file__} --exact dev\n"
    assert not (tmp_path / "python3.11").exists() and not (tmp_path / "python3.13").exists()
    assert tool.main(["--exact", "dev"]) == 1  # asked for by name: no other will do


def test_an_old_python_can_read_the_tool(project: Path) -> None:
    source = (project / "tools" / "setup_env.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    modules = imported(project / "tools" / "setup_env.py")
    assert modules <= set(sys.stdlib_module_names)
    with pytest.raises(SyntaxError):
        ast.parse("if (x := 1): pass", feature_version=(3, 6))


def test_the_pythons_are_the_same_everywhere(tool: ModuleType) -> None:
    from packaging.specifiers import SpecifierSet

    allowed = SpecifierSet(PROJECT["requires-python"])
    minors = [minor for minor in range(20) if f"3.{minor}" in allowed]
    assert [(3, minor) for minor in minors] == list(tool.SUPPORTED)
    assert "Python 3.11, 3.12 or 3.13" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_without_a_network_it_says_so_and_leaves_no_stamp(project: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    apart = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    done = run(
        sys.executable, project / "tools" / "setup_env.py", env={**os.environ, **nowhere, **apart}
    )
    assert done.returncode == 1
    assert "Quartet was not set up: the packages could not be fetched." in done.stderr
    assert done.stderr.count("\n") == 1
    assert (project / ".venv" / "quartet-install.log").read_text()
    assert not (project / ".venv" / "quartet.json").exists()


# make and the scripts


def targets() -> dict[str, str]:
    """Return the Makefile's targets and what help says of each."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    found = [re.match(r"([a-z-]+):[^#=]*(?:## (.*))?$", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def test_make_alone_lists_every_target() -> None:
    listed = dict(re.findall(r"^  make ([a-z-]+) +(.+)$", run("make", cwd=ROOT).stdout, re.M))
    assert listed == {name: text for name, text in targets().items() if name != "python"}
    assert {"help", "lab", "test", "test-fast", "build", "bench", "clean"} <= listed.keys()


def test_make_hands_on_the_port_and_the_python() -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    plain = run("make", "-n", "lab", cwd=ROOT, env=env).stdout
    assert '"python3" tools/setup_env.py' in plain and "--exact" not in plain
    assert "quartet lab --port 8888" in plain
    other = run("make", "-n", "lab", "PORT=8890", "PYTHON=python3.12", cwd=ROOT, env=env).stdout
    assert '"python3.12" tools/setup_env.py --exact' in other and "--port 8890" in other


def test_make_without_the_python_says_so(project: Path) -> None:
    done = run("make", "lab", "PYTHON=no-such-python", cwd=project)
    assert done.returncode != 0
    assert done.stderr.startswith("There is no no-such-python. Install Python 3.11")


def test_clean_keeps_what_learners_wrote(project: Path) -> None:
    names = ("exercises/jax/03.ipynb", "runs/mine.ipynb", "quartet/x.py", ".venv/bin/python")
    for name in (*names, "quartet/__pycache__/x.pyc", ".pytest_cache/x"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    for name in ("utils", "tests", "lessons", "data"):
        (project / name).mkdir()
    assert run("make", "clean", cwd=project).returncode == 0
    left = [name for name in names if (project / name).exists()]
    assert left == ["exercises/jax/03.ipynb", "runs/mine.ipynb", "quartet/x.py"]
    assert not (project / "quartet" / "__pycache__").exists()


@pytest.mark.parametrize("name", [".ci/run", "tools/pins.sh", "tools/converter_env.sh"])
def test_scripts_can_be_read_and_run(name: str) -> None:
    assert run("bash", "-n", ROOT / name).stderr == ""
    assert os.access(ROOT / name, os.X_OK)


def test_an_unknown_converter_is_told_which_there_are() -> None:
    done = run("sh", ROOT / "tools" / "converter_env.sh", "tfjs")
    assert done.returncode == 2 and "litert-torch" in done.stderr and "tensorflowjs" in done.stderr


# JupyterLab and the kernels


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_taken_port_is_one_sentence(taken: int) -> None:
    done = CliRunner().invoke(app, ["lab", "--port", str(taken)])
    assert done.exit_code == 1
    assert done.output == (
        f"Port {taken} is taken by another program. Choose another one: `make lab PORT=8889`.\n"
    )


def test_the_port_that_is_advised_is_another() -> None:
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 8889))
            server.listen()
            with pytest.raises(QuartetError, match="PORT=8890"):
                lab_module.check_port(8889)
    except OSError:
        pytest.skip("port 8889 is in use on this machine")


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_root_may_and_others_need_not(
    monkeypatch: pytest.MonkeyPatch, user: int, allowed: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    assert ("--allow-root" in lab_module.arguments(8888)) is allowed


def test_without_a_screen_no_browser_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "--no-browser" in lab_module.arguments(8888)
    monkeypatch.setenv("DISPLAY", ":0")
    assert "--no-browser" not in lab_module.arguments(8888)


def listening(pid: int) -> set[str]:
    """Return the addresses at which a process listens, as soon as there is one."""
    for _ in range(100):
        sockets = psutil.Process(pid).net_connections("tcp")
        if found := {each.laddr.ip for each in sockets if each.status == "LISTEN"}:
            return found
        time.sleep(0.1)  # Jupyter prints its address a moment before
    return set()


def test_lab_listens_here_only_and_asks_for_its_token(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "BROWSER", "JUPYTER_TOKEN")}
    env["JUPYTER_CONFIG_DIR"] = str(tmp_path)
    command = [sys.executable, "-m", "quartet.cli", "lab", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as server:
        try:
            url = next(line.strip() for line in server.stderr if "?token=" in line)
            address, token = re.fullmatch(
                r"(http://127\.0\.0\.1:\d+)/lab/tree/START\.ipynb\?token=(\w{40,})", url
            ).groups()
            assert listening(server.pid) == {"127.0.0.1"}
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"{address}/api/contents")
            with urllib.request.urlopen(f"{address}/api/contents?token={token}") as reply:
                assert "START.ipynb" in [each["name"] for each in json.load(reply)["content"]]
        finally:
            server.terminate()


SETTINGS = {
    "etc/ipython/ipython_kernel_config.py": "config/ipython_kernel_config.py",
    "share/jupyter/lab/settings/overrides.json": "config/overrides.json",
}


@pytest.mark.parametrize("place", SETTINGS)
def test_settings_are_installed(place: str) -> None:
    installed = Path(sys.prefix, place).read_text(encoding="utf-8")
    assert installed == (ROOT / SETTINGS[place]).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_kernel_obeys_and_a_first_cell_prints_nothing_in_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    source = """\
import os, tensorflow as tf, torch
total = tf.reduce_sum(tf.ones((100, 100)) @ tf.ones((100, 100)))
print(os.environ["OMP_NUM_THREADS"], torch.get_num_threads(), int(total))"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, kernel_name="python3").execute()
    shown = [(each.name, each.text) for each in notebook.cells[0].outputs]
    assert shown == [("stdout", "1 1 1000000\n")]


def test_threads_can_be_asked_for() -> None:
    code = "import runpy, os, types; c = types.SimpleNamespace(IPKernelApp=types.SimpleNamespace())"
    code += "; runpy.run_path('config/ipython_kernel_config.py', {'get_config': lambda: c})"
    code += "; print(os.environ['OMP_NUM_THREADS'], c.IPKernelApp.capture_fd_output)"
    done = run(sys.executable, "-c", code, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "8"})
    assert done.stdout == "8 False\n"


# The pages


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_pages_name_only_what_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
    made = re.findall(r"\bmake ([a-z][a-z-]*)(?=[ `\n])", re.sub(r"[`:]", "`", text))
    commands = [each for each in made if each in targets() or f"`make {each}`" in text]
    assert [each for each in commands if each not in targets()] == []


def test_readme_has_a_place_for_the_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- lessons -->\n") == text.count("<!-- /lessons -->") == 1
