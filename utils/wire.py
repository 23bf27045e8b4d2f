"""Frames of JSON and raw arrays: what passes between processes, and into files, without pickles.

A frame is the length of its header (4 bytes), the header as JSON, and the bytes of its arrays. What
comes from a learner's process is not trusted: sizes, kinds and depth are bounded before anything
is allocated.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

LONGEST_HEADER = 2**20  # bytes
MOST_BYTES = 2**28  # of all arrays in a frame
KINDS = "biufc"  # booleans, integers, unsigned, floats, complex numbers
DTYPE = re.compile(rf"[<>|][{KINDS}]\d{{1,2}}")  # NumPy knows larger words, with code in them
ARRAY, TUPLE, DICT = "array", "tuple", "dict"  # what an object in the header's tree stands for


class WireError(ValueError):
    """What came over the wire is no frame."""


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one frame.

    Parameters
    ----------
    message : JSON values, tuples and arrays of numbers, nested at will.

    Raises
    ------
    WireError if it holds anything else, or too much.
    """
    arrays: list[np.ndarray] = []
    tree = _without_arrays(message, arrays)
    about = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
    header = json.dumps({"tree": tree, "arrays": about}).encode()
    if len(header) > LONGEST_HEADER or sum(array.nbytes for array in arrays) > MOST_BYTES:
        raise WireError(f"too large: more than {MOST_BYTES // 2**20} MiB")
    stream.write(struct.pack("<I", len(header)) + header)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def receive(read: Callable[[int], bytes]) -> dict[str, Any] | None:
    """Read one frame; return None if the other end is closed.

    Parameters
    ----------
    read : returns exactly so many bytes, fewer only at the end of the stream.

    Raises
    ------
    WireError if what comes is no frame.
    """
    start = read(4)
    if not start:
        return None
    header = _parsed(_exactly(read, _bounded(struct.unpack("<I", start.ljust(4, b"\0"))[0])))
    try:
        arrays = _arrays(header["arrays"], read)
        tree = _with_arrays(header["tree"], arrays)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise WireError(f"a malformed frame: {error!r}") from None
    if not isinstance(tree, dict):
        raise WireError("a frame without a message")
    return tree


def _bounded(length: int) -> int:
    if length > LONGEST_HEADER:
        raise WireError(f"a header of {length} bytes")
    return length


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a header that is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise WireError("a header that is no object")
    return header


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    raw = read(size)
    if len(raw) != size:
        raise WireError("a frame that breaks off")
    return raw


def _arrays(about: list[dict[str, Any]], read: Callable[[int], bytes]) -> list[np.ndarray]:
    arrays, left = [], MOST_BYTES
    for each in about:
        shape = [int(n) for n in each["shape"]]
        if not DTYPE.fullmatch(each["dtype"]) or len(shape) > 32 or min(shape, default=0) < 0:
            raise WireError(f"an array of {each}")
        dtype = np.dtype(each["dtype"])
        size = math.prod(shape) * dtype.itemsize
        left -= size
        if left < 0:
            raise WireError(f"arrays of more than {MOST_BYTES // 2**20} MiB")
        arrays.append(np.frombuffer(_exactly(read, size), dtype).reshape(shape).copy())
    return arrays


def _without_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in KINDS:
            raise WireError(f"an array of {value.dtype}")
        arrays.append(value)
        return {ARRAY: len(arrays) - 1}
    if isinstance(value, dict):
        return {DICT: {str(key): _without_arrays(item, arrays) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        items = [_without_arrays(item, arrays) for item in value]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise WireError(f"a value of type {type(value).__name__}")


def _with_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == ARRAY:
        return arrays[content]
    if kind == TUPLE:
        return tuple(_with_arrays(item, arrays) for item in content)
    return {key: _with_arrays(item, arrays) for key, item in content.items()}
