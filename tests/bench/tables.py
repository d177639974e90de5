"""How ``make bench-stream`` shows what it measured: tables from values, and the figures of ``bench/results/stream.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from rich.table import Table

from tests.bench.contestants import ENGINE, PEERS
from tests.bench.latency import Latency
from tests.bench.memory import Memory
from tests.bench.throughput import Run, median, rate
from tests.bench.workload import SHARES, TYPES

TITLES = {contestant.name: contestant.title for contestant in (ENGINE, *PEERS)}
FAUST = ("faust", "faust-take")
OTHERS = ("quix", "bytewax")


class Stage(NamedTuple):
    """A stage's budget of design.md §3: ``each`` µs for each ``of``, of which there are ``share`` an event."""

    each: float
    of: str
    share: float


DECISIONS = SHARES[TYPES.index("due")]
BUDGET = {
    "decode": Stage(0.8 + 0.75, "event", 1),  # JSON, columns
    "fold": Stage(0.1 + 0.3 + DECISIONS * 0.03, "event", 1),  # counters, changelog rows, features
    "score": Stage(0.35, "decision", DECISIONS),
    "encode": Stage(0.65, "decision", DECISIONS),
    "write": Stage(0.7, "record", 1 + DECISIONS),  # a changelog row an event, a score a decision
    "the rest": Stage(2.1, "event", 1),  # an agent that does nothing, fed in runs
}
TARGETS = {
    "events_per_second_per_core": (">=", 100_000),
    "ratio_to_plain_faust": (">=", 25),
    "ratio_to_best_peer": (">=", 2),
    "p99_ms_at_20000": ("<=", 50),
    "gib_per_million_users": ("<=", 0.4),
    "restore_profiles_per_second": (">=", 200_000),
}


class Results(msgspec.Struct):
    """Everything measured; what was not is empty."""

    runs: dict[str, list[Run]] = {}
    latencies: list[tuple[str, Latency]] = []
    memory: Memory | None = None
    differences: dict[str, float] = {}


def figures(results: Results) -> dict[str, float]:
    """Return the numbers of the JSON file, those of what was measured."""
    found: dict[str, float] = {}
    medians = {name: median(runs) for name, runs in results.runs.items() if runs}
    if ENGINE.name in medians:
        ours = medians[ENGINE.name]
        rates = {name: rate(results.runs[name]) for name in medians}
        found["events_per_second_per_core"] = rates[ENGINE.name]
        found["events_per_second_end_to_end"] = ours.end_to_end
        found["peak_gib"] = ours.peak_bytes / 2**30
        for key, names in (("ratio_to_plain_faust", FAUST), ("ratio_to_best_peer", OTHERS)):
            others = [rates[name] for name in names if name in rates]
            if others:
                found[key] = rates[ENGINE.name] / max(others)
        for name in rates.keys() - {ENGINE.name}:
            found[f"{name.replace('-', '_')}_events_per_second_per_core"] = rates[name]
    for name, latency in results.latencies:
        prefix = "" if name == ENGINE.name else f"{name.replace('-', '_')}_"
        found[f"{prefix}p50_ms_at_{latency.rate:.0f}"] = latency.p50_ms
        found[f"{prefix}p99_ms_at_{latency.rate:.0f}"] = latency.p99_ms
    if results.memory is not None:
        memory = results.memory
        found["gib_per_million_users"] = _gib_per_million(memory.resident_bytes, memory.users)
        # Of few profiles the restore is lost in the noise of a start, and no rate can be given.
        if memory.restore_cpu_s > 0:
            found["restore_profiles_per_second"] = memory.users / memory.restore_cpu_s
        if memory.restore_wall_s > 0:
            found["restore_profiles_per_second_wall"] = memory.users / memory.restore_wall_s
    return {name: float(f"{value:.5g}") for name, value in sorted(found.items())}


def tables(results: Results) -> Iterable[Table]:
    """Yield the tables of what was measured."""
    if results.runs:
        yield throughput_table(results.runs, results.differences)
        yield stage_table(median(results.runs[ENGINE.name]))
    if results.latencies:
        yield latency_table(results.latencies)
    if results.memory is not None:
        yield memory_table(results.memory)
    yield target_table(figures(results))


