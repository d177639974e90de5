"""Ranks: the processes that share one job's training. ``python -m retrain.ranks REGISTRY JOB`` starts and watches them.

Each runs the pipeline with a ``TF_CONFIG`` that names them all; rank 0 alone leaves a result. They are one group: when
one dies the others wait for it for ever, deaf to SIGTERM, so all are killed, and started anew from the last checkpoint if
it was killed rather than failed. They run here, or with ``--ray`` on a Ray cluster (:mod:`retrain.ray_ranks`).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

import msgspec

from deploy.registry import Registry, RegistryError
from retrain import child
from retrain.spec import Heartbeat, JobSpec, Phase, folder

POLL_S = 0.5
SETTLE_S = 3.0  # in which the death of a rank, that its peers told of by failing, shows itself
TERMINATED = 128 + signal.SIGTERM  # of the pipeline, as when its machine is taken away
KILLED = -9  # the code of a rank that is gone with its machine, as if by SIGKILL

log = logging.getLogger(__name__)


class Ranks(Protocol):
    """A group at work: child processes here, or actors of Ray."""

    def codes(self) -> list[int | None]:
        """Exit code by rank: None while it runs, below 0 if it was killed."""

    def end(self) -> None:
        """Kill all that still run, and let go what they hold."""


class Outcome(Enum):
    """What became of a group."""

    WORKING = auto()
    DONE = auto()
    FAILED = auto()  # a rank ended with an error of its own, which it would again
    KILLED = auto()  # a rank was killed, or its machine


def outcome(codes: Sequence[int | None]) -> Outcome:
    """What the exit ``codes`` by rank say of the group: rank 0 decides when it is done."""
    if codes[0] == 0:
        return Outcome.DONE
    if any(code is not None and (code < 0 or code == TERMINATED) for code in codes):
        return Outcome.KILLED
    return Outcome.FAILED if any(codes) else Outcome.WORKING


def keep(start: Callable[[], Ranks], attempts: int) -> int:
    """Start a group, and again when it is killed, up to ``attempts`` times in all; the exit code of the job."""
    for attempt in range(1, attempts + 1):
        ranks = start()
        try:
            end = _watched(ranks)
            log.info(
                "attempt %d of %d: %s, exit codes by rank %s", attempt, attempts, end.name, ranks.codes()
            )
        finally:
            ranks.end()
        if end is not Outcome.KILLED:
            return 0 if end is Outcome.DONE else 1
    return 1


def _watched(ranks: Ranks) -> Outcome:
    while (now := outcome(ranks.codes())) is Outcome.WORKING:
        time.sleep(POLL_S)
    if now is Outcome.FAILED:
        time.sleep(SETTLE_S)
        now = outcome(ranks.codes())
    return now


def tf_configs(addresses: Sequence[str]) -> list[str]:
    """``TF_CONFIG`` of each rank of the group at these host:port ``addresses``."""
    return [
        msgspec.json.encode(
            {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        ).decode()
        for rank in range(len(addresses))
    ]


def free_ports(host: str, count: int) -> list[int]:
    """Ports that nobody listens on at ``host``; another may take one till it is used, and then the group fails."""
    with contextlib.ExitStack() as held:  # all at once, so that no two are the same
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class LocalRanks:
    """A group of child processes on loopback, each started with ``command``."""

    def __init__(self, command: Sequence[str], workers: int) -> None:
        addresses = [f"127.0.0.1:{port}" for port in free_ports("127.0.0.1", workers)]
        self._processes = [
            subprocess.Popen(child.bound(command), env=os.environ | {"TF_CONFIG": config})  # noqa: S603
            for config in tf_configs(addresses)
        ]

    def codes(self) -> list[int | None]:
        """Exit code by rank."""
        return [process.poll() for process in self._processes]

    def end(self) -> None:
        """SIGKILL: what they keep they write whole, and of SIGTERM a waiting rank hears nothing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


def main(arguments: Sequence[str]) -> int:
    """Do the job that is named; its exit code, 0 when rank 0 left a result."""
    parser = argparse.ArgumentParser(prog="python -m retrain.ranks", description=__doc__)
    parser.add_argument("registry", help="folder or URL")
    parser.add_argument("job", help="id; its spec says how many ranks")
    parser.add_argument("--ray", action="store_true", help="on the Ray cluster that this runs on")
    parser.add_argument("--attempts", type=int, default=1, help="times that killed ranks are started")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    registry = Registry(given.registry)
    try:
        spec = read_spec(registry, given.job)
    except (RegistryError, msgspec.MsgspecError) as error:
        sys.exit(f"{given.registry}, {folder(given.job)}/spec.json: {error}")
    pipeline = ("-m", "retrain.pipeline", given.registry, given.job)
    if not given.ray:
        return keep(lambda: LocalRanks((sys.executable, *pipeline), spec.workers), given.attempts)
    from retrain.ray_ranks import RayRanks  # noqa: PLC0415  # an extra

    def beat() -> None:
        sign = Heartbeat(at=time.time(), phase=Phase.STARTING)
        try:
            registry.write(f"{spec.folder}/heartbeat.json", msgspec.json.encode(sign))
        except RegistryError as error:  # whoever waits for a sign decides what that means
            log.warning("no heartbeat: %s", error)

    return keep(lambda: RayRanks(pipeline, spec.workers, spec.gpus, beat), given.attempts)


def read_spec(registry: Registry, job: str) -> JobSpec:
    """The spec of the job with that id; raises :class:`RegistryError` if there is none."""
    data = registry.read(f"{folder(job)}/spec.json")
    if data is None:
        sys.exit(
            f"{folder(job)}/spec.json: this registry has no such job; does the trainer use the same one?"
        )
    return msgspec.json.decode(data, type=JobSpec)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
