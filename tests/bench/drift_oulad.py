"""``make bench-drift-oulad``: a frozen model watched for drift over the Open University's presentations, on a timeline.

``python -m tests.bench.drift_oulad --data DIR`` trains the model on what was known at ``--from``, replays every event in
order of time with the monitor beside it, as ``eddyline replay --model --drift`` does, and writes
``bench/results/drift-oulad.png`` and ``.json``: the verdicts, and the frozen model's quality week by week.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from rich.console import Console

from deploy.settings import Events
from detectors import view
from detectors.monitor import Monitor
from detectors.offline import Offline
from detectors.samples import decode
from detectors.verdict import Kind, Verdict
from detectors.witnesses import witnesses
from model import reference, training, usecase
from model.evaluation import log_loss
from model.fitting import Settings
from model.scorer import LiteRTScorer
from stream.files import merged, survey
from stream.replay import Replay
from tests.bench import report
from tests.bench.quality import SEED, USECASE, converted, replayed
from tests.bench.report import ROOT

# When teaching begins: presentations are named by year and month, B for February and J for October.
PRESENTATIONS = {
    name: datetime.fromisoformat(day).replace(tzinfo=UTC)
    for name, day in (("2013J", "2013-10-01"), ("2014B", "2014-02-01"), ("2014J", "2014-10-01"))
}
WEEK = 7 * 86_400_000
LEAST = 100  # decisions of a week, for its log-loss to be shown
COLOURS = {
    Kind.COVARIATE: "#4269d0",
    Kind.LABEL: "#efb118",
    Kind.CONCEPT: "#ff725c",
    Kind.MIXED: "#a463f2",
    Kind.FAULT: "#222222",
    Kind.UNDETERMINED: "#9498a0",
}
Float = NDArray[np.float64]


def watched(
    case: usecase.UseCase, events: Path, bundle: Path, directory: Path, begin: int
) -> tuple[list[Verdict], NDArray[np.int64], Float, Float]:
    """Replay ``events`` with the model; its verdicts, and times (ms), scores and labels of the decisions that closed.

    Decisions before ``begin`` are replayed for the profiles' sake; the model did not exist, so they are not watched.
    """
    scorer = LiteRTScorer.load(bundle)
    asked, _ = witnesses(case.drift.witnesses, case.drift.events_between_false_alarms)
    monitor = Monitor(case, {scorer.version: reference.read(scorer.bundle)}, asked)
    replay = Replay(case, Events(), scorer)
    now = int(datetime.now(UTC).timestamp() * 1000)
    closed: list[tuple[int, float, float]] = []
    with Offline(monitor, directory / "verdicts.jsonl") as offline:
        for processed in replay.run(merged([survey(events)]), now):
            offline.watch([each for each in processed.joined.samples if decode(each).time >= begin])
            closed += [(each.time, each.score, each.label) for each in processed.joined.closed]
        offline.show()
    columns = np.array(closed)
    return offline.verdicts, columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2]


def weekly(
    begin: int, time: NDArray[np.int64], score: Float, label: Float
) -> list[tuple[int, int, float, float, float]]:
    """Of each week from ``begin``: its begin, decisions, log-loss, base rate and mean score."""
    found = []
    for week in np.unique((time[time >= begin] - begin) // WEEK).tolist():
        rows = (time >= begin + week * WEEK) & (time < begin + (week + 1) * WEEK)
        if rows.sum() >= LEAST:
            loss = log_loss(label[rows].astype(np.float32), score[rows].astype(np.float32))
            found.append(
                (
                    begin + week * WEEK,
                    int(rows.sum()),
                    loss,
                    float(label[rows].mean()),
                    float(score[rows].mean()),
                )
            )
    return found


def last_words(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The latest revision of each episode."""
    return list({verdict.id: verdict for verdict in verdicts}.values())


def plot(
    weeks: Sequence[tuple[int, int, float, float, float]], verdicts: Sequence[Verdict], path: Path
) -> None:
    """Quality above, verdicts below, presentations as lines."""
    mpl.use("Agg")
    figure, (top, middle, bottom) = plt.subplots(
        3,
        1,
        figsize=(12, 8),
        sharex=True,
        height_ratios=(4, 3, 1 + len({_panel(verdict) for verdict in verdicts})),
        layout="constrained",
    )
    at = [_date(week[0] + WEEK / 2) for week in weeks]
    top.plot(at, [week[2] for week in weeks], color="#222222", marker="o", markersize=3)
    top.set_ylabel("log-loss of the week")
    middle.plot(at, [week[3] for week in weeks], color="#ff725c", label="submitted")
    middle.plot(at, [week[4] for week in weeks], color="#4269d0", label="mean score")
    middle.set_ylabel("share")
    middle.legend(frameon=False)
    panels = sorted({_panel(verdict) for verdict in verdicts})
    for verdict in verdicts:
        row, alarmed = panels.index(_panel(verdict)), _date(verdict.alarmed)
        bottom.plot(
            [_date(verdict.changed), alarmed], [row, row], color=COLOURS[verdict.kind], linewidth=3, alpha=0.5
        )
        bottom.plot(alarmed, row, marker="o", color=COLOURS[verdict.kind], linestyle="none")
    for kind in sorted({verdict.kind for verdict in verdicts}):
        bottom.plot([], [], marker="o", linestyle="none", color=COLOURS[kind], label=kind.value)
    bottom.set_yticks(range(len(panels)), panels)
    bottom.set_ylim(-0.6, len(panels) - 0.4)
    bottom.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    for axis in (top, middle, bottom):
        for name, begin in PRESENTATIONS.items():
            axis.axvline(_date(begin.timestamp() * 1000), color="#9498a0", linestyle=":")
            if axis is top:
                axis.annotate(
                    name, (_date(begin.timestamp() * 1000), 1), xycoords=("data", "axes fraction"), va="top"
                )
        axis.spines[["top", "right"]].set_visible(False)
    figure.autofmt_xdate()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(verdict: Verdict) -> str:
    return f"{verdict.slice} {verdict.value}" if verdict.slice else "all decisions"


def _date(ms: float) -> Any:
    return np.datetime64(int(ms), "ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.drift_oulad", description="Watch a frozen model."
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT / "examples" / "oulad" / "data", help="OULAD tables"
    )
    parser.add_argument(
        "--from", dest="begin", default="2013-09-15", help="the model knows what was known then"
    )
    given = parser.parse_args(arguments)
    begin = int(datetime.fromisoformat(given.begin).replace(tzinfo=UTC).timestamp() * 1000)
    case = usecase.load(USECASE)
    report.RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-drift-") as temporary:
        directory = Path(temporary)
        events = converted(given.data, directory)
        order = training.Order(
            usecase=USECASE,
            examples=replayed(case, events, directory),
            out=directory / "bundle",
            version=given.begin,
            settings=Settings(seed=SEED),
            as_of=begin,
        )
        training.run(order, lambda _: None)
        verdicts, time, score, label = watched(case, events, directory / "bundle", directory, begin)
    later = last_words(verdicts)
    weeks = weekly(begin, time, score, label)
    console = Console(highlight=False)
    view.show(later, to=console)
    plot(weeks, later, report.RESULTS / "drift-oulad.png")
    content = {
        "from": given.begin,
        "weeks": weeks,
        "verdicts": msgspec.to_builtins(later),
        "machine": report.machine(),
    }
    path = report.RESULTS / "drift-oulad.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path.relative_to(ROOT)} and drift-oulad.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
