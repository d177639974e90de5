"""Ranks on a Ray cluster: an actor each, which holds the rank's devices and runs it as a child process of its own.

The only module that imports Ray; :mod:`retrain.ranks` does that inside a Ray job, never the trainer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util import get_node_ip_address, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from retrain import child
from retrain.ranks import KILLED, free_ports, tf_configs

WAIT_S = 5.0  # between signs of life while the cluster has no room
ANSWER_S = 60.0  # of an actor, before it counts as gone; Ray itself takes some 30 s to miss a node


class Rank:
    """The actor. TensorFlow is kept out of its process: what hangs there could not be polled."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def address(self) -> str:
        """Where the others will reach it, host:port."""
        host = get_node_ip_address()  # type: ignore[no-untyped-call]
        return f"{host}:{free_ports(host, 1)[0]}"

    def start(self, arguments: Sequence[str], config: str) -> int:
        """Start this machine's Python with ``arguments``; its pid."""
        self._process = subprocess.Popen(  # noqa: S603
            child.bound((sys.executable, *arguments)), env=os.environ | {"TF_CONFIG": config}
        )
        return self._process.pid

    def code(self) -> int | None:
        """Its exit code, None while it runs, or has not begun because another's actor died."""
        return self._process.poll() if self._process else None


class RayRanks:
    """A group of actors, all at once or none: two jobs that each held half of what they need would wait for ever.

    ``beat`` is called while the cluster has no room for them, for as long as that takes.
    """

    def __init__(self, arguments: Sequence[str], workers: int, gpus: int, beat: Callable[[], None]) -> None:
        if not ray.is_initialized():
            ray.init(address="auto")
        needs = {"CPU": 1.0} | ({"GPU": float(gpus)} if gpus else {})
        self._place = placement_group([needs] * workers, strategy="PACK")
        beat()
        while not self._place.wait(WAIT_S):
            beat()
        self._actors: list[Any] = [
            ray.remote(Rank)
            .options(
                num_cpus=1,
                num_gpus=gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=self._place, placement_group_bundle_index=rank
                ),
            )
            .remote()
            for rank in range(workers)
        ]
        try:
            addresses = ray.get([actor.address.remote() for actor in self._actors])
            ray.get(
                [
                    actor.start.remote(arguments, config)
                    for actor, config in zip(self._actors, tf_configs(addresses), strict=True)
                ]
            )
        except RayActorError:  # it shows in the codes
            pass

    def codes(self) -> list[int | None]:
        """Exit code by rank."""
        answers = [actor.code.remote() for actor in self._actors]
        return [self._code(answer) for answer in answers]

    def end(self) -> None:
        """Kill the actors, with whom their processes end, and give their room back."""
        for actor in self._actors:
            ray.kill(actor)
        remove_placement_group(self._place)

    def _code(self, answer: ray.ObjectRef[int | None]) -> int | None:
        try:
            return ray.get(answer, timeout=ANSWER_S)
        except (RayActorError, GetTimeoutError):
            return KILLED
