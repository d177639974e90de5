"""Throughput: how fast a contestant works through a full topic, by the kernel's account of its CPU time.

The same for all: a contestant starts on a topic that is already full, and each decision gives a record in its scores topic,
so the records there say how far it is. Measured from a tenth of its share on, when it has started and is warm, to the
whole of it; the topic holds more than that, so that it is as busy at the end as at the start and what is under way
at either end cancels out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import msgspec

from tests.bench.arena import Arena
from tests.bench.contestants import ENGINE, Contestant, Running
from tests.bench.workload import Workload

TOPIC = "throughput"
SPARE = 0.05  # of the events, more than anybody is measured on
WARM = 0.1  # of a contestant's share


class Run(msgspec.Struct, frozen=True):
    """One contestant, once, over ``events`` events."""

    events: float
    wall_s: float
    cpu_s: float
    peak_bytes: int
    stages: dict[str, float]  # µs an event by stage, the engine's own account of its wall time

    @property
    def per_core(self) -> float:
        """Events for each second of CPU."""
        return self.events / self.cpu_s

    @property
    def end_to_end(self) -> float:
        """Events for each second of wall-clock time."""
        return self.events / self.wall_s


def fill_topic(arena: Arena, workload: Workload) -> Workload:
    """Fill the topic with ``workload`` and what it holds to spare; returns all that is in it."""
    whole = Workload(int(workload.events * (1 + SPARE)), workload.users, workload.seed)
    arena.fill(TOPIC, whole.values())
    return whole


def alternate(
    arena: Arena, whole: Workload, peers: Sequence[Contestant], rounds: int
) -> dict[str, list[Run]]:
    """Run engine and peers in turn, ``rounds`` times each peer and the engine before each; runs by contestant."""
    decisions = whole.decisions
    runs: dict[str, list[Run]] = {contestant.name: [] for contestant in (ENGINE, *peers)}
    for _ in range(rounds):
        for peer in peers or (None,):
            for contestant in (ENGINE, peer) if peer is not None else (ENGINE,):
                runs[contestant.name].append(_run(arena, contestant, whole.events, decisions))
    return runs


def rate(runs: Sequence[Run]) -> float:
    """Return the median of the runs' events for each second of CPU."""
    return statistics.median([run.per_core for run in runs])


def median(runs: Sequence[Run]) -> Run:
    """Return the run that comes nearest to the median rate."""
    middle = rate(runs)
    return min(runs, key=lambda run: abs(run.per_core - middle))


def _run(arena: Arena, contestant: Contestant, events: int, decisions: int) -> Run:
    target = int(decisions * contestant.share / (1 + SPARE))
    with arena.job(contestant, TOPIC) as job, Running(contestant, job) as running:
        scores = arena.await_count(running, job.scores, int(target * WARM))
        cpu, wall = running.cpu_s, time.monotonic()
        before = running.metrics() if contestant is ENGINE else {}
        scores = arena.await_count(running, job.scores, target) - scores
        cpu, wall = running.cpu_s - cpu, time.monotonic() - wall
        after = running.metrics() if contestant is ENGINE else {}
        return Run(
            events=scores * events / decisions,
            wall_s=wall,
            cpu_s=cpu,
            peak_bytes=running.memory("VmHWM"),
            stages=_stages(before, after),
        )


def _stages(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    prefix = "eddyline_stage_seconds_total"
    records = after.get("eddyline_records_total", 0.0) - before.get("eddyline_records_total", 0.0)
    return {
        name[len(prefix) + 1 : -1]: 1e6 * (seconds - before.get(name, 0.0)) / records
        for name, seconds in after.items()
        if name.startswith(prefix)
    }
