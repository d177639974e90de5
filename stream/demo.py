"""The demo: one machine, nothing installed, the whole main job on real data in about two minutes.

``eddyline demo`` converts the sample, trains a first model on its first presentation in a process of its own, then
starts an embedded broker and a worker, streams the rest in event-time order, and shows what the worker reports.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.broker import EmbeddedBroker
from deploy.settings import Engine, Events, Kafka, Settings
from deploy.topics import plans
from model.usecase import UseCase
from stream.files import key_of, lines, merged, survey
from stream.producer import EventProducer
from stream.replay import Replay, examples_of

# The embedded broker keeps about 5 MiB a partition: what is not read by then is gone.
AHEAD = 40_000  # records sent and not yet read
START_S = 60.0
MARKER = ".eddyline-demo"  # in a folder that a demo wrote, and may empty
FIRST = "2013B"  # the presentation that the first model learns from


class DemoError(RuntimeError):
    """A step of the demo failed; the text says which, and where its log is."""


class Report(msgspec.Struct, frozen=True):
    """What the worker's metrics say."""

    counts: dict[str, float]  # by sample name and labels, as exposed

    def total(self, name: str) -> float:
        """The sum over the labels of ``name``."""
        return sum(value for key, value in self.counts.items() if key.partition("{")[0] == name)

    def buckets(self, name: str) -> list[tuple[float, float]]:
        """(upper bound, observations up to it) of the histogram ``name``."""
        prefix = f"{name}_bucket{{"
        return sorted(
            (float(key[len(prefix) : -1]), n) for key, n in self.counts.items() if key.startswith(prefix)
        )

    def quantile(self, name: str, q: float) -> float:
        """The upper bound of the bucket that holds quantile ``q`` of the histogram ``name``; NaN for none."""
        buckets = self.buckets(name)
        if not buckets or not buckets[-1][1]:
            return float("nan")
        return next(bound for bound, n in buckets if n >= q * buckets[-1][1])


def run(
    example: Path, usecase: UseCase, declared_at: Path, directory: Path, *, rate: float, limit: int | None
) -> None:
    """Run the demo of the ``example`` folder, keeping its files in ``directory``.

    At most ``limit`` events are streamed, at most ``rate`` a second.
    """
    console = Console()
    begin = time.monotonic()
    _make_empty(directory)

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - begin:5.1f} s[/dim]  {text}")

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
    with _streaming(declared_at, directory) as (settings, port, worker):
        say("an embedded broker and a worker are up; streaming the rest in order of event time")
        _stream(console, settings, port, worker, itertools.islice(lines(rest), limit), rate)
    say(f"done; scores, model and logs of this run are in {directory}/")


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
    module = f"{example.resolve().parent.name}.{example.resolve().name}.convert"
    _step(
        "converting",
        [
            sys.executable,
            "-m",
            module,
            str((example / "data").resolve()),
            str(out.resolve()),
            "--presentations",
            presentations,
        ],
        directory,
        cwd=example.resolve().parent.parent,
    )


def _train(declared_at: Path, directory: Path) -> dict[str, float]:
    bundle = directory / "model"
    _step(
        "training",
        [
            *(sys.executable, "-m", "eddyline", "train", str(declared_at)),
            *(str(directory / "examples.parquet"), "--out", str(bundle), "--version", "1"),
            *("--report", str(directory / "report.html")),
        ],
        directory,
    )
    metrics: dict[str, float] = json.loads((bundle / "manifest.json").read_text())["metrics"]
    return metrics


def _step(name: str, command: list[str], directory: Path, cwd: Path | None = None) -> None:
    log = directory / f"{name}.log"
    with log.open("ab") as file:
        code = subprocess.run(command, stdout=file, stderr=file, cwd=cwd, check=False).returncode
    if code:
        raise DemoError(f"{name} failed with exit code {code}; see {log}")


