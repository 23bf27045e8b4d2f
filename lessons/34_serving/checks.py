"""What a right answer is in the exercises on serving: one NumPy reference for all tracks."""

from __future__ import annotations

import json

import numpy as np

from utils.checks import Case, Exercise, Verdict

TOLERANCE = 1e-5
REFUSED = "refused"


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


class PartsJudge:
    """Judges the parts of a batch: as many as there are requests, each with its own rows."""

    def __init__(self, y: np.ndarray, counts: list[int]) -> None:
        self.parts = np.split(y, np.cumsum(counts)[:-1])

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple):
            return Verdict(0, "return a list of tensors, one for each request")
        shapes = [np.shape(part) for part in value]
        right = [part.shape for part in self.parts]
        if shapes != right:
            return Verdict(0, f"got the shapes {shapes}, expected {right}")
        for i, (got, part) in enumerate(zip(value, self.parts, strict=True)):
            if not np.allclose(got, part, atol=TOLERANCE):
                return Verdict(0, f"request {i} got other rows than its own")
        return Verdict(1)


def split_cases(rng: np.random.Generator) -> list[Case]:
    def case(counts: list[int], about: str) -> Case:
        y = _normal(rng, sum(counts), 10)
        return Case({"y": y, "counts": counts}, judge=PartsJudge(y, counts), about=about)

    return [
        case([1, 3, 2], "three requests"),
        case([4], "a batch of one request"),
        case([1] * 8, "eight requests of one row"),
        case([int(n) for n in rng.integers(1, 9, 12)], "twelve requests"),
    ]


def pad_rows(x: np.ndarray) -> np.ndarray:
    """Return x with rows of zeros up to the next power of two: (n, d) -> (m, d)."""
    rows = 1
    while rows < len(x):
        rows *= 2
    return np.concatenate([x, np.zeros((rows - len(x), x.shape[1]), x.dtype)])


def pad_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, about: str) -> Case:
        x = _normal(rng, n, 5)
        return Case({"x": x}, expected=pad_rows(x), about=about)

    return [
        case(5, "five rows"),
        case(1, "a single row"),
        case(8, "a power of two already"),
        case(33, "one row more than a power of two"),
    ]


def pad_mistake(case: Case, got: np.ndarray) -> str | None:
    n, m = len(case.args["x"]), len(case.expected)
    if got.shape == (2 * m, 5) and n == m:
        return "a number of rows that is a power of two already must stay"
    if got.ndim == 2 and got.shape[1] != 5:
        return "the columns must stay as they are: append rows"
    if got.shape == case.expected.shape and np.allclose(got[m - n :], case.args["x"]):
        return "the rows of zeros belong below the others, not above"
    return None


class ReadJudge:
    """Judges what came of a request: `rows`, or REFUSED where there are none."""

    def __init__(self, rows: np.ndarray | None) -> None:
        self.rows = rows

    def __call__(self, value: object) -> Verdict:
        if self.rows is None:
            refused = isinstance(value, str) and value == REFUSED
            return Verdict(refused, "" if refused else "this request must be refused")
        if isinstance(value, str):
            return Verdict(0, "this request is a good one")
        if np.shape(value) != self.rows.shape:
            said = f"got shape {np.shape(value)}, expected {self.rows.shape}"
            return Verdict(0, said)
        if np.asarray(value).dtype != np.float32:
            return Verdict(0, f"got {np.asarray(value).dtype}, expected float32")
        right = np.allclose(value, self.rows, rtol=TOLERANCE)
        return Verdict(right, "" if right else "these are not the numbers of the request")


def read_cases(rng: np.random.Generator) -> list[Case]:
    def case(body: str, about: str, rows: np.ndarray | None = None) -> Case:
        args = {"body": body, "width": 3}
        return Case(args, judge=ReadJudge(rows), about=about, weight=2 if rows is not None else 1)

    x = np.round(_normal(rng, 4, 3), 3)
    whole = rng.integers(0, 256, (1, 3))
    good = {"four rows": x, "one row of whole numbers": whole}
    return [
        *(
            case(json.dumps({"instances": rows.tolist()}), about, rows.astype(np.float32))
            for about, rows in good.items()
        ),
        case("{", "no JSON"),
        case("[1, 2, 3]", "JSON without `instances`"),
        case('{"inputs": [[1, 2, 3]]}', "another key"),
        case('{"instances": [1, 2, 3]}', "one dimension"),
        case('{"instances": [[1, 2, 3, 4]]}', "a number too many"),
        case('{"instances": [[1, 2, 3], [4, 5]]}', "rows of two lengths"),
        case('{"instances": []}', "no rows"),
        case('{"instances": [["1", "2", "3"]]}', "texts"),
        case('{"instances": [[true, false, true]]}', "truth values"),
        case('{"instances": [[1, true, 3]]}', "a truth value among numbers"),
        case('{"instances": [[1, null, 3]]}', "null"),
        case('{"instances": [[1, NaN, 3]]}', "NaN"),
        case('{"instances": [[1, 1e39, 3]]}', "a number that float32 cannot hold"),
    ]


