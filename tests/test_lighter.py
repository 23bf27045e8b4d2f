"""TensorBoard's files are written and read without TensorFlow, unless that is there already."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from quartet import lighter
sys.meta_path.insert(0, lighter.TensorBoardAlone)
{first}
from tensorboard.compat import tf
print(tf.__name__, getattr(tf, "__version__", ""), "tensorflow" in sys.modules)
"""


def said(first: str) -> str:
    command = [sys.executable, "-c", CODE.format(first=first)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_tensorboard_alone_takes_its_own_code() -> None:
    assert said("").strip().endswith("stub False")


def test_tensorflow_is_used_where_it_is_imported() -> None:
    assert said("import tensorflow").strip().endswith("True") and "stub" not in said(
        "import tensorflow"
    )
