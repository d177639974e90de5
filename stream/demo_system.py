"""The demo's system: an embedded broker, and worker, sink, monitor and trainer as processes of their own on it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from deploy.broker import EmbeddedBroker
from deploy.settings import Engine, Kafka, Registry, Settings, Sink, Trainer
from deploy.topics import plans

START_S = 60.0
STOP_S = 15.0
PROCESSES = ("worker", "sink", "monitor", "trainer")
# Of each process, what its metrics show once it does its work.
READY = {
    "worker": "eddyline_release",
    "sink": "eddyline_log_buffered_rows",
    "monitor": "eddyline_monitor_watching",
    "trainer": "eddyline_trainer_active",
}


class DemoError(RuntimeError):
    """A step of the demo failed; the text says which, and where its log is."""


class Report(msgspec.Struct, frozen=True):
    """What a process's metrics say."""

    counts: dict[str, float]  # by sample name and labels, as exposed

    def total(self, name: str) -> float:
        """The sum over the labels of ``name``."""
        return sum(value for key, value in self.counts.items() if key.partition("{")[0] == name)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The samples of ``name``, summed by the value of ``label``."""
        found: dict[str, float] = {}
        for key, value in self.counts.items():
            if key.startswith(f"{name}{{"):
                of = key.partition(f'{label}="')[2].partition('"')[0]
                found[of] = found.get(of, 0.0) + value
        return found

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


class System:
    """The processes, with where their metrics are; :func:`started` makes one."""

    def __init__(self, broker: EmbeddedBroker, usecase: Path, directory: Path) -> None:
        self.settings = Settings(
            kafka=Kafka(bootstrap_servers=broker.bootstrap_servers),
            engine=Engine(id="demo"),
            # A year passes in a minute here, so what is known is written at once.
            sink=Sink(log=str(directory / "log"), flush_s=1.0, compact_files=8),
            registry=Registry(url=str(directory / "registry"), poll_s=0.5),
            trainer=Trainer(attempts=2),
        )
        self._broker, self._usecase, self._directory = broker, usecase, directory
        self._ports: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, model: Path, version: str) -> None:
        """Release the bundle ``model``, start all processes and wait until each does its work; raises :class:`DemoError`."""
        self._broker.create([plan.name for plan in plans(self.settings)])
        for command in (["add", str(model)], ["promote", version, "--reason", "the first model"]):
            step("releasing", ["eddyline", "models", *command], self._directory, self.environment)
        groups = {"worker": "engine"}
        for name in PROCESSES:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._ports[name] = probe.getsockname()[1]
            port = (f"--{groups.get(name, name)}-metrics-port", str(self._ports[name]))
            command = [sys.executable, "-m", "eddyline", name, str(self._usecase), *port]
            with self.log(name).open("ab") as file:
                # In a group of its own: Ctrl-C is for us, who then stop it in order.
                self._processes[name] = subprocess.Popen(
                    command, stdout=file, stderr=file, start_new_session=True, env=self.environment
                )
        deadline = time.monotonic() + START_S
        for name in PROCESSES:
            while READY[name] not in (self.report(name) or Report({})).counts or (
                name != "sink" and not (self.report(name) or Report({})).total(READY[name])
            ):
                self.check()
                if time.monotonic() > deadline:
                    raise DemoError(f"the {name} did not start; see {self.log(name)}")
                time.sleep(0.2)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that give a command this system's settings, and none of another's."""
        mine = {}
        for group in ("kafka", "engine", "sink", "registry", "trainer"):
            for name, value in msgspec.structs.asdict(getattr(self.settings, group)).items():
                if value != "":
                    mine[f"EDDYLINE_{group}_{name}".upper()] = str(value)
        ours = {name: value for name, value in os.environ.items() if not name.startswith("EDDYLINE_")}
        return ours | mine

    def log(self, name: str) -> Path:
        """Where the process ``name`` writes what it says."""
        return self._directory / f"{name}.log"

    def check(self) -> None:
        """Raise :class:`DemoError` if a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise DemoError(f"the {name} ended with exit code {process.returncode}; see {self.log(name)}")

    def report(self, name: str) -> Report | None:
        """The metrics of the process ``name``; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[name]}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        counts: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if "le" in sample.labels:
                    counts[f"{sample.name}{{{sample.labels['le']}}}"] = sample.value
                else:
                    labels = ",".join(f'{label}="{value}"' for label, value in sample.labels.items())
                    counts[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
        return Report(counts)

    def stop(self) -> None:
        """End the processes in an order in which each can finish: last those that others write to."""
        for name in ("trainer", "worker", "monitor", "sink"):
            process = self._processes.get(name)
            if process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def step(
    name: str,
    module: list[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a Python ``module`` with its arguments, its output in a log of the ``directory``; raises :class:`DemoError`."""
    log = directory / f"{name}.log"
    with log.open("ab") as file:
        command = [sys.executable, "-m", *module]
        code = subprocess.run(
            command, stdout=file, stderr=file, cwd=cwd, env=environment, check=False
        ).returncode
    if code:
        raise DemoError(f"{name} failed with exit code {code}; see {log}")


@contextlib.contextmanager
def started(usecase: Path, directory: Path, model: Path, version: str) -> Iterator[System]:
    """A running system for the use case file that scores with ``model``, with its files in ``directory``; it ends with the block."""
    system = System(EmbeddedBroker(), usecase, directory)
    try:
        system.start(model, version)
        yield system
    finally:
        system.stop()
