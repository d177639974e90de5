"""Jobs on a Ray cluster, through its Jobs API by HTTP: the trainer's process does not load Ray.

The cluster's nodes run the same version of this package, from their image (``docs/cluster.md``), and reach the registry
and the example log by the URLs in the spec.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import aiohttp
import msgspec

from deploy.settings import Trainer
from retrain.job import LOG_BYTES, QUIET, JobError, JobState, JobUnavailableError, command
from retrain.spec import JobSpec

TIMEOUT_S = 30.0  # of a request; submitting takes 1-3 s


class _Answer(msgspec.Struct):
    """Of a job, or of its log."""

    status: str = ""
    logs: str = ""


class RayBackend:
    """Runs jobs on the cluster whose dashboard is at ``trainer.ray_address``; each call is a request of its own.

    A job's id is its submission id, which Ray takes once: that is what makes :meth:`submit` idempotent.
    """

    def __init__(self, trainer: Trainer, command: Callable[[JobSpec], tuple[str, ...]] | None = None) -> None:
        self._address = trainer.ray_address.rstrip("/")
        self._token_file = trainer.ray_token_file
        self._command = command or (lambda spec: on_cluster(spec, trainer.attempts))

    def submit(self, spec: JobSpec) -> None:
        """Hand it to the cluster, where it waits for its resources."""
        self._check_reach(spec)
        alone = spec.workers == 1
        status, text = self._ask(
            "POST",
            "",
            {
                "entrypoint": shlex.join(self._command(spec)),
                "submission_id": spec.id,
                # One CPU lets it run on any node: without, Ray puts it on the head. Ranks ask for their own.
                "entrypoint_num_cpus": 1 if alone else 0,
                "entrypoint_num_gpus": spec.gpus if alone else 0,
                "runtime_env": {"env_vars": QUIET},
                "metadata": {
                    "request": spec.request.id,
                    "version": spec.version,
                    "reason": spec.request.reason,
                },
            },
        )
        if status != 200 and "already exists" not in text:
            self._refused(status, text)

    def state(self, job: str) -> JobState:
        """LOST if the cluster forgot it: a head without a store of its own forgets all jobs when it restarts."""
        status, text = self._ask("GET", quote(job))
        if status == 404:
            return JobState.LOST
        try:
            return JobState(self._decoded(status, text).status.lower())
        except ValueError as error:
            raise JobError(
                f"{self._address}: a job's status is one of Ray's five, got {text[:200]}"
            ) from error

    def stop(self, job: str) -> None:
        """Ask for its end: SIGTERM, and SIGKILL 3 s later. Returns before that."""
        status, text = self._ask("POST", f"{quote(job)}/stop")
        if status not in {200, 404}:
            self._refused(status, text)

    def log(self, job: str) -> str:
        """The end of what its entrypoint, and through it every rank, printed."""
        status, text = self._ask("GET", f"{quote(job)}/logs")
        return "" if status == 404 else self._decoded(status, text).logs[-LOG_BYTES:]

    def _check_reach(self, spec: JobSpec) -> None:
        for name, url in (("registry.url", spec.registry), ("sink.log", spec.examples)):
            if "://" not in url and not Path(url).is_absolute():
                raise JobError(
                    f"{name}: jobs on a cluster take an object store's URL or the absolute path of a folder that all nodes "
                    f"share, got the relative {url!r}; name such a one, or set trainer.backend to local"
                )

    def _decoded(self, status: int, text: str) -> _Answer:
        if status != 200:
            self._refused(status, text)
        try:
            return msgspec.json.decode(text, type=_Answer)
        except msgspec.MsgspecError as error:
            raise JobError(
                f"{self._address}: this is no Ray dashboard: {error} in {text[:200]!r}; correct trainer.ray_address"
            ) from error

    def _refused(self, status: int, text: str) -> NoReturn:
        end = text.strip().rpartition("\n")[2][:500]  # of a traceback
        if status in {401, 403}:
            have = (
                f"{self._token_file} holds another"
                if self._token_file
                else "trainer.ray_token_file is not set"
            )
            raise JobError(
                f"{self._address}: this cluster takes requests with its token, and {have} ({status}: {end}); let "
                "trainer.ray_token_file name a file with the token that the cluster was started with"
            )
        if status >= 500:  # above all "No available agent", for some seconds after its start
            raise JobUnavailableError(f"{self._address}: Ray cannot do it now ({status}: {end})")
        raise JobError(
            f"{self._address}: Ray refuses the request ({status}: {end}); correct trainer.ray_address"
        )

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        return asyncio.run(self._asked(method, f"{self._address}/api/jobs/{path}", body))

    async def _asked(self, method: str, url: str, body: dict[str, Any] | None) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers(), timeout=timeout) as session,
                session.request(method, url, json=body) as answer,
            ):
                return answer.status, await answer.text()
        except aiohttp.InvalidURL as error:
            raise JobError(
                f"trainer.ray_address is a URL like http://host:8265, got {self._address!r}"
            ) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise JobUnavailableError(
                f"{self._address}: no answer from the Ray dashboard: {error or 'time is up'}; is the cluster up, and is "
                "this its address (trainer.ray_address)?"
            ) from error

    def _headers(self) -> dict[str, str]:
        if not self._token_file:
            return {}
        try:  # read each time: it may be rotated
            token = Path(self._token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise JobError(f"trainer.ray_token_file: {error}; correct the path") from error
        return {"Authorization": f"Bearer {token}"}


def on_cluster(spec: JobSpec, attempts: int) -> tuple[str, ...]:
    """The entrypoint on a cluster, whose ``python`` is its own; ranks are started anew up to ``attempts`` times."""
    if spec.workers == 1:
        return command(spec, "python")
    return (*command(spec, "python"), "--ray", "--attempts", str(attempts))
