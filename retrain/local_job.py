"""Jobs as child processes of the trainer: no cluster, the same code path. They end when the trainer does."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from retrain import child
from retrain.job import LOG_BYTES, QUIET, JobError, JobState, command
from retrain.spec import JobSpec

GRACE_S = 5.0  # from SIGTERM to SIGKILL: a rank that waits for its peers ignores the first


class LocalBackend:
    """Runs each job as one child process; its log is a file in ``folder``, which also tells that it was started.

    :meth:`submit` is to be called by a thread that outlives the jobs, as the trainer's loop does: they end with it.
    """

    def __init__(self, folder: Path, command: Callable[[JobSpec], tuple[str, ...]] = command) -> None:
        self._folder, self._command = folder, command
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped: set[str] = set()

    def submit(self, spec: JobSpec) -> None:
        """Start it, unless a job with its id was ever started with this folder."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._file(spec.id).exists():
                return
            with self._file(spec.id).open("xb") as log:
                self._processes[spec.id] = subprocess.Popen(  # noqa: S603  # our own module
                    child.bound(self._command(spec)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that Ctrl-C is the trainer's, and `stop` reaches all of it
                    env=QUIET | os.environ,
                )
        except OSError as error:
            raise JobError(f"{self._folder}: a job cannot be started with its log there: {error}") from error

    def state(self, job: str) -> JobState:
        """LOST for one that another process started: it ended with that one."""
        process = self._processes.get(job)
        if process is None:
            return JobState.LOST
        code = process.poll()
        if code is None:
            return JobState.RUNNING
        if job in self._stopped:
            return JobState.STOPPED
        return JobState.SUCCEEDED if code == 0 else JobState.FAILED

    def stop(self, job: str) -> None:
        """End it: within :data:`GRACE_S`, or by force."""
        process = self._processes.get(job)
        if process is None or process.poll() is not None:
            return
        self._stopped.add(job)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, job: str) -> str:
        """The end of what it printed."""
        try:
            with self._file(job).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _file(self, job: str) -> Path:
        return self._folder / f"{job}.log"
