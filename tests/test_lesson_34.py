"""Lesson 34: one contract in four tracks, and the servers that FAST leaves out, run for real."""

from __future__ import annotations

import ast
import re

import nbformat
import numpy as np
import pytest

from quartet.run import execute
from utils import parity
from utils.tracks import ROOT, TRACKS

LESSON = "34_serving"
PICTURES = 5  # rows of the answers that are recorded


@pytest.mark.parametrize("track", TRACKS)
def test_every_way_out_gives_the_same_answers(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    eager = np.array(numbers["answers_eager"])
    assert eager.shape == (PICTURES, 10) and numbers["accuracy"] > 0.75
    for other in ("answers_graph", "answers_onnx", "answers_grpc"):
        assert np.abs(eager - numbers[other]).max() < 2e-5, other
    assert np.abs(eager[:1] - numbers["answers_rest"]).max() < 2e-5


@pytest.mark.parametrize("track", TRACKS)
def test_bad_input_is_refused_and_batches_are_what_the_prose_says(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    assert numbers["statuses"] == [400] * 10 + [413, 404]
    assert numbers["batches"] == [1, 8, 2, 8, 3, 8, 12, 4, 48, 1]


def test_only_the_loader_knows_the_framework() -> None:
    tracks = parity.load_recorded(LESSON).values()
    (contract,) = {numbers["contract_statements"] for numbers in tracks}
    assert contract < 115
    assert all(numbers["own_statements"] < contract / 3 for numbers in tracks)


@pytest.mark.slow
def test_ray_serve_loses_a_replica_and_torchserve_serves() -> None:
    path = ROOT / "notebooks" / "pytorch" / f"{LESSON}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    # All that FAST leaves out, but less load: this is about the servers.
    for old, new in (
        ("FAST = True", "FAST = False"),
        ("if FAST else 1000", "if FAST else 100"),
        ("SOAK_SECONDS = 60", "SOAK_SECONDS = 10"),
    ):
        found = [cell for cell in notebook.cells if old in cell.source]
        assert len(found) == 1, old
        found[0].source = found[0].source.replace(old, new)
    assert execute(notebook, path.parent, timeout=600).error == ""
    texts = [o.text for c in notebook.cells for o in c.get("outputs", []) if "text" in o]
    text = "\n".join(texts)

    statuses, answered = re.search(r"(\{200: .*\}) answered by (\[.*\])", text).groups()
    statuses = ast.literal_eval(statuses)
    assert sum(statuses.values()) == 3000
    assert 0 <= 3000 - statuses[200] <= 16, "what one dead replica had in hand, and no more"
    assert len(ast.literal_eval(answered)) in (2, 3), "two replicas, and who replaces the dead"
    ports, wide_open = map(int, re.search(r"(\d+) ports, (\d+) of them not on", text).groups())
    assert 5 < wide_open < ports, "the prose says that Ray listens on other addresses too"

    assert "workers after one PUT: 2" in text
    addresses = ast.literal_eval(re.search(r"addresses: (\{.*\})", text)[1])
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
