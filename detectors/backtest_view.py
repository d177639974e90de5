"""A backtest for people: runs it, prints its tables, writes the summary and the plot. ``eddyline backtest`` calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detectors import view
from detectors.backtest import Learner, Policy, backtest
from detectors.backtest_summary import Report, Summary, report
from detectors.verdict import Kind
from model.examples import Examples
from model.usecase import UseCase

FEW = 200  # decisions of a month, below which the plot leaves it out: its log-loss is mostly chance
COLOURS = ("#555555", "#4C8DD6", "#E0853A", "#3FA66B", "#C65B8A", "#8F7CC9")
_KINDS = {
    Kind.COVARIATE: "#14B8C4",
    Kind.LABEL: "#D9B310",
    Kind.CONCEPT: "#D6249F",
    Kind.MIXED: "#C0392B",
    Kind.UNDETERMINED: "#999999",
    Kind.FAULT: "#000000",
}
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "legend.frameon": False,
    "grid.alpha": 0.3,
}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare, and where to write: ``summary`` is a JSON file, ``plot`` a PNG. ``begin`` is ms."""

    usecase: UseCase
    begin: int
    policies: Sequence[tuple[str, Policy]]
    learner: str
    summary: Path | None = None
    plot: Path | None = None


def run(order: Order, examples: Examples, monitored: NDArray[np.bool_], learn: Learner) -> Report:
    """Do what ``order`` says with ``examples``, of which those ``monitored`` [n] are shown to the monitor.

    Raises :class:`model.examples.ExamplesError` and :class:`OSError`.
    """
    console = view.console()
    later = examples.time >= order.begin
    span = int(examples.time[-1]) - order.begin
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console, transient=True
    ) as progress:
        tasks = {name: progress.add_task(name, total=span) for name, _ in order.policies}

        def tell(name: str, now: int) -> None:
            progress.update(tasks[name], completed=min(span, now - order.begin))

        runs = backtest(order.usecase, examples, monitored, order.begin, order.policies, learn, tell)
    found = report(order.usecase.name, order.learner, runs, examples[later], int(monitored[later].sum()))
    show(found, console)
    if order.summary is not None:
        order.summary.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    if order.plot is not None:
        plot(found, order.plot)
    return found


def show(found: Report, console: Console) -> None:
    """Print the tables."""
    first = found.policies[0]
    console.print(
        f"{found.usecase}, {found.learner}, from {found.begin[:10]} to {found.end[:10]}: {first.decisions:,} decisions, "
        f"{first.base_rate:.1%} positive;\n{found.monitored:,} monitored\n"
    )
    console.print(_policies(found.policies))
    console.print()
    console.print(_months(found.policies))


def _policies(policies: Sequence[Summary]) -> Table:
    """A column a policy: there are more figures than policies."""
    table = _table("", *(each.policy for each in policies))
    rows: list[tuple[str, list[str]]] = [
        ("AUC", ["-" if each.auc is None else f"{each.auc:.4f}" for each in policies]),
        ("log-loss", [f"{each.log_loss:.4f}" for each in policies]),
        ("calibration error", [f"{each.calibration_error:.4f}" for each in policies]),
        ("retrains", [f"{each.retrains:,}" for each in policies]),
        ("rows trained on", [f"{each.rows_trained_on:,}" for each in policies]),
        ("training seconds", [f"{each.training_seconds:.1f}" for each in policies]),
        ("corrections", [f"{each.corrections:,}" for each in policies]),
        ("alarms", [f"{each.alarms:,}" for each in policies]),
    ]
    rows += [
        (f"  {kind}", [f"{each.verdicts.get(kind, 0):,}" for each in policies])
        for kind in Kind
        if any(kind in each.verdicts for each in policies)
    ]
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _months(policies: Sequence[Summary]) -> Table:
    table = _table("log-loss in", "decisions", *(each.policy for each in policies))
    for month in zip(*(each.months for each in policies), strict=True):
        table.add_row(month[0].month, f"{month[0].decisions:,}", *(f"{each.log_loss:.4f}" for each in month))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None, pad_edge=False)
    for name in others:
        table.add_column(name, justify="right")
    return table


def plot(found: Report, path: Path) -> None:
    """Draw log-loss by month above, and below it what each policy went through."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4.6 + 0.45 * len(found.policies)), layout="constrained")
        heights = [3.2, 0.45 * len(found.policies) + 0.3]
        quality, events = figure.subplots(2, 1, sharex=True, height_ratios=heights)
        _quality(quality, found)
        _events(events, found)
        events.xaxis.set_major_locator(locator := AutoDateLocator(minticks=6))  # type: ignore[no-untyped-call]
        events.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        figure.savefig(path, dpi=130, format="png")


def _quality(axes: Axes, found: Report) -> None:
    for policy, colour in zip(found.policies, _colours(found), strict=True):
        months = [each for each in policy.months if each.decisions >= FEW]
        middles = np.array([f"{each.month}-15" for each in months], "datetime64[D]")
        label = f"{policy.policy}: {policy.log_loss:.4f}, {policy.retrains} retrains"
        axes.plot(middles, [each.log_loss for each in months], "o-", ms=3, lw=1.5, color=colour, label=label)
    axes.set_ylabel("log-loss")
    axes.set_title(f"{found.usecase}, {found.learner}: log-loss of each month's decisions; lower is better")
    axes.grid(axis="y")
    axes.legend(loc="best")


def _events(axes: Axes, found: Report) -> None:
    """A line a policy: alarms above it, coloured by kind, corrections and retrains on it."""
    kinds = set()
    for place, (policy, colour) in enumerate(zip(found.policies, _colours(found), strict=True)):
        axes.axhline(place, color=colour, lw=0.8, alpha=0.5)
        for kind in Kind:
            at = _times(each.at for each in policy.alarmed if each.kind == kind)
            if len(at):
                kinds.add(kind)
                axes.plot(at, [place - 0.22] * len(at), "|", color=_KINDS[kind], ms=9, mew=1.6)
        at = _times(each.at for each in policy.models[1:])
        axes.plot(at, [place] * len(at), "^", color=colour, ms=7, mec="white", mew=0.6)
        at = _times(each.at for each in policy.corrected if each.shares)
        axes.plot(at, [place] * len(at), "D", color="white", mec=colour, ms=5, mew=1.3)
    axes.plot([], [], "^", color="#333333", ms=7, label="retrain")
    if any(policy.corrections for policy in found.policies):
        axes.plot([], [], "D", color="white", mec="#333333", ms=5, label="correction")
    for kind in Kind:
        if kind in kinds:
            axes.plot([], [], "|", color=_KINDS[kind], ms=9, mew=1.6, label=f"alarm: {kind}")
    axes.set_yticks(range(len(found.policies)), [each.policy for each in found.policies])
    axes.set_ylim(len(found.policies) - 0.5, -0.6)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=8, fontsize=8, handletextpad=0.3)


def _colours(found: Report) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(len(found.policies))]


def _times(at: Iterable[int]) -> NDArray[np.datetime64]:
    return np.array(list(at), "datetime64[ms]")
