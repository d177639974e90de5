"""What Ray's answers mean that a healthy cluster seldom gives: a server that gives nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy.settings import Trainer
from retrain.job import JobError, JobState, JobUnavailableError
from retrain.ray_job import RayBackend
from tests.stand_ins import spec


@contextmanager
def answering(status: int, text: str) -> Iterator[RayBackend]:
    """A backend whose every request is answered so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815  # so the library calls it

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield RayBackend(Trainer(ray_address=f"http://127.0.0.1:{server.server_port}/"))
        finally:
            server.shutdown()
            thread.join()


def test_a_cluster_that_has_just_started_takes_jobs_later() -> None:
    """Its agent is not there yet: that may pass."""
    said = "No available agent to submit job, please try again later."
    with answering(500, said) as backend, pytest.raises(JobUnavailableError, match=said):
        backend.submit(spec("a"))


@pytest.mark.parametrize("status", [400, 500])
def test_a_job_that_is_there_already_is_taken(status: int) -> None:
    """Ray says so with 500 in one version and may with 400 in another."""
    text = "Traceback:\nValueError: Job with submission_id a-1 already exists. Please use a different submission_id."
    with answering(status, text) as backend:
        backend.submit(spec("a"))


def test_a_refusal_is_told_by_its_last_line() -> None:
    """Ray answers with tracebacks."""
    text = "Traceback (most recent call last):\n  File x\nTypeError: entrypoint must be a string"
    with (
        answering(400, text) as backend,
        pytest.raises(JobError, match=r"\(400: TypeError: entrypoint") as caught,
    ):
        backend.submit(spec("a"))
    assert not isinstance(caught.value, JobUnavailableError)


@pytest.mark.parametrize("text", ["<html>", "[]", '{"status": "MELTED"}', "{}"])
def test_what_is_no_ray_dashboard_is_refused(text: str) -> None:
    """The error shows what came."""
    with (
        answering(200, text) as backend,
        pytest.raises(JobError, match=r"http://127\.0\.0\.1:\d+: ") as caught,
    ):
        backend.state("a-1")
    assert text in str(caught.value)


def test_a_job_that_the_cluster_forgot_is_lost() -> None:
    """404 is no error, and stopping it nothing to do."""
    with answering(404, "Job a-1 does not exist") as backend:
        assert JobState.LOST is backend.state("a-1")
        backend.stop("a-1")
        assert "" == backend.log("a-1")
