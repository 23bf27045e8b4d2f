"""Open JupyterLab on START.ipynb, for this machine's own user only."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

from quartet import QuartetError
from quartet.warm import provisioner
from utils.tracks import ROOT

ADDRESS = "127.0.0.1"
START = "START.ipynb"


def lab(port: int = 8888) -> None:
    """Start JupyterLab and stay until it is stopped; its address, with the token, is printed.

    Parameters
    ----------
    port : where to listen; 0 takes any free port.

    Raises
    ------
    QuartetError if START.ipynb is missing or the port cannot be had.
    """
    if not (ROOT / START).is_file():
        raise QuartetError(f"{START} is missing. Build it with `make build`.")
    check_port(port)
    print("Starting JupyterLab. To stop it, press Ctrl-C twice.", flush=True)
    provisioner.use_warm_kernels()
    provisioner.warm_in_background()
    from jupyterlab.labapp import LabApp  # slow to import

    LabApp.launch_instance(arguments(port))


def arguments(port: int, root: Path = ROOT) -> list[str]:
    """Return what JupyterLab is started with. The token is random: Jupyter makes it."""
    found = [
        f"--ServerApp.ip={ADDRESS}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{START}",
        "--log-level=WARN",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        found.append("--allow-root")
    if not has_screen():
        found.append("--no-browser")
    return found


def has_screen() -> bool:
    """Return whether a browser could show a window; without one Linux would open a text browser."""
    return not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    )


def check_port(port: int) -> None:
    """Raise QuartetError if nothing can listen on the port."""
    with socket.socket() as server:
        if os.name != "nt":  # there it means something else
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((ADDRESS, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            what = "is taken by another program" if taken else f"cannot be used ({error.strerror})"
            other = 8889 if port != 8889 else 8890
            raise QuartetError(
                f"Port {port} {what}. Choose another one: `make lab PORT={other}`."
            ) from None
