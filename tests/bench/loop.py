"""``make bench-loop``: the loop on a year and a half of real decisions, and on drift simulated through the whole system.

``python -m tests.bench.loop --data DIR`` takes a folder of the Open University's tables (by default the repository's
sample) and writes ``bench/results/loop.json``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench import loop_oulad, report
from tests.bench.loop_seen import Seen
from tests.bench.loop_system import ONSET, Scenario, first_model
from tests.bench.loop_world import PAGES, USECASE, Kind
from tests.broker import Broker

QUIET_EVENTS = 1_000_000
QUIET_RATE = 1_400  # decisions a second, of as many as the machine manages
LABEL_FREE = USECASE.replace("witnesses = []", "witnesses = []\nlabel_free = true")

# What each scenario has to show for its stream to end early.
ENOUGH: dict[Kind, Callable[[Seen], bool]] = {
    Kind.LABEL: lambda seen: seen.recovered_s is not None,
    Kind.CONCEPT: lambda seen: seen.recovered_s is not None,
    Kind.COVARIATE: lambda seen: seen.verdict == "covariate",
    Kind.FAULT: lambda seen: seen.verdict == "data-fault",
}


def main() -> None:
    """Run what ``--only`` names, or all, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default="oulad,label,label-free,covariate,concept,fault,quiet")
    arguments = parser.parse_args()
    chosen = set(arguments.only.split(","))
    console = Console()
    figures: dict[str, float] = {}
    if "oulad" in chosen:
        figures |= loop_oulad.measure(arguments.data)
    seen: dict[str, Seen] = {}
    if chosen - {"oulad"}:
        with (
            tempfile.TemporaryDirectory() as folder,
            Broker.start(Path(folder) / "kafka") as broker,
        ):
            bundle = first_model(Path(folder))
            for kind, enough in ENOUGH.items():
                if kind in chosen:
                    seen[kind] = Scenario(broker, Path(folder), bundle, kind).run(enough=enough)
            if "label-free" in chosen:
                scenario = Scenario(broker, Path(folder), bundle, Kind.LABEL, LABEL_FREE)
                seen["label-free"] = scenario.run(enough=ENOUGH[Kind.LABEL])
            if "quiet" in chosen:
                count = QUIET_EVENTS * 10 // (10 * PAGES + 14)
                scenario = Scenario(broker, Path(folder), bundle, Kind.NOTHING)
                seen["quiet"] = scenario.run(count, onset=1, rate=QUIET_RATE)
    if seen:
        _tell(console, seen)
    for name, each in seen.items():
        values = msgspec.to_builtins(each)
        figures |= {
            f"{name.replace('-', '_')}_{field}": value
            for field, value in values.items()
            if isinstance(value, int | float)
        }
    path = report.write("loop", figures, report.versions(["tensorflow-cpu", "faust-streaming", "river"]))
    console.print(f"{path}")


def _tell(console: Console, seen: dict[str, Seen]) -> None:
    for name, each in seen.items():
        console.print(f"[bold]{name}[/bold]: decisions since the onset, and what happened")
        for line in each.course:
            console.print(f"  {line}", markup=False, highlight=False)
    console.print(_table(seen))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return "-" if value is None else str(value)


def _table(seen: dict[str, Seen]) -> Table:
    """Scenarios as columns."""
    table = Table(title=f"drift through the whole system, from decision {ONSET:,} on")
    table.add_column("")
    for name in seen:
        table.add_column(name, justify="right")
    for field in Seen.__struct_fields__[1:-1]:
        values = [getattr(each, field) for each in seen.values()]
        table.add_row(field, *(_shown(value) for value in values))
    return table


if __name__ == "__main__":
    main()
