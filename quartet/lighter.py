"""Keep a kernel light: TensorBoard without TensorFlow, where nothing else has imported it."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "tensorboard.compat.notf"  # TensorBoard uses its own code if it can import this


class TensorBoardAlone:
    """Finds an empty module of that name as long as TensorFlow is not imported."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return where a module comes from, None if from elsewhere."""
        if name == NAME and "tensorflow" not in sys.modules:
            return ModuleSpec(name, TensorBoardAlone)
        return None

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Leave it to Python to make the module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Put nothing into it."""
