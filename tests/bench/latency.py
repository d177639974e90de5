"""Latency: from a decision event's ``send`` in a producer to its score's arrival at a consumer, at a steady rate.

Both ends are clients of ours on the same machine, so this holds the producer's linger, the broker twice and both fetches.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import numpy as np

from tests.bench.arena import Arena
from tests.bench.contestants import BenchError, Contestant, Running
from tests.bench.pace import PREFIX, Paced, sent_at
from tests.bench.report import ROOT
from tests.bench.workload import Workload

READY_EVENTS = 1000  # sent first, so that a contestant has started before the rate does
SETTLE_S = 5.0  # at the rate before anything is measured
GIVE_UP_S = 20.0  # of silence after the last event


class Latency(msgspec.Struct, frozen=True):
    """Latencies of the decisions sent after the settling time, in ms; ``lost`` of them had no score in the end."""

    rate: float  # events a second
    decisions: int
    lost: int
    p50_ms: float
    p99_ms: float
    late_ms: float  # by which the producer was behind its schedule at most
    cores: float  # CPU of the worker meanwhile


def measure(arena: Arena, contestant: Contestant, rate: float, seconds: float, users: int) -> Latency:
    """Measure one contestant at ``rate`` events a second for ``seconds``."""
    topic = f"latency-{contestant.name}-at-{rate:.0f}"
    ready = Workload(READY_EVENTS, users)
    arena.fill(topic, ready.values())
    with arena.job(contestant, topic) as job, Running(contestant, job) as running:
        arena.await_count(running, job.scores, ready.decisions)
        with _pacing(arena.broker, topic, rate, SETTLE_S + seconds, users) as producer:
            cpu, started = running.cpu_s, 0.0  # when the first score came
            heard = time.monotonic()

            def silent() -> bool:
                running.check()
                return producer.poll() is not None and time.monotonic() - heard > GIVE_UP_S

            found: list[tuple[float, float]] = []  # sent, arrived
            expected = Workload(int(rate * (SETTLE_S + seconds)), users).decisions
            for scored in arena.scores(job.scores, lambda: silent() or len(found) == expected):
                heard = time.monotonic()
                if scored.id.startswith(PREFIX):
                    if not found:
                        cpu, started = running.cpu_s, heard
                    found.append((sent_at(scored.id), scored.at))
            if len(found) < 2:
                raise BenchError(f"{contestant.name} scored {len(found)} of {expected} decisions")
            cores = (running.cpu_s - cpu) / (heard - started)
            paced = Paced(**json.loads(producer.communicate()[0]))
    sent, arrived = np.array(found).T
    waits = 1000 * (arrived - sent)[sent >= sent.min() + SETTLE_S]
    p50, p99 = np.percentile(waits, [50, 99]).tolist()
    return Latency(rate, len(waits), paced.decisions - len(found), p50, p99, 1000 * paced.late_s, cores)


@contextlib.contextmanager
def _pacing(
    broker: str, topic: str, rate: float, seconds: float, users: int
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.bench.pace", "--broker", broker, "--topic", topic]
    command += ["--rate", str(rate), "--seconds", str(seconds), "--users", str(users)]
    producer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    try:
        yield producer
    finally:
        if producer.poll() is None:
            producer.kill()
        producer.wait()
