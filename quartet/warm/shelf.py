"""Hold modules back that were imported ahead, so that a notebook can still set variables first.

`os.environ["KERAS_BACKEND"] = "jax"` counts only before `import keras`. In a warm kernel Keras is
imported already. So it is taken off `sys.modules`. When the notebook imports it, it is put back;
but if a variable that it reads on import has changed since, that is heeded first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Shelf(MetaPathFinder, Loader):
    """One package that is held back until it is imported."""

    def __init__(self, package: str, adapt: Callable[[Shelf, dict[str, str]], None]) -> None:
        """Take a package's modules off `sys.modules`.

        Parameters
        ----------
        adapt : called with the changed variables, if there are any, when the package is imported.
        """
        self.package, self.adapt = package, adapt
        self.before = self._variables(os.environ)
        mine = [name for name in sys.modules if name.partition(".")[0] == package]
        self.modules: dict[str, ModuleType] = {name: sys.modules.pop(name) for name in mine}
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Say that this loads the package, when it is imported for the first time."""
        if name != self.package:
            return None
        sys.meta_path.remove(self)
        now = self._variables(os.environ)
        if changed := {name: now[name] for name in now if now[name] != self.before.get(name)}:
            self.adapt(self, changed)
        if name not in self.modules:
            return importlib.util.find_spec(name)
        self.spec = self.modules[name].__spec__
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Put all of the package's modules back and return the package itself, as it was."""
        sys.modules.update(self.modules)  # only now: a finder must not find what is there already
        return self.modules[self.package]

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing but undo what the import has written on the module."""
        module.__spec__ = self.spec

    def _variables(self, env: Mapping[str, str]) -> dict[str, str]:
        prefix = f"{self.package.upper()}_"
        return {name: value for name, value in env.items() if name.startswith(prefix)}


def import_anew(shelf: Shelf, changed: dict[str, str]) -> None:
    """Forget the modules, so that the package is imported from its files: it is pure Python."""
    shelf.modules.clear()


def set_jax_options(shelf: Shelf, changed: dict[str, str]) -> None:
    """Set the options of JAX that are read from variables: the package cannot be imported twice."""
    config = shelf.modules["jax"].config
    for name, value in changed.items():
        option = name.lower()
        if option in config.values:
            config.update(option, _as(config.values[option], value))


def _as(like: object, value: str) -> object:
    """Return the text of a variable as a value of the option's type."""
    if isinstance(like, bool):
        return value.lower() in ("1", "true", "yes", "on", "y", "t")
    return type(like)(value) if isinstance(like, int | float) else value


PACKAGES = {"keras": import_anew, "jax": set_jax_options}


def hold_back() -> None:
    """Hold back those packages for which a variable set in the notebook matters."""
    for package, adapt in PACKAGES.items():
        if package in sys.modules:
            Shelf(package, adapt)
