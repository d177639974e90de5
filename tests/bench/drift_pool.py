"""The pool: work of ``make bench-drift`` spread over the cores, with the same results on any number of them."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
# What a child would start as many threads of as there are cores.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Spread(Protocol):
    """Calls a function of a module with each task, wherever there is room, and returns the results in order."""

    def __call__(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]: ...  # noqa: D102


def here(work: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """A :class:`Spread` that calls one after another in this process."""
    return [work(task) for task in tasks]


@contextmanager
def spread() -> Iterator[Spread]:
    """A :class:`Spread` over the cores that this process may use, one thread each."""
    os.environ.update(dict.fromkeys(THREADS, "1"))  # before a child imports numpy
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        yield functools.partial(_everywhere, pool)


def _everywhere(pool: ProcessPoolExecutor, work: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return list(pool.map(work, tasks))
