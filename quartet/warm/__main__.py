"""Start a warm process: `python -m quartet.warm TRACK SOCKET`; its name is what `ps` shows."""

from __future__ import annotations

import os
import sys


def read_settings() -> None:
    """Set the environment variables that the kernels' settings set, as each kernel does first."""
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp()  # only to read the settings: a kernel makes its own
    for step in (app.init_profile_dir, app.init_config_files, app.load_config_file):
        step()


def main() -> None:
    """Be the warm process of a track, and in its forks a kernel."""
    if sys.path[0] == os.getcwd():  # `python -m` put it there
        del sys.path[0]
    before = dict(os.environ)
    read_settings()
    from quartet.warm import server  # imports NumPy, which reads how many threads to start

    server.run(*sys.argv[1:], before=before)


if __name__ == "__main__":
    main()