def serve_queue(
    x: np.ndarray, counts: list[int], limit: int, W: np.ndarray, b: np.ndarray
) -> list[np.ndarray]:
    """Return tanh(x W + b) of each batch of requests: (n, d), (d, k), (k,) -> list of (rows, k)."""
    batches = [sum(counts[i : i + limit]) for i in range(0, len(counts), limit)]
    return np.split(np.tanh(x @ W + b), np.cumsum(batches)[:-1])


class BatchesJudge:
    """Judges the answers of a queue, batch by batch, and names the usual wrong turns."""

    def __init__(self, args: dict) -> None:
        self.right, self.limit = serve_queue(**args), args["limit"]

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple):
            return Verdict(0, "return a list of tensors, one for each batch")
        shapes, right = ([np.shape(part) for part in parts] for parts in (value, self.right))
        if shapes == right[:-1]:
            return Verdict(0, "the last batch is not full, and its requests get no answer")
        if shapes != right:
            said = f"got the shapes {shapes}, expected {right}"
            return Verdict(0, f"{said}: one batch for each {self.limit} requests")
        for i, (got, part) in enumerate(zip(value, self.right, strict=True)):
            if not np.allclose(got, part, atol=TOLERANCE):
                why = "" if i == 0 else ": it begins at the wrong row, as limit counts requests"
                return Verdict(0, f"batch {i} has other rows than its own{why}")
        return Verdict(1)


def queue_cases(rng: np.random.Generator) -> list[Case]:
    def case(counts: list[int], limit: int, about: str) -> Case:
        args = {
            "x": _normal(rng, sum(counts), 6),
            "counts": counts,
            "limit": limit,
            "W": _normal(rng, 6, 4) / np.float32(2),
            "b": _normal(rng, 4),
        }
        return Case(args, judge=BatchesJudge(args), about=about)

    return [
        case([1, 1, 1, 1, 1], 2, "five requests of one row, two at a time"),
        case([2, 1, 3, 1], 2, "requests of several rows"),
        case([3], 16, "one request, less than the limit"),
        case([int(n) for n in rng.integers(1, 5, 11)], 4, "eleven requests, four at a time"),
    ]


def closed_loop(clients: int, rate: float, seconds: float) -> tuple[float, float]:
    """Return throughput and latency; in a closed loop clients = throughput * latency."""
    throughput = min(rate, clients / seconds)
    return throughput, clients / throughput


class PairJudge:
    """Judges (throughput, latency), half of the points each."""

    def __init__(self, throughput: float, latency: float) -> None:
        self.right = {"throughput": throughput, "latency": latency}

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple) or [np.shape(v) for v in value] != [(), ()]:
            return Verdict(0, "return two numbers: throughput and latency")
        off = [
            f"{name}: got {float(got):g}, expected {right:g}"
            for got, (name, right) in zip(value, self.right.items(), strict=True)
            if not abs(float(got) - right) <= 1e-6 * right
        ]
        return Verdict(1 - len(off) / 2, "; ".join(off))


def loop_cases(rng: np.random.Generator) -> list[Case]:
    def case(clients: int, rate: float, seconds: float, about: str) -> Case:
        args = {"clients": clients, "rate": rate, "seconds": seconds}
        return Case(args, judge=PairJudge(*closed_loop(**args)), about=about)

    return [
        case(1, 500.0, 0.01, "a single client"),
        case(5, 500.0, 0.01, "exactly at the limit"),
        case(64, 500.0, 0.01, "far above it"),
        case(int(rng.integers(2, 50)), float(rng.integers(50, 900)), 0.02, "drawn by chance"),
    ]


