"""The demo: one machine, nothing installed, the whole loop on real data in a few minutes.

``eddyline demo`` converts the sample, trains a first model on its first presentation, and starts an embedded broker with
worker, sink, monitor and trainer. It streams the rest in event-time order, shows what the processes report, and ends with
the chronicle of what happened, in which the frozen first model stands beside what was served.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from deploy.settings import Events
from model.features import feature_spec
from model.split import iso
from model.usecase import UseCase
from stream import chronicle, demo_view
from stream.chronicle import Chronicle, ChronicleError, Quality
from stream.demo_system import PROCESSES, DemoError, Report, System, started, step
from stream.files import key_of, lines, merged, survey
from stream.producer import EventProducer
from stream.replay import Replay, examples_of

# The embedded broker keeps about 5 MiB a partition: what is not read by then is gone.
AHEAD = 40_000  # events sent and not yet read
SAMPLES_AHEAD = 1000  # samples written and not yet watched
QUIET_S = 6.0  # without anything new from monitor and trainer, after the last event, and the demo ends
LATEST = 4000  # decisions that the quality shown is of
LOOK_S = 4.0  # between looks at the example log
MARKER = ".eddyline-demo"  # in a folder that a demo wrote, and may empty
FIRST, VERSION = "2013B", "first"  # the presentation that the first model learns from, and its version


def run(
    example: Path, usecase: UseCase, declared_at: Path, directory: Path, *, rate: float, limit: int | None
) -> None:
    """Run the demo of the ``example`` folder, keeping its files in ``directory``.

    At most ``limit`` events are streamed, at most ``rate`` a second. Raises :class:`DemoError`.
    """
    console = Console()
    begin = time.monotonic()
    _make_empty(directory)

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - begin:5.1f} s[/dim]  {escape(text)}")

    first, rest = directory / "first.jsonl", directory / "rest.jsonl"
    later = ",".join(sorted(_presentations(example) - {FIRST}))
    _convert(example, first, FIRST, directory)
    _convert(example, rest, later, directory)
    say(f"converted the tables to events: {FIRST} to learn from, {later} to stream")
    replay = Replay(usecase, Events(), None)
    examples = examples_of(usecase, replay.run(merged([survey(first)]), int(time.time() * 1000)))
    pq.write_table(examples, directory / "examples.parquet")
    positive = examples["label"].to_numpy().mean()
    say(f"replayed {FIRST}: {len(examples):,} decisions with a label, {positive:.1%} of them positive")
    metrics = _train(declared_at, directory)
    say(f"trained the first model: AUC {metrics['auc']:.3f} on the later quarter of {FIRST}")
    model = directory / "model"
    with started(declared_at.resolve(), directory.resolve(), model.resolve(), VERSION) as system:
        say(
            "released it; worker, sink, monitor and trainer are up on an embedded broker; now the rest, in order of event time"
        )
        _Streaming(console, system, usecase, model).run(itertools.islice(lines(rest), limit), rate)
        told = chronicle.gather(usecase, system.settings)
    page = directory / "chronicle.html"
    page.write_text(chronicle.html(told, datetime.now(UTC).isoformat(timespec="seconds")), encoding="utf-8")
    _tell(told, say)
    say(f"the chronicle of it all is {page}; models, examples and logs are beside it")


def _tell(told: Chronicle, say: Callable[[str], None]) -> None:
    """What came of it, in lines."""
    for verdict in told.verdicts:
        say(
            f"{iso(verdict['alarmed'])[:10]}  {verdict['kind']} drift of model {verdict['model']}: {verdict['response']['action']}"
        )
    for each in told.retrains:
        say(f"retrain asked by {each['request']['trigger']}: {each['state']}; {'; '.join(each['reasons'])}")
    since = told.since
    for release in told.releases:
        if release.number in since and release.live is not None:
            say(f"{iso(since[release.number])[:10]}  model {release.live.version} live: {release.change}")
    found = chronicle.quality(told.decisions)
    say(
        f"log-loss of {found.decisions:,} decisions: {found.served:.4f} served, {found.frozen:.4f} had the first model stayed"
    )


class _Streaming:
    """Streams events no faster than the processes keep up, and shows what they report."""

    def __init__(self, console: Console, system: System, usecase: UseCase, model: Path) -> None:
        self._console, self._system, self._usecase, self._model = console, system, usecase, model
        self._sent = 0
        self._reports = {name: Report({}) for name in PROCESSES}
        self._quality: Quality | None = None
        self._date = ""
        self._looked = self._moved = self._begin = time.monotonic()
        self._speed = (self._begin, 0.0, 0.0)  # when, records read then, records a second

    def run(self, values: Iterator[bytes], rate: float) -> None:
        """Send ``values``, at most ``rate`` a second; returns once monitor and trainer have nothing more to do."""
        exhausted, allowed, at = False, 0.0, time.monotonic()
        before: tuple[float, ...] = ()
        with (
            Live(console=self._console, refresh_per_second=4) as live,
            EventProducer(self._system.settings) as producer,
        ):
            while True:
                self._look()
                now, state = time.monotonic(), self._progress()
                if state != before:
                    before, self._moved = state, now
                held = self._held()
                if held:
                    at = now
                allowed, at = min(allowed + (now - at) * rate, 2 * rate), now
                batch = [] if held else list(itertools.islice(values, int(min(allowed, self._room(), 5000))))
                for value in batch:
                    producer.send_encoded(key_of(value), value)
                self._sent += len(batch)
                allowed -= len(batch)
                exhausted = exhausted or (not batch and not held and allowed >= 1 and self._room() >= 1)
                live.update(self._view())
                if exhausted and not held and now - self._moved > QUIET_S:
                    return
                if not batch:
                    time.sleep(0.1)

    def _room(self) -> float:
        """Events that may be sent before the broker would forget some, or samples of theirs, unread."""
        worker, monitor = self._reports["worker"], self._reports["monitor"]
        samples = worker.total("eddyline_samples_total") - monitor.total("eddyline_monitor_samples_total")
        return 0 if samples > SAMPLES_AHEAD else AHEAD - (self._sent - worker.total("eddyline_records_total"))

    def _held(self) -> bool:
        """Whether the stream waits for a job: months would pass while it trains for half a minute."""
        return self._reports["trainer"].by("eddyline_retrain_state", "state").get("running", 0) > 0

    def _progress(self) -> tuple[float, ...]:
        names = (
            ("worker", "eddyline_records_total"),
            ("monitor", "eddyline_monitor_samples_total"),
            ("monitor", "eddyline_drift_verdicts_total"),
            ("trainer", "eddyline_releases_total"),
            ("trainer", "eddyline_retrain_progress"),
        )
        return tuple(self._reports[process].total(name) for process, name in names)

    def _look(self) -> None:
        self._system.check()
        for name in self._reports:
            self._reports[name] = self._system.report(name) or self._reports[name]
        now = time.monotonic()
        if now - self._speed[0] > 0.5:
            read = self._reports["worker"].total("eddyline_records_total")
            self._speed = now, read, (read - self._speed[1]) / (now - self._speed[0])
        if now - self._looked > LOOK_S:
            self._looked = now
            with contextlib.suppress(ChronicleError):  # nothing has matured yet
                spec = feature_spec(self._usecase)
                known = chronicle.read_decisions(self._system.settings.sink.log, spec, self._model)
                self._quality = chronicle.quality(known, slice(-LATEST, None))
                self._date = iso(int(np.max(known.time)))[:10]

    def _view(self) -> Table:
        elapsed = time.monotonic() - self._begin
        return demo_view.table(self._reports, self._sent, self._speed[2], elapsed, self._quality, self._date)


def _make_empty(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise DemoError(f"{directory} holds files that no demo wrote; name another --directory")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()


def _presentations(example: Path) -> set[str]:
    return {file.stem.partition("_")[2] for file in (example / "data" / "studentVle").glob("*.parquet")}


def _convert(example: Path, out: Path, presentations: str, directory: Path) -> None:
    home = example.resolve()
    module = f"{home.parent.name}.{home.name}.convert"
    options = [str(home / "data"), str(out.resolve()), "--presentations", presentations]
    step("converting", [module, *options], directory, cwd=home.parent.parent)


def _train(declared_at: Path, directory: Path) -> dict[str, float]:
    bundle = directory / "model"
    files = [str(declared_at), str(directory / "examples.parquet"), "--out", str(bundle)]
    report = ["--report", str(directory / "report.html")]
    step("training", ["eddyline", "train", *files, "--version", VERSION, *report], directory)
    metrics: dict[str, float] = json.loads((bundle / "manifest.json").read_text())["metrics"]
    return metrics
