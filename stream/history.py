"""A history: the ``eddyline replay`` command, from event files to scores, an example log, samples and a summary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.live import Scorer
from deploy.settings import Events
from model.example_log import ExampleLog
from model.usecase import UseCase
from stream.engine import Processed
from stream.files import merged, survey
from stream.replay import Replay, Summary, Tally, examples_of

FLUSH_EXAMPLES = 500_000  # examples held before they are written, about 1.5 kB each


class Outputs(msgspec.Struct, frozen=True):
    """Where a history writes, and who is shown its samples, those of a chunk at a time; None: nowhere."""

    examples: ExampleLog | None = None
    scores: Path | None = None
    summary: Path | None = None
    watch: Callable[[Sequence[bytes]], None] | None = None


def run(
    usecase: UseCase, limits: Events, scorer: Scorer | None, paths: Sequence[Path], outputs: Outputs
) -> Summary:
    """Replay the event files ``paths``, write ``outputs``, print and return the summary.

    Raises :class:`stream.files.EventFileError`, before anything is written, and
    :class:`stream.engine.TooManyBadRecords`, :class:`model.example_log.ExampleLogError` and :class:`OSError`.
    """
    console = Console()
    replay = Replay(usecase, limits, scorer)
    tally = Tally(usecase, replay)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    began = time.monotonic()
    with Progress(*columns, console=console) as progress:
        surveys = [survey(path) for path in progress.track(paths, description="looking at the files")]
        task = progress.add_task("replaying", total=sum(each.events for each in surveys))
        results = replay.run(merged(surveys), int(time.time() * 1000))
        with _opened(outputs.scores) as scores:
            _write(usecase, _told(results, tally, progress, task), outputs, scores)
    summary = tally.summary()
    _show(console, summary, time.monotonic() - began)
    if outputs.summary is not None:
        outputs.summary.write_bytes(msgspec.json.format(msgspec.json.encode(summary)) + b"\n")
    return summary


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO | None]:
    if path is None:
        yield None
    else:
        with path.open("wb") as file:
            yield file


def _told(
    results: Iterator[Processed], tally: Tally, progress: Progress, task: TaskID
) -> Iterator[Processed]:
    for processed in results:
        tally.add(processed)
        progress.advance(task, processed.records)
        yield processed


def _write(usecase: UseCase, results: Iterator[Processed], outputs: Outputs, scores: BinaryIO | None) -> None:
    log, watch = outputs.examples, outputs.watch
    held: list[Processed] = []
    count = flushes = 0
    for processed in results:
        if scores is not None:
            scores.writelines(value + b"\n" for value in processed.values)
        if watch is not None and processed.joined.samples:
            watch(processed.joined.samples)
        if log is not None and processed.joined.examples:
            held.append(processed)
            count += len(processed.joined.examples)
            if count >= FLUSH_EXAMPLES:
                log.append(examples_of(usecase, held), f"replay-{flushes}")
                held, count, flushes = [], 0, flushes + 1
    if log is not None and held:
        log.append(examples_of(usecase, held), f"replay-{flushes}")


def _show(console: Console, summary: Summary, seconds: float) -> None:
    bad = ", ".join(f"{count:,} {reason}" for reason, count in summary.bad.items()) or "none bad"
    by = ", ".join(f"{count:,} by model {model}" for model, count in summary.decisions.items()) or "none"
    outcomes = ", ".join(f"{count:,} {result.value}" for result, count in summary.outcomes.items()) or "none"
    untracked = ", ".join(f"{count:,} {reason.value}" for reason, count in summary.untracked.items())
    console.print(
        f"{summary.events:,} events in {seconds:.1f} s ({bad}); {summary.users:,} profiles at the end\n"
        f"decisions: {by}\n"
        f"examples: {summary.examples:,}, {summary.positives:,} of them positive; {summary.open:,} decisions still "
        f"open{f'; untracked: {untracked}' if untracked else ''}\n"
        f"outcomes: {outcomes}"
    )
    if summary.samples:
        console.print(f"samples: {summary.samples:,}, {summary.matured_samples:,} of them matured")
    table = Table("month", "model", "decisions", "base rate", "AUC", "log-loss", "calibration error")
    for cohort in summary.quality:
        if not cohort.slice:
            table.add_row(
                cohort.month,
                cohort.model,
                f"{cohort.decisions:,}",
                f"{cohort.base_rate:.3f}",
                f"{cohort.auc:.3f}",
                f"{cohort.log_loss:.3f}",
                f"{cohort.calibration_error:.3f}",
            )
    if table.row_count:
        console.print(table)