def simulate(arrivals: list[float], limit: int, fixed: float, per_row: float) -> list[float]:
    """Return each request's latency behind a queue that makes batches of at most `limit`."""
    queue, latencies, now = list(arrivals), [], 0.0
    while queue:
        now = max(now, queue[0])
        batch = [t for t in queue if t <= now][:limit]
        now += fixed + per_row * len(batch)
        latencies += [now - t for t in batch]
        queue = queue[len(batch) :]
    return latencies


class LatencyJudge:
    """Judges a list of latencies, and names the usual wrong turns."""

    def __init__(self, args: dict) -> None:
        self.arrivals = np.array(args["arrivals"])
        self.right = np.array(simulate(**args))
        self.alone = np.array(simulate(**(args | {"limit": 1})))

    def __call__(self, value: object) -> Verdict:
        got = np.array(value, np.float64)
        if got.shape != self.right.shape:
            return Verdict(0, f"got {got.size} latencies, expected {self.right.size}")
        if np.allclose(got, self.right, atol=TOLERANCE):
            return Verdict(1)
        i = int(np.argmax(np.abs(got - self.right)))
        said = f"request {i}: got {got[i]:g}, expected {self.right[i]:g}"
        return Verdict(0, said + self._why(got))

    def _why(self, got: np.ndarray) -> str:
        if np.allclose(got - self.right, self.arrivals, atol=TOLERANCE):
            return ": these are the times at which the batches end, so subtract the arrivals"
        if np.allclose(got, self.alone, atol=TOLERANCE):
            return ": every request goes alone; who waits when the model is free goes together"
        return ""


def simulate_cases(rng: np.random.Generator) -> list[Case]:
    def case(arrivals: list[float], limit: int, about: str) -> Case:
        args = {"arrivals": arrivals, "limit": limit, "fixed": 0.5, "per_row": 0.125}
        return Case(args, judge=LatencyJudge(args), about=about)

    crowd = [float(t) for t in np.sort(rng.integers(0, 200, 40)) / 8]  # exact in binary
    return [
        case([0.0, 5.0, 10.0], 4, "nobody ever waits"),
        case([0.0, 0.25, 0.25, 0.5], 1, "no batching"),
        case([0.0, 0.25, 0.25, 0.5, 0.5], 8, "all who wait go together"),
        case([1.0] * 7, 3, "seven at the same moment, three at a time"),
        case(crowd, 4, "a crowd"),
    ]


EXERCISES = [
    Exercise(
        name="split_batch",
        points=1,
        cases=split_cases,
        seconds=30,
        hints=(
            "Every framework has a function `split`; slices do as well.",
            "Some take the sizes of the parts, some the places where to cut: look it up.",
            "The places are the cumulative sums of the counts, without the last one.",
        ),
    ),
    Exercise(
        name="pad_rows",
        points=2,
        cases=pad_cases,
        seconds=30,
        hints=(
            "First the number: the smallest power of two that is not below n.",
            "1 << (n - 1).bit_length() is that number.",
            "Then append (that number - n) rows of zeros; every framework has a `pad`.",
        ),
        mistake=pad_mistake,
    ),
    Exercise(
        name="read_request",
        points=2,
        cases=read_cases,
        seconds=30,
        hints=(
            "json.loads raises ValueError; a list has no key; None has nothing.",
            "Look at the dtype's kind before you convert: numbers are 'i', 'u' and 'f'.",
            "Among numbers NumPy makes 0 and 1 of truth values: look at the type of each value.",
            "An array of no rows has one dimension, or a first axis of 0.",
            "np.isfinite after the conversion to float32, since 1e39 becomes infinity there.",
        ),
    ),
    Exercise(
        name="serve_queue",
        points=2,
        cases=queue_cases,
        seconds=30,
        hints=(
            "How many batches do five requests make, two at a time?",
            "limit counts requests. Which row does the second batch begin with?",
            "Keep a counter of the rows that are done: the next batch begins there.",
        ),
    ),
    Exercise(
        name="closed_loop",
        points=1,
        cases=loop_cases,
        hints=(
            "With one client: it gets an answer each `seconds`, so 1 / seconds a second.",
            "The throughput is the smaller one of what the clients ask for and what there is.",
            "clients = throughput * latency.",
        ),
    ),
    Exercise(
        name="simulate",
        points=2,
        cases=simulate_cases,
        hints=(
            "Keep two numbers: when the model is free again, and who is next.",
            "A batch starts at max(free, arrival of the next one).",
            "In it are those of the next `limit` requests who arrived at the start or before.",
        ),
    ),
]