@contextlib.contextmanager
def _streaming(declared_at: Path, directory: Path) -> Iterator[tuple[Settings, int, subprocess.Popen[bytes]]]:
    """An embedded broker and a worker on it; both end with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broker = EmbeddedBroker()
    settings = Settings(
        kafka=Kafka(bootstrap_servers=broker.bootstrap_servers), engine=Engine(id="demo", metrics_port=port)
    )
    broker.create([plan.name for plan in plans(settings)])
    log = directory / "worker.log"
    command = [
        sys.executable,
        "-m",
        "eddyline",
        "worker",
        str(declared_at),
        "--model",
        str(directory / "model"),
    ]
    command += ["--kafka-bootstrap-servers", broker.bootstrap_servers]
    command += ["--engine-id", "demo", "--engine-metrics-port", str(port)]
    with log.open("ab") as file:
        # In a group of its own: Ctrl-C is for us, who then stop it in order.
        worker = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while _report(port) is None:
            if worker.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the worker did not start; see {log}")
            time.sleep(0.2)
        yield settings, port, worker
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            worker.kill()


def _stream(
    console: Console,
    settings: Settings,
    port: int,
    worker: subprocess.Popen[bytes],
    values: Iterator[bytes],
    rate: float,
) -> None:
    sent = 0
    begin = time.monotonic()
    report = _report(port) or Report({})
    with Live(console=console, refresh_per_second=4) as live, EventProducer(settings) as producer:
        shown = (begin, 0.0, 0.0)  # when, records read then, records a second
        exhausted = False
        while not exhausted or report.total("eddyline_records_total") < sent:
            room = AHEAD - (sent - int(report.total("eddyline_records_total")))
            room = min(room, int((time.monotonic() - begin) * rate) - sent)
            batch = list(itertools.islice(values, max(0, min(room, 5000))))
            for value in batch:
                producer.send_encoded(key_of(value), value)
            sent += len(batch)
            exhausted = exhausted or (not batch and room > 0)
            if not batch:
                time.sleep(0.05)
            report = _report(port) or report
            if worker.poll() is not None:
                raise DemoError("the worker ended; see worker.log in the demo's directory")
            now = time.monotonic()
            if now - shown[0] > 0.5:
                read = report.total("eddyline_records_total")
                shown = (now, read, (read - shown[1]) / (now - shown[0]))
            live.update(_view(report, sent, shown[2], now - begin))
        elapsed = time.monotonic() - begin
        time.sleep(1.2)  # the worker refreshes its gauges once a second
        report = _report(port) or report
        live.update(_view(report, sent, sent / elapsed, elapsed))


def _view(report: Report, sent: int, speed: float, elapsed: float) -> Table:
    table = Table(title=f"Eddyline: {elapsed:.0f} s of streaming", show_header=False, min_width=76)
    table.add_column(style="bold")
    table.add_column()
    table.add_row(
        "events", f"{report.total('eddyline_records_total'):,.0f} of {sent:,} sent   {speed:,.0f}/s"
    )
    table.add_row(
        "profiles",
        f"{report.total('eddyline_profiles'):,.0f} people, {report.total('eddyline_profile_bytes') / 2**20:.1f} MiB",
    )
    models = {
        key.partition('model="')[2].rstrip('"}'): value
        for key, value in report.counts.items()
        if key.startswith("eddyline_decisions_total{")
    }
    by = ", ".join(f"{value:,.0f} by model {name}" for name, value in models.items())
    table.add_row("decisions", by or "none yet")
    table.add_row("scores", _sparkline(report))
    table.add_row(
        "event to score",
        f"half within {report.quantile('eddyline_event_to_score_seconds', 0.5) * 1000:.0f} ms, "
        f"99 % within {report.quantile('eddyline_event_to_score_seconds', 0.99) * 1000:.0f} ms",
    )
    matured = report.total("eddyline_examples_total")
    auc = next(
        (
            value
            for key, value in report.counts.items()
            if key.startswith('eddyline_quality_auc{model="1",slice=""')
        ),
        float("nan"),
    )
    known = f"{matured:,.0f} decisions with a label" + (
        "" if math.isnan(auc) else f"; AUC of the latest {auc:.3f}"
    )
    table.add_row("outcomes", known)
    bad = {
        key.partition('reason="')[2].rstrip('"}'): value
        for key, value in report.counts.items()
        if key.startswith("eddyline_dead_letters_total{")
    }
    table.add_row("dead letters", ", ".join(f"{value:.0f} {name}" for name, value in bad.items()) or "none")
    return table


def _sparkline(report: Report) -> Text:
    """The score distribution from 0 to 1 as a bar a twentieth."""
    counts = [n for _, n in report.buckets("eddyline_score")][:20]
    each = [after - before for before, after in itertools.pairwise([0.0, *counts])]
    top = max(each, default=0)
    bars = "".join("▁▂▃▄▅▆▇█"[round(7 * n / top)] for n in each) if top else "none yet"
    return Text(f"0 {bars} 1" if top else bars)


def _report(port: int) -> Report | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" in sample.labels:
                counts[f"{sample.name}{{{sample.labels['le']}}}"] = sample.value
            else:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                counts[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return Report(counts)
