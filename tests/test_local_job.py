"""Jobs as child processes: how they end with the process that started them, or by force."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrain import local_job
from retrain.job import JobError, JobState
from retrain.local_job import LocalBackend
from tests.stand_ins import alive, kill, spec, stand_in, starts, until

PARENT = """
import pathlib, sys, time
from tests.stand_ins import spec, stand_in
from retrain.local_job import LocalBackend
folder = pathlib.Path(sys.argv[1])
LocalBackend(folder / "logs", stand_in(folder)).submit(spec("a", "deaf"))
time.sleep(600)
"""


def test_a_job_ends_with_its_trainer(here: Path, tmp_path: Path) -> None:
    """The trainer is killed: its job is too, though deaf to SIGTERM; to the next trainer it is lost, and its id is spent."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=here) as parent:
        until((tmp_path / "ready").exists, "the job works")
        kill(parent.pid)
    pid = starts(tmp_path)[0]
    until(lambda: not alive(pid), "the job has ended")
    backend = LocalBackend(tmp_path / "logs", stand_in(tmp_path))
    backend.submit(spec("a"))
    assert JobState.LOST is backend.state("a-1")
    assert "this one deaf" in backend.log("a-1")
    backend.submit(spec("a", attempt=2))
    until(lambda: backend.state("a-2") is JobState.SUCCEEDED, "the next attempt ends")
    assert 2 == len(starts(tmp_path))


def test_a_child_whose_parent_has_ended_does_not_begin(tmp_path: Path) -> None:
    """As when the trainer is killed while it starts a job."""
    made = tmp_path / "made"
    command = (sys.executable, "-m", "retrain.child", "1", "touch", str(made))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "the process 1 that started this has ended" in done.stderr
    assert 1 == done.returncode
    assert not made.exists()


def test_a_deaf_job_is_ended_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL follows SIGTERM after the time of grace."""
    monkeypatch.setattr(local_job, "GRACE_S", 0.2)
    backend = LocalBackend(tmp_path / "logs", stand_in(tmp_path))
    backend.submit(spec("a", "deaf"))
    until((tmp_path / "ready").exists, "the job works")
    backend.stop("a-1")
    assert JobState.STOPPED is backend.state("a-1")
    assert not alive(starts(tmp_path)[0])


def test_the_end_of_a_long_log_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong stands there."""
    monkeypatch.setattr(local_job, "LOG_BYTES", 5)
    backend = LocalBackend(tmp_path / "logs", lambda _: ("echo", "0123456789"))
    backend.submit(spec("a"))
    until(lambda: backend.state("a-1") is JobState.SUCCEEDED, "it ends")
    assert "6789\n" == backend.log("a-1")


def test_a_folder_that_takes_no_log_starts_no_job(tmp_path: Path) -> None:
    """The error names the folder."""
    (tmp_path / "logs").write_text("a file")
    backend = LocalBackend(tmp_path / "logs", stand_in(tmp_path))
    with pytest.raises(JobError, match=f"{tmp_path}/logs: a job cannot be started"):
        backend.submit(spec("a"))
    assert [] == starts(tmp_path)


def test_a_job_inherits_settings_and_a_quiet_tensorflow(tmp_path: Path) -> None:
    """Its environment is the trainer's, such as an object store's credentials, which wins."""
    backend = LocalBackend(tmp_path / "logs", lambda _: ("env",))
    backend.submit(spec("a"))
    until(lambda: backend.state("a-1") is JobState.SUCCEEDED, "it ends")
    lines = backend.log("a-1").splitlines()
    assert f"TF_CPP_MIN_LOG_LEVEL={os.environ.get('TF_CPP_MIN_LOG_LEVEL', '2')}" in lines
    assert f"PATH={os.environ['PATH']}" in lines
