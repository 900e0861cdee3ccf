"""Batches that a thread makes before they are needed."""

import collections
import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

AHEAD = 3


def ahead(make: Callable[[Any], Any], order: Iterable[Any]) -> Generator[Any]:
    """`make` of each element of `order`, computed by a thread up to AHEAD elements in advance."""
    order = iter(order)
    with ThreadPoolExecutor(1) as thread:
        waiting = collections.deque(thread.submit(make, batch) for batch in itertools.islice(order, AHEAD))
        try:
            while waiting:
                feed = waiting.popleft().result()
                waiting.extend(thread.submit(make, batch) for batch in itertools.islice(order, 1))
                yield feed
        finally:
            thread.shutdown(cancel_futures=True)
