"""The kernel provisioner: jupyter_client starts kernels through it, warm where that can be."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jupyter_client import LocalProvisioner

from quartet.warm import client
from quartet.warm.places import WarmError, track_of

NAME = "quartet-warm"  # the entry point, in pyproject.toml
_CHOICE = "JUPYTER_DEFAULT_PROVISIONER_NAME"


def use_warm_kernels() -> None:
    """Let the kernels that this process starts be warm, unless another provisioner was chosen."""
    os.environ.setdefault(_CHOICE, NAME)


def are_wanted() -> bool:
    """Return whether nobody has switched warm kernels off, with QUARTET_WARM=0."""
    return os.environ.get("QUARTET_WARM", "1") != "0"


class WarmProvisioner(LocalProvisioner):
    """Starts the kernels of a track by forking, and plainly those that it cannot fork."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start a kernel: `cmd` is what starts a plain one, `kwargs` are those of Popen."""
        track = track_of(kwargs.get("cwd"))
        if track and are_wanted() and is_ours(cmd):
            try:
                await self._launch_warm(track, cmd, **kwargs)
                return self.connection_info
            except (WarmError, OSError) as error:
                self.log.warning("A plain kernel starts instead of a warm one: %s", error)
        return await super().launch_kernel(cmd, **kwargs)

    async def _launch_warm(self, track: str, cmd: list[str], **kwargs: Any) -> None:
        if sys.platform != "linux":
            raise WarmError(f"on {sys.platform} a process that holds a framework cannot be forked")
        cwd, env = kwargs["cwd"], dict(kwargs.get("env") or os.environ)
        env["JPY_PARENT_PID"] = str(os.getpid())
        with open(os.devnull, "rb") as nothing:
            outputs = [_descriptor(kwargs, name) for name in ("stdout", "stderr")]
            files = [nothing.fileno(), *outputs]
            self.process = await asyncio.to_thread(client.fork, track, cmd, str(cwd), env, files)
        self.pid = self.pgid = self.process.pid
        self.cwd = cwd


def is_ours(cmd: list[str]) -> bool:
    """Return whether a command starts an IPython kernel with this Python."""
    return "ipykernel_launcher" in cmd and Path(cmd[0]).resolve() == Path(sys.executable).resolve()


def _descriptor(kwargs: dict[str, Any], name: str) -> int:
    """Return where a kernel's output goes."""
    wanted = kwargs.get(name)
    if wanted is None:
        return {"stdout": 1, "stderr": 2}[name]
    number = wanted if isinstance(wanted, int) else wanted.fileno()
    if number in (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL):
        raise WarmError(f"its {name} is asked for as one of subprocess's special values")
    return number
