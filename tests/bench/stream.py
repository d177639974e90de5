"""``make bench-stream``: the engine against plain Faust, Quix Streams and Bytewax on one broker and the same events.

``python -m tests.bench.stream`` prints tables and writes ``bench/results/stream.json``. What is measured how stands in
``throughput.py``, ``latency.py`` and ``memory.py`` beside this file; ``agreement.py`` first checks that every
contestant gives the same scores. About 25 minutes on two cores that nothing else uses.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from tests.bench import agreement, latency, memory, report, throughput
from tests.bench.arena import Arena
from tests.bench.contestants import ENGINE, PEERS, BenchError, Contestant
from tests.bench.environments import pins, python
from tests.bench.tables import Results, figures, tables
from tests.bench.workload import Workload, train
from tests.broker import Broker

PARTS = ("agreement", "throughput", "latency", "memory")
ENGINE_RATES = (1_000, 5_000, 20_000)  # events/s
PEER_RATE = 1_000  # one that plain Faust sustains
ENVIRONMENTS = {
    "faust": ("faust-streaming", "aiokafka", "orjson"),
    "quix": ("quixstreams", "confluent-kafka", "rocksdict"),
    "bytewax": ("bytewax", "confluent-kafka"),
}


class Plan(msgspec.Struct, frozen=True):
    """What to measure, and at which size."""

    workload: Workload
    rounds: int
    seconds: float  # of each latency measurement
    profiles: int
    restores: int
    parts: tuple[str, ...]
    peers: tuple[Contestant, ...]
    name: str  # of the results file; a trial does not overwrite a whole run


def plan(arguments: Sequence[str] | None = None) -> Plan:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stream", description="Benchmark the engine.")
    parser.add_argument("--events", type=int, help="events of the throughput measurement [1 000 000]")
    parser.add_argument("--users", type=int, help="users that they are of [100 000]")
    parser.add_argument("--profiles", type=int, help="users of the memory measurement [1 000 000]")
    parser.add_argument("--rounds", type=int, help="runs of each peer; the engine runs before each [3]")
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything, to try it out")
    names = [*PARTS, *(peer.name for peer in PEERS)]
    parser.add_argument(
        "--only", default="", help=f"with commas, some parts and some peers, of {', '.join(names)}"
    )
    given = parser.parse_args(arguments)
    only = {name for name in given.only.split(",") if name}
    if unknown := only - set(names):
        parser.error(f"--only knows {', '.join(names)}, not {', '.join(sorted(unknown))}")
    quick = given.quick
    return Plan(
        workload=Workload(
            events=given.events or (50_000 if quick else 1_000_000),
            users=given.users or (5_000 if quick else 100_000),
        ),
        rounds=given.rounds or (1 if quick else 3),
        seconds=3.0 if quick else 20.0,
        profiles=given.profiles or (50_000 if quick else 1_000_000),
        restores=1 if quick else 3,
        parts=tuple(part for part in PARTS if part in only) or PARTS,
        peers=tuple(peer for peer in PEERS if peer.name in only) or PEERS,
        name="stream-trial" if quick or only else "stream",
    )


def run(chosen: Plan, arena: Arena, console: Console) -> Results:
    """Measure what is ``chosen``."""
    results = Results()
    if "agreement" in chosen.parts:
        console.print("agreement: every contestant scores the same 5 000 events")
        results.differences = agreement.differences(arena, chosen.peers)
        for name, difference in results.differences.items():
            console.print(f"  {name}: {difference:.1e} from the engine's scores at most")
    if "throughput" in chosen.parts:
        console.print(f"throughput: {chosen.workload.events:,} events of {chosen.workload.users:,} users")
        whole = throughput.fill_topic(arena, chosen.workload)
        results.runs = throughput.alternate(arena, whole, chosen.peers, chosen.rounds)
    if "latency" in chosen.parts:
        rates = [(ENGINE, rate) for rate in ENGINE_RATES] + [(peer, PEER_RATE) for peer in chosen.peers]
        for contestant, rate in rates:
            console.print(f"latency: {contestant.title} at {rate:,} events/s")
            found = latency.measure(arena, contestant, rate, chosen.seconds, chosen.workload.users)
            results.latencies.append((contestant.name, found))
    if "memory" in chosen.parts:
        console.print(f"memory and restore: {chosen.profiles:,} profiles")
        results.memory = memory.measure(arena, chosen.profiles, chosen.restores)
    return results


def versions() -> dict[str, str]:
    """Return the versions of everything that took part."""
    found = report.versions(("faust-streaming", "aiokafka", "ai-edge-litert", "confluent-kafka"))
    for environment, packages in ENVIRONMENTS.items():
        for package, version in report.pinned(pins(environment), packages).items():
            found[f"{environment}: {package}"] = version
    return {**found, "kafka": report.kafka_version()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module docstring."""
    chosen, console = plan(arguments), Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    with tempfile.TemporaryDirectory(prefix="bench-stream-", ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary)
        for environment in ENVIRONMENTS:
            console.print(f"environment: {python(environment).relative_to(report.ROOT)}")
        console.print("model: training on the first of the events")
        bundle = train(chosen.workload, directory)
        with Broker.start(directory / "kafka") as broker:
            try:
                results = run(chosen, Arena(broker.bootstrap, bundle, directory), console)
            except BenchError as error:
                console.print(f"[bold]bench-stream failed:[/bold] {error}")
                return 1
    for table in tables(results):
        console.print(table)
    path = report.write(chosen.name, figures(results), versions())
    console.print(f"written to {path.relative_to(report.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
