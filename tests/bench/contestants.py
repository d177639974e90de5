"""The contestants: how each is started on a job, and what the kernel says of its process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from deploy import topics
from tests.bench import environments
from tests.bench.job import Job
from tests.bench.report import ROOT
from tests.bench.workload import USECASE, settings

STOP_S = 30.0
LOG_TAIL = 20


class BenchError(RuntimeError):
    """A contestant failed; the text ends with the tail of its log."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One of those compared. ``share`` is the part of the events that it is measured on; slower ones get fewer."""

    name: str
    title: str
    share: float
    command: Callable[[Job, int], list[str]]  # of a job, and a free TCP port
    prepare: Callable[[Job], None] = lambda _: None
    more: Mapping[str, str] = field(default_factory=dict)  # environment variables beside the job's


def _eddyline(job: Job, port: int) -> list[str]:
    command = [sys.executable, "-m", "eddyline", "worker", str(USECASE), "--model", job.model]
    command += [
        "--kafka-bootstrap-servers",
        job.broker,
        "--topics-events",
        job.events,
        "--topics-scores",
        job.scores,
    ]
    command += [
        "--topics-examples",
        f"{job.name}-examples",
        "--topics-dead-letters",
        f"{job.name}-dead-letters",
    ]
    return [*command, "--engine-id", job.name, "--engine-metrics-port", str(port)]


def _eddyline_topics(job: Job) -> None:
    topics.create(settings(job.broker, job.name, job.events))


def _faust(job: Job, port: int) -> list[str]:
    del job
    faust = environments.python("faust").with_name("faust")
    return [str(faust), "-A", "tests.bench.plain_faust", "worker", "-l", "warn", "--web-port", str(port)]


def _quix(job: Job, port: int) -> list[str]:
    del job, port
    return [str(environments.python("quix")), "-m", "tests.bench.quix_app"]


def _bytewax(job: Job, port: int) -> list[str]:
    del port
    python = str(environments.python("bytewax"))
    return [python, "-m", "bytewax.run", "tests.bench.bytewax_app", "-r", job.state, "-s", "30", "-b", "0"]


def _bytewax_recovery(job: Job) -> None:
    python = environments.python("bytewax")
    subprocess.run([python, "-m", "bytewax.recovery", job.state, "1"], check=True, cwd=ROOT)


ENGINE = Contestant(name="eddyline", title="Eddyline", share=1, command=_eddyline, prepare=_eddyline_topics)
PEERS = (
    Contestant(
        name="faust", title="plain Faust, one by one", share=0.1, command=_faust, more={"BENCH_TAKE": "1"}
    ),
    Contestant(
        name="faust-take",
        title="plain Faust, take(100)",
        share=0.1,
        command=_faust,
        more={"BENCH_TAKE": "100"},
    ),
    Contestant(name="quix", title="Quix Streams", share=0.5, command=_quix),
    Contestant(name="bytewax", title="Bytewax", share=1, command=_bytewax, prepare=_bytewax_recovery),
)


class Running:
    """A contestant's process at work on a job; ends with the ``with`` block."""

    def __init__(self, contestant: Contestant, job: Job) -> None:
        self.name = contestant.name
        self._log = Path(job.state).with_suffix(".log")
        contestant.prepare(job)
        self._port = _free_port()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                contestant.command(job, self._port),
                cwd=ROOT,
                env={**job.environment(), **contestant.more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the bench, which then stops it
            )

    def check(self) -> None:
        """Raise :class:`BenchError` if the process has ended."""
        code = self._process.poll()
        if code is not None:
            tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:]
            raise BenchError("\n".join([f"{self.name} ended with exit status {code}; its log ends:", *tail]))

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that the process, all its threads, has used so far."""
        self.check()
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        after_name = stat.rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime

    def memory(self, which: str) -> int:
        """Bytes of memory in use (``VmRSS``) or at most in use so far (``VmHWM``)."""
        self.check()
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        found = re.search(rf"^{which}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None, which
        return int(found[1]) * 1024

    def metrics(self) -> dict[str, float]:
        """The engine's metrics, by name and, where there is one, the label's value: ``name{value}``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return {
            sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def stop(self) -> None:
        """End it in order, or at once if that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
