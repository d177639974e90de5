"""Agreement: every contestant does the same job, so every decision gets the same score from each of them."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.arena import Arena
from tests.bench.contestants import ENGINE, BenchError, Contestant, Running
from tests.bench.workload import Workload

TOLERANCE = 1e-4  # the engine keeps its sums in single precision
WORKLOAD = Workload(events=5000, users=500, seed=1)  # ten events a user: histories, not first events
TOPIC = "agreement"


def differences(arena: Arena, peers: Sequence[Contestant]) -> dict[str, float]:
    """Return each peer's largest difference to the engine's scores; raises :class:`BenchError` beyond tolerance."""
    arena.fill(TOPIC, WORKLOAD.values())
    expected = _scores(arena, ENGINE)
    found: dict[str, float] = {}
    for peer in peers:
        scores = _scores(arena, peer)
        if scores.keys() != expected.keys():
            raise BenchError(
                f"{peer.name} scored {len(scores)} decisions, the engine {len(expected)}, not the same"
            )
        found[peer.name] = max(abs(scores[identity] - expected[identity]) for identity in expected)
        if not found[peer.name] <= TOLERANCE:
            raise BenchError(f"{peer.name}'s scores differ from the engine's by {found[peer.name]}")
    return found


def _scores(arena: Arena, contestant: Contestant) -> dict[str, float]:
    with arena.job(contestant, TOPIC) as job, Running(contestant, job) as running:
        count = arena.await_count(running, job.scores, WORKLOAD.decisions)
        found: dict[str, float] = {}
        for scored in arena.scores(job.scores, lambda: len(found) >= count):
            found[scored.id] = scored.score
        return found
