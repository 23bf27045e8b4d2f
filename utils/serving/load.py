"""Put load on a server: real clients, each with a connection of its own, at the same time."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Load:
    """What the clients saw.

    seconds       from the first request to the last answer
    latencies     seconds from sending to the whole answer, one for each answer 200
    statuses      HTTP status, or the name of the error -> how often
    answers       the decoded JSON of each answer 200, in the order of the requests' numbers
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int | str] = field(default_factory=Counter)
    answers: dict[int, Any] = field(default_factory=dict)

    @property
    def throughput(self) -> float:
        """Requests answered with 200, per second."""
        return len(self.latencies) / self.seconds

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200."""
        return sum(self.statuses.values()) - self.statuses[200]

    def percentile(self, q: float) -> float:
        """Return the latency in milliseconds that q percent of the answers did not exceed."""
        return float(np.percentile(self.latencies, q) * 1e3)


def load(
    url: str, bodies: Sequence[Any], *, clients: int, requests: int, timeout: float = 30
) -> Load:
    """Send `requests` POSTs from `clients` threads; each sends its next when it has its answer.

    bodies: JSON values, sent in turn: request i carries bodies[i % len(bodies)].
    """
    seen, numbers, lock = Load(), itertools.count(), threading.Lock()
    texts = [json.dumps(body) for body in bodies]

    def client() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
        while (i := next(numbers)) < requests:
            begin = time.perf_counter()
            status, text = _post(connection, url, texts[i % len(texts)])
            taken = time.perf_counter() - begin
            with lock:
                seen.statuses[status] += 1
                if status == 200:
                    seen.latencies.append(taken)
                    seen.answers[i] = json.loads(text)
        connection.close()

    begin = time.perf_counter()
    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen.seconds = time.perf_counter() - begin
    return seen


def _post(connection: http.client.HTTPConnection, url: str, text: str) -> tuple[int | str, bytes]:
    """Return the status and the body of one POST, or the name of the error and nothing."""
    try:
        connection.request("POST", urlsplit(url).path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()  # the next request opens it again
        return type(error).__name__, b""
