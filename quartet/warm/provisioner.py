"""The kernel provisioner: jupyter_client starts kernels through it, warm where that can be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import psutil
from jupyter_client import LocalProvisioner
from jupyter_client.localinterfaces import localhost
from jupyter_client.provisioning import KernelProvisionerFactory

from quartet.warm import client
from quartet.warm.places import WarmError, runtime_folder, track_of
from utils.tracks import TRACKS

BYTES_FOR_ALL = 6 * 2**30  # available; measured: all four take 1.7 GiB
LAUNCHER = "ipykernel_launcher"
LONGEST_NAME = 100  # bytes; Linux takes 107 for a socket, and ZeroMQ appends "-1" to "-5"
NAME = "quartet-warm"  # the entry point, in pyproject.toml


def use_warm_kernels() -> None:
    """Let the kernels that this process starts be warm, unless another provisioner was chosen."""
    os.environ.setdefault(KernelProvisionerFactory.default_provisioner_name_env, NAME)
    # It has read the variable already if this process has looked at a kernel's specification.
    chosen = os.environ[KernelProvisionerFactory.default_provisioner_name_env]
    KernelProvisionerFactory.instance().default_provisioner_name = chosen


def can_fork() -> bool:
    """Return whether a process that holds a framework can be forked on this platform."""
    return sys.platform == "linux"  # macOS forbids what its frameworks do after a fork


def are_wanted(env: Mapping[str, str]) -> bool:
    """Return whether an environment does not switch warm kernels off, with QUARTET_WARM=0."""
    return env.get("QUARTET_WARM", "1") != "0"


def warm_in_background() -> None:
    """Start the warm processes of all tracks, one after the other, where there is memory for them.

    A page that opens while its framework is still being imported waits, and so does who reads it.
    """
    if can_fork() and are_wanted(os.environ) and psutil.virtual_memory().available > BYTES_FOR_ALL:
        threading.Thread(target=_warm_all, daemon=True).start()


def _warm_all() -> None:
    for track in TRACKS:
        with contextlib.suppress(WarmError, OSError):  # the first kernel says what is wrong
            client.warm(track)


class WarmProvisioner(LocalProvisioner):
    """Starts the kernels of a track by forking, and plainly those that it cannot fork."""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Let IPython's kernels of a track be spoken to over files, where that can be, not ports.

        jupyter_client 8.10 looks for five free ports, and the kernel takes them only once it runs:
        where many programs work, one of them may have been faster.
        """
        manager = self.parent
        usual = manager and (manager.transport, manager.ip) == ("tcp", localhost())
        knows_files = LAUNCHER in self.kernel_spec.argv  # another language's kernel may not
        if usual and knows_files and can_fork() and track_of(_folder(kwargs)):
            with contextlib.suppress(WarmError, OSError):
                files = str(runtime_folder() / f"kernel-{self.kernel_id}")
                if len(os.fsencode(files)) <= LONGEST_NAME:
                    manager.transport, manager.ip = "ipc", files
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start a kernel: `cmd` is what starts a plain one, `kwargs` are those of Popen."""
        track = track_of(_folder(kwargs))
        kwargs["env"] = dict(kwargs.get("env") or os.environ)
        wanted = are_wanted(kwargs["env"]) and is_ours(cmd) and not outlives(kwargs)
        if track and wanted and not can_fork():
            self.log.warning("A plain kernel starts: on %s it cannot be forked", sys.platform)
        elif track and wanted:
            try:
                await self._launch_warm(track, cmd, **kwargs)
                return self.connection_info
            except (WarmError, OSError) as error:
                self.log.warning("A plain kernel starts instead of a warm one: %s", error)
        return await super().launch_kernel(cmd, **kwargs)

    async def _launch_warm(self, track: str, cmd: list[str], **kwargs: Any) -> None:
        cwd = _folder(kwargs)
        env = kwargs["env"] | {"JPY_PARENT_PID": str(os.getpid())}  # as jupyter_client does
        with open(os.devnull, "rb") as nothing:
            outputs = [_descriptor(kwargs, name) for name in ("stdout", "stderr")]
            files = [nothing.fileno(), *outputs]
            self.process = await asyncio.to_thread(client.fork, track, cmd, cwd, env, files)
        self.pid = self.pgid = self.process.pid
        self.cwd = cwd


def _folder(kwargs: Mapping[str, Any]) -> str:
    """Return where a kernel starts: in this process's own folder if none is asked for."""
    return str(kwargs.get("cwd") or os.getcwd())


def is_ours(cmd: list[str]) -> bool:
    """Return whether a command starts an IPython kernel with this Python."""
    same = os.path.abspath(cmd[0]) == os.path.abspath(sys.executable)  # a link tells environments
    return same and LAUNCHER in cmd


def outlives(kwargs: dict[str, Any]) -> bool:
    """Return whether a kernel is to go on without who started it, which a warm one does not."""
    return bool(kwargs.get("independent"))


def _descriptor(kwargs: dict[str, Any], name: str) -> int:
    """Return where a kernel's output goes."""
    wanted = kwargs.get(name)
    if wanted is None:
        return {"stdout": 1, "stderr": 2}[name]
    number = wanted if isinstance(wanted, int) else wanted.fileno()
    if number in (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL):
        raise WarmError(f"its {name} is asked for as one of subprocess's special values")
    return number
