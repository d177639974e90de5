"""``make bench-drift``: how rare false alarms are, how soon drift is found, whether its kind is right, and what it costs.

``python -m tests.bench.drift [--csv FILE] [--only PARTS] [--episodes N]`` prints tables and writes
``bench/results/drift.json``. Parts: *alarms*, events between false alarms against what was promised; *delay*, against
river's detectors at the same rate of false alarms; *protocol*, that of KDD 2026, on FILE (a CSV whose last column is a
binary class) or a stream that river generates; *faults*, data faults; *cost*, time and bytes; *delayed*, labels that
come late. With ``--only`` the figures of other parts stay in the file as they were; ``measured`` tells when each was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from tests.bench import (
    drift_alarms,
    drift_cost,
    drift_data,
    drift_delay,
    drift_faults,
    drift_labels,
    drift_protocol,
    drift_tables,
    report,
)
from tests.bench.drift_pool import Spread, spread

EPISODES = 50  # of a drift, of a fault
STREAMS = 300  # of a cell of the comparison of delays
WIDTH = 140  # of a file that is printed to


class Order(msgspec.Struct, frozen=True):
    """What is to be measured: ``episodes`` below ``EPISODES`` shortens every part alike."""

    csv: Path | None
    episodes: int

    @property
    def scale(self) -> float:
        """The share of the full length."""
        return min(1.0, self.episodes / EPISODES)

    def of(self, full: int, least: int) -> int:
        """``full``, shortened."""
        return max(least, round(full * self.scale))


Part = Callable[[Spread, Order], dict[str, Any]]
PARTS: dict[str, Part] = {
    # Alone, and first: nothing of ours is to stand in the way of what is timed.
    "cost": lambda over, _: drift_cost.measure(over),
    "alarms": lambda over, order: drift_alarms.measure(over, order.of(drift_alarms.REFERENCES, 2)),
    "delay": lambda over, order: drift_delay.measure(over, order.of(STREAMS, 60), max(0.2, order.scale)),
    "protocol": lambda over, order: drift_protocol.measure(over, order.csv, order.episodes),
    "faults": lambda over, order: drift_faults.measure(over, order.csv, order.episodes),
    "delayed": lambda over, order: drift_labels.measure(over, order.scale),
}


def measure(over: Spread, order: Order, parts: Sequence[str], console: Console) -> dict[str, Any]:
    """Run the ``parts`` one after another, print what each finds, and return all figures."""
    found: dict[str, Any] = {"measured": {}}
    for part in parts:
        begin = time.perf_counter()
        figures = PARTS[part](over, order)
        seconds = round(time.perf_counter() - begin, 1)
        found |= figures
        found["measured"][part] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
            "episodes": order.episodes,
            "csv": None if order.csv is None else order.csv.name,
            "load": round(os.getloadavg()[0], 2),
        }
        for shown in drift_tables.TABLES[part](figures):
            console.print(shown)
        console.print(f"{part}: {seconds:.0f} s\n")
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the figures to ``path``, those of parts that were not run as they stand there."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    measured = before.get("measured", {}) | found["measured"]
    versions = report.versions(("river", "scikit-learn", "scipy"))
    content = before | found | {"measured": measured, "versions": versions, "machine": report.machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.drift", description="Measure the drift monitor."
    )
    parser.add_argument("--csv", type=Path, help="data of the protocol; its last column is a binary class")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {','.join(PARTS)}")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="of each drift and fault")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "drift.json")
    options = parser.parse_args(arguments)
    parts: list[str] = options.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--only takes parts of {','.join(PARTS)}; got {','.join(unknown)}")
    if options.episodes < 1:
        parser.error(f"--episodes is 1 or more; got {options.episodes}")
    order = Order(None if options.csv is None else options.csv.resolve(), options.episodes)
    if order.csv is not None:
        try:
            drift_data.read(order.csv)
        except drift_data.DataError as error:
            sys.stderr.write(f"{error}\n")
            return 2
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    with spread() as over:
        found = measure(over, order, parts, console)
    write(options.out, found)
    console.print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
