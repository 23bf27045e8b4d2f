"""Hold modules back that were imported ahead, so that a notebook can still set variables first.

`os.environ["KERAS_BACKEND"] = "jax"` counts only before `import keras`. In a warm kernel Keras is
imported already. So it is taken off `sys.modules`. When the notebook imports it, it is put back;
but if a variable that it reads on import has changed since, that is heeded first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Shelf(MetaPathFinder, Loader):
    """One package that is held back until it is imported."""

    def __init__(self, package: str, adapt: Callable[[dict[str, str]], None] | None) -> None:
        """Take a package's modules off `sys.modules`.

        Parameters
        ----------
        adapt : called with the variables that have changed, if any have, once the package is back;
            None if it is to be imported from its files anew instead.
        """
        self.package, self.adapt = package, adapt
        self.before = self._variables()
        mine = [name for name in sys.modules if name.partition(".")[0] == package]
        self.modules: dict[str, ModuleType] = {name: sys.modules.pop(name) for name in mine}
        self.spec = self.modules[package].__spec__
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Say what loads the package, when it is imported for the first time."""
        if name != self.package:
            return None
        sys.meta_path.remove(self)
        if self._changed() and not self.adapt:
            return importlib.util.find_spec(name)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Put all of the package's modules back and return the package itself, as it was."""
        sys.modules.update(self.modules)  # only now: a finder must not find what is there already
        return self.modules[self.package]

    def exec_module(self, module: ModuleType) -> None:
        """Undo what the import has written on the module, and heed variables that have changed."""
        module.__spec__ = self.spec
        if changed := self._changed():
            self.adapt(changed)

    def _changed(self) -> dict[str, str]:
        now = self._variables()
        return {name: value for name, value in now.items() if value != self.before.get(name)}

    def _variables(self) -> dict[str, str]:
        prefix = f"{self.package.upper()}_"
        return {name: value for name, value in os.environ.items() if name.startswith(prefix)}


def set_jax_options(changed: dict[str, str]) -> None:
    """Set the options of JAX that it reads from variables: it cannot be imported twice."""
    import jax

    for name, value in changed.items():
        option = name.lower()
        if option in jax.config.values:
            jax.config.update(option, _as(jax.config.values[option], value))


def _as(like: object, value: str) -> object:
    """Return the text of a variable as a value of the option's type."""
    if isinstance(like, bool):
        return value.lower() in ("1", "true", "yes", "on", "y", "t")
    return type(like)(value) if isinstance(like, int | float) else value


PACKAGES = {"keras": None, "jax": set_jax_options}  # Keras is pure Python


def hold_back() -> None:
    """Hold back those packages for which a variable set in the notebook matters."""
    for package, adapt in PACKAGES.items():
        if package in sys.modules:
            Shelf(package, adapt)
