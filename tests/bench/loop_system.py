"""Drift through the whole system, on a real Kafka: worker, sink, monitor and trainer as processes of their own.

One scenario a kind of drift. Its decisions are streamed at a set rate; from ``ONSET`` on the law is another. Noted are the
verdict that tells the kind, what the trainer did about it, and when the scores served are good again: when a thousand
decisions in a row cost hardly more than the best possible scores do, whose law is known (:mod:`tests.bench.loop_seen`).
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from deploy import topics, transitions
from deploy.registry import Registry
from deploy.settings import Engine, Events, Kafka, Settings, Sink, Topics, Trainer
from deploy.settings import Registry as RegistrySettings
from model import usecase
from stream.producer import EventProducer
from stream.replay import Replay, examples_of
from tests.bench.loop_seen import Observer, Seen
from tests.bench.loop_world import START_MS, STEP_MS, USECASE, Kind, World
from tests.bench.report import ROOT
from tests.broker import Broker
from tests.workers import MonitorProcess, SinkProcess, TrainerProcess, Worker, lag

TRAINED_ON = 20_000  # decisions of the first model
ONSET = 12_000  # decisions, six blocks, before the law changes
RATE = 400  # decisions a second
MOST = 90_000  # decisions after which a scenario ends, recovered or not
AFTER = 6_000  # decisions streamed on after it recovered, or responded
TOPICS = (
    "events",
    "scores",
    "examples",
    "dead_letters",
    "samples",
    "drift",
    "models",
    "requests",
    "retrains",
)
LOOK_S = 5.0  # between looks at what came of it
AHEAD = 20_000  # events that the producer may be ahead of the worker


def first_model(directory: Path, text: str = USECASE) -> Path:
    """The bundle of a model of the law before the drift, trained on decisions that come before the stream's."""
    bundle, declared = directory / "first", usecase.parse(text)
    world = World(
        Kind.NOTHING, TRAINED_ON, TRAINED_ON, seed=100, start_ms=START_MS - TRAINED_ON * STEP_MS - 7_200_000
    )
    values = [value for _, _, value in world.events()]
    chunks = (values[begin : begin + 5000] for begin in range(0, len(values), 5000))
    results = Replay(declared, Events(), None).run(chunks, int(time.time() * 1000))
    examples = directory / "examples.parquet"
    pq.write_table(examples_of(declared, results), examples)
    (directory / "usecase.toml").write_text(text, encoding="utf-8")
    command = [
        "-m",
        "eddyline",
        "train",
        directory / "usecase.toml",
        examples,
        "--out",
        bundle,
        "--version",
        "1",
    ]
    with (directory / "training.log").open("wb") as log:
        subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT, stdout=log, stderr=log)
    return bundle


class Scenario:
    """One run of the system; ``label_free`` and other changes are made to the use case's ``text``."""

    def __init__(
        self, broker: Broker, directory: Path, bundle: Path, kind: Kind, text: str = USECASE
    ) -> None:
        self._kind, self._text, self._bundle = kind, text, bundle
        self._directory = directory / f"{kind}-{time.monotonic_ns()}"
        self._directory.mkdir()
        name = self._directory.name
        self.settings = Settings(
            kafka=Kafka(bootstrap_servers=broker.bootstrap, session_timeout_s=6.0),
            topics=msgspec.convert({each: f"{name}-{each}" for each in TOPICS} | {"partitions": 2}, Topics),
            engine=Engine(id=name, commit_interval_s=0.5),
            sink=Sink(log=str(self._directory / "log"), flush_s=2.0),
            registry=RegistrySettings(url=str(self._directory / "registry"), poll_s=1.0),
            trainer=Trainer(),
        )
        self._sent: list[float] = []  # when each decision was sent, s

    def run(
        self,
        count: int = MOST,
        onset: int = ONSET,
        rate: float = RATE,
        seed: int = 1,
        enough: Callable[[Seen], bool] = lambda _: False,
    ) -> Seen:
        """Stream ``count`` decisions at most; fewer once ``enough`` says so and ``AFTER`` more were streamed."""
        topics.create(self.settings)
        registry = Registry(self.settings.registry.url)
        placed = registry.add(self._bundle)
        registry.publish(
            lambda now: transitions.promote(
                now,
                placed,
                share=0.5,
                generation=None,
                reason="the first model",
                by="bench",
                created=datetime.now(UTC).isoformat(),
            )
        )
        world = World(self._kind, count, onset, seed=seed)
        observer = Observer(self.settings, self._kind, self._bundle, self._sent)
        with ExitStack() as stack:
            worker = stack.enter_context(Worker(self.settings, self._directory, usecase=self._text))
            stack.enter_context(SinkProcess(self.settings, self._directory, usecase=self._text))
            monitor = stack.enter_context(MonitorProcess(self.settings, self._directory, usecase=self._text))
            trainer = stack.enter_context(TrainerProcess(self.settings, self._directory, usecase=self._text))
            worker.wait_for(lambda: worker.metric("eddyline_release") >= 1, "the first model is not live")
            monitor.wait_for(lambda: monitor.metric("eddyline_monitor_watching") == 1, "nobody watches")
            trainer.wait_for(lambda: trainer.metric("eddyline_trainer_active") == 1, "no trainer is active")
            stop = threading.Event()
            stream = threading.Thread(target=self._stream, args=(world, rate, worker, stop), daemon=True)
            stream.start()
            seen = Seen(kind=self._kind)
            last: int | None = None  # decision after which it ends
            while stream.is_alive() and not stop.is_set():
                stream.join(LOOK_S)
                seen = observer.look(world, onset)
                if last is None and enough(seen):
                    last = len(self._sent) + AFTER
                if last is not None and len(self._sent) >= last:
                    stop.set()
            stream.join()
            worker.wait_for(
                lambda: lag(self.settings, self.settings.topics.events) == 0, "the worker is behind"
            )
            return observer.look(world, onset, ended=True)

    def _stream(self, world: World, rate: float, worker: Worker, stop: threading.Event) -> None:
        begin, sent = time.monotonic(), 0
        with EventProducer(self.settings) as producer:
            for before, key, value in world.events():
                if before > len(self._sent):
                    self._sent.append(time.time())
                    late = before / rate - (time.monotonic() - begin)
                    if late > 0.01:
                        time.sleep(late)
                    if before % 500 == 0:
                        while sent - worker.metric("eddyline_records_total") > AHEAD:
                            time.sleep(0.2)
                    if stop.is_set():
                        return
                producer.send_encoded(key, value)
                sent += 1
