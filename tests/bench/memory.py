"""Memory of profiles, and the time to restore them: the engine alone.

A worker that has scored one decision is the zero of both. One event for each user is folded, the worker is left idle, and
what it holds more is the users'. Then it is stopped and another is started under the same engine id: what that one
takes longer, in CPU and on the clock, until it scores a decision sent meanwhile is the restore, since a worker scores
nothing before all profiles are back.
"""

from __future__ import annotations

import contextlib
import statistics
import time

import msgspec

from stream.producer import EventProducer
from tests.bench.arena import PATIENCE_S, POLL_S, Arena
from tests.bench.contestants import ENGINE, BenchError, Running
from tests.bench.job import Job
from tests.bench.workload import SPAN_MS, START_MS, Workload, everyone, settings

IDLE_S = 4.0  # for buffers to go and gauges, refreshed once a second, to show what is
EMPTY_STARTS = 3


class Start(msgspec.Struct, frozen=True):
    """A worker's start, from its first answer about its metrics to its first score; and what it then holds when idle."""

    cpu_s: float
    wall_s: float
    resident_bytes: int


class Memory(msgspec.Struct, frozen=True):
    """Of ``users`` profiles; times of the restore are beyond those of an empty start."""

    users: int
    resident_bytes: int  # beyond an empty worker's
    row_bytes: int  # the profiles' rows without their index, as the engine says
    peak_bytes: int  # of the whole worker while it folded them
    restored_resident_bytes: int  # beyond an empty worker's, after a restore
    restore_cpu_s: float
    restore_wall_s: float
    empty: Start


def measure(arena: Arena, users: int, restores: int) -> Memory:
    """Measure ``users`` profiles, restored ``restores`` times; medians."""
    empties = []
    for number in range(EMPTY_STARTS):
        topic = f"memory-empty-{number}"
        arena.create(topic)
        with arena.job(ENGINE, topic) as job:
            empties.append(_start(arena, job, 1))
    empty = _median(empties)
    topic = "memory"
    arena.fill(topic, everyone(users))
    with arena.job(ENGINE, topic) as job:
        with Running(ENGINE, job) as running:
            row_bytes = int(_await_metric(running, "eddyline_profiles", users)["eddyline_profile_bytes"])
            time.sleep(IDLE_S)
            resident, peak = running.memory("VmRSS"), running.memory("VmHWM")
        restored = _median([_start(arena, job, number) for number in range(1, restores + 1)])
    return Memory(
        users=users,
        resident_bytes=resident - empty.resident_bytes,
        row_bytes=row_bytes,
        peak_bytes=peak,
        restored_resident_bytes=restored.resident_bytes - empty.resident_bytes,
        restore_cpu_s=restored.cpu_s - empty.cpu_s,
        restore_wall_s=restored.wall_s - empty.wall_s,
        empty=empty,
    )


def _start(arena: Arena, job: Job, score: int) -> Start:
    """Start a worker with a decision waiting for it; its score is to be the ``score``-th of the job."""
    with EventProducer(settings(job.broker, job.name, job.events)) as producer:
        event = next(event for event in Workload(1000, 1).drawn() if event.decision)
        producer.send_encoded(event.key, event.encoded(f"start-{score}", START_MS + SPAN_MS))
    with Running(ENGINE, job) as running:
        _await_metric(running, "eddyline_profiles", 0)
        begin, before = time.monotonic(), running.cpu_s
        arena.await_count(running, job.scores, score)
        wall, cpu = time.monotonic() - begin, running.cpu_s - before
        time.sleep(IDLE_S)
        return Start(cpu, wall, running.memory("VmRSS"))


def _await_metric(running: Running, name: str, least: float) -> dict[str, float]:
    """Wait until the worker's metric is ``least`` or more; returns all metrics. 0 waits for the first answer."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        running.check()
        with contextlib.suppress(OSError):
            metrics = running.metrics()
            if metrics[name] >= least:
                return metrics
        time.sleep(POLL_S)
    raise BenchError(f"{running.name}: {name} is below {least} after {PATIENCE_S:.0f} s")


def _median(starts: list[Start]) -> Start:
    return Start(
        *(statistics.median([getattr(start, name) for start in starts]) for name in Start.__struct_fields__)
    )