def throughput_table(runs: Mapping[str, Sequence[Run]], differences: Mapping[str, float]) -> Table:
    """Rates of every contestant, the median run with the range of all."""
    table = Table(title="Throughput: events/s for each core of worker CPU, median run (lowest - highest)")
    for column in (
        "",
        "events",
        "events/s/core",
        "us CPU/event",
        "Eddyline is",
        "events/s end to end",
        "cores",
        "peak GiB",
        "score difference",
    ):
        table.add_column(column, justify="right" if column else "left")
    ours = rate(runs[ENGINE.name])
    for name, each in runs.items():
        if not each:
            continue
        run, middle, rates = median(each), rate(each), [run.per_core for run in each]
        table.add_row(
            TITLES[name],
            f"{run.events:,.0f} x{len(each)}",
            f"{middle:,.0f} ({min(rates):,.0f} - {max(rates):,.0f})",
            f"{1e6 / middle:.1f}",
            "" if name == ENGINE.name else f"{ours / middle:.1f}x",
            f"{run.end_to_end:,.0f}",
            f"{run.cpu_s / run.wall_s:.2f}",
            f"{run.peak_bytes / 2**30:.2f}",
            f"{differences[name]:.1e}" if name in differences else "",
        )
    return table


def stage_table(run: Run) -> Table:
    """The engine's median run by stage, beside the design's budget."""
    table = Table(title="Eddyline by stage, us: stages by the clock, the whole by CPU")
    for column in ("stage", "an event", "for each", "measured", "design.md", "over"):
        table.add_column(column, justify="left" if column in ("stage", "for each") else "right")
    whole = 1e6 * run.cpu_s / run.events
    measured = {**run.stages, "the rest": whole - sum(run.stages.values())}
    for name, found in measured.items():
        stage = BUDGET.get(name)
        if stage is None:
            table.add_row(name, f"{found:.2f}")
            continue
        each = found / stage.share
        budget = (f"{each:.2f}", f"{stage.each:.2f}", f"{each / stage.each:.1f}x")
        table.add_row(name, f"{found:.2f}", stage.of, *budget)
    total = sum(stage.each * stage.share for stage in BUDGET.values())
    table.add_row("all", f"{whole:.2f}", "event", f"{whole:.2f}", f"{total:.2f}", f"{whole / total:.1f}x")
    return table


def latency_table(latencies: Sequence[tuple[str, Latency]]) -> Table:
    """Latencies of every contestant and rate."""
    table = Table(title="Latency: from a decision's send to its score at a consumer, ms")
    for column in ("", "events/s", "decisions", "p50", "p99", "not scored", "producer late", "worker cores"):
        table.add_column(column, justify="right" if column else "left")
    for name, each in latencies:
        table.add_row(
            TITLES[name],
            f"{each.rate:,.0f}",
            f"{each.decisions:,}",
            f"{each.p50_ms:.1f}",
            f"{each.p99_ms:.1f}",
            f"{each.lost:,}",
            f"{each.late_ms:.1f}",
            f"{each.cores:.2f}",
        )
    return table


def memory_table(memory: Memory) -> Table:
    """Memory and restore of the engine's profiles."""
    table = Table(title=f"Eddyline with {memory.users:,} profiles", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    per = memory.users
    table.add_row(
        "GiB a million users, beyond an empty worker", f"{_gib_per_million(memory.resident_bytes, per):.3f}"
    )
    table.add_row("  of it rows", f"{_gib_per_million(memory.row_bytes, per):.3f}")
    table.add_row("  after a restore", f"{_gib_per_million(memory.restored_resident_bytes, per):.3f}")
    table.add_row("GiB of an empty worker", f"{memory.empty.resident_bytes / 2**30:.3f}")
    table.add_row("GiB at most while folding them", f"{memory.peak_bytes / 2**30:.3f}")
    for label, seconds in (("of CPU", memory.restore_cpu_s), ("by the clock", memory.restore_wall_s)):
        table.add_row(
            f"restored profiles/s {label}", f"{per / seconds:,.0f}" if seconds > 0 else "too few to tell"
        )
    table.add_row(
        "s CPU and s by the clock of the restore", f"{memory.restore_cpu_s:.2f}  {memory.restore_wall_s:.2f}"
    )
    table.add_row(
        "  of an empty start, which is taken off", f"{memory.empty.cpu_s:.2f}  {memory.empty.wall_s:.2f}"
    )
    return table


def target_table(found: Mapping[str, float]) -> Table:
    """The figures that have a target, beside it."""
    table = Table(title="Targets")
    for column in ("figure", "measured", "target", ""):
        table.add_column(column, justify="left" if column in ("figure", "") else "right")
    for name, (sign, target) in TARGETS.items():
        if name in found:
            met = found[name] >= target if sign == ">=" else found[name] <= target
            table.add_row(name, f"{found[name]:,.4g}", f"{sign} {target:,}", "met" if met else "missed")
    return table


def _gib_per_million(size: float, users: int) -> float:
    return size / users * 1e6 / 2**30
