"""What holds of a job wherever it runs: each test runs with a child process here, and on a real Ray cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.registry import Registry
from deploy.settings import Registry as RegistrySettings
from deploy.settings import Settings, Trainer
from retrain.job import Backend, JobError, JobState, JobUnavailableError, backend_of
from retrain.local_job import LocalBackend
from retrain.ray_job import RayBackend, on_cluster
from retrain.spec import Heartbeat, JobResult, JobSpec, Phase
from retrain.supervision import Continue, GiveUp, Seen, decide, look
from tests.jobs import later, ordered, request, world
from tests.ray_cluster import Cluster
from tests.stand_ins import kill, spec, stand_in, starts, until

NAME = "verdict:2026-01-01.concept_1"  # every kind of character that a request's id may have


class Clusters:
    """One cluster for all tests but those that come after one which damaged it."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._cluster: Cluster | None = None

    def whole(self) -> Cluster:
        """A cluster that nothing happened to."""
        if self._cluster is None or not self._cluster.whole:
            self.stop()
            self._cluster = Cluster(self._factory.mktemp("ray"))
        return self._cluster

    def stop(self) -> None:
        """End it."""
        if self._cluster is not None:
            self._cluster.stop()


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Clusters, started when asked for."""
    made = Clusters(tmp_path_factory)
    yield made
    made.stop()


@pytest.fixture
def cluster(clusters: Clusters) -> Cluster:
    """A real Ray cluster of one node."""
    return clusters.whole()


def trainer(cluster: Cluster) -> Trainer:
    """Settings that name it."""
    return Trainer(backend="ray", ray_address=cluster.address, ray_token_file=str(cluster.token_file))


Make = Callable[[], Backend]


@pytest.fixture(params=["local", "ray"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a backend whose jobs are stand-ins that leave their traces in ``tmp_path``."""
    command = stand_in(tmp_path)
    if request.param == "local":
        backend = LocalBackend(tmp_path / "logs", command)
        return lambda: backend
    settings = trainer(request.getfixturevalue("cluster"))
    return lambda: RayBackend(settings, command)


def submitted(backend: Backend, job: JobSpec) -> None:
    """Submit it as the trainer does: again while the cluster is not ready."""

    def taken() -> bool:
        try:
            backend.submit(job)
        except JobUnavailableError:
            return False
        return True

    until(taken, "the job is taken")


def reaches(backend: Backend, job: JobSpec, *states: JobState) -> None:
    """Wait until it is in one of ``states``."""
    until(lambda: backend.state(job.id) in states, f"{job.id} is {' or '.join(states)}")


def test_a_job_submitted_twice_is_one_job(make: Make, tmp_path: Path) -> None:
    """It runs once, whoever submits it again and whether it has ended; its end and its log can be read."""
    backend, job = make(), spec(NAME + tmp_path.name)
    submitted(backend, job)
    submitted(make(), job)
    reaches(backend, job, JobState.SUCCEEDED)
    submitted(backend, job)
    assert backend.state(job.id) is JobState.SUCCEEDED
    assert "this one ends" in backend.log(job.id)
    assert 1 == len(starts(tmp_path))


def test_the_next_attempt_is_another_job(make: Make, tmp_path: Path) -> None:
    """A job that fails is FAILED; the next attempt at its request starts, and shares its checkpoints alone."""
    backend, first = make(), spec(tmp_path.name, "fails")
    second = spec(tmp_path.name, "ends", attempt=2)
    submitted(backend, first)
    reaches(backend, first, JobState.FAILED)
    submitted(backend, second)
    reaches(backend, second, JobState.SUCCEEDED)
    assert JobState.FAILED is backend.state(first.id)
    assert first.folder != second.folder
    assert first.checkpoints == second.checkpoints


def test_a_killed_job_has_failed(make: Make, tmp_path: Path) -> None:
    """SIGKILL to its process shows as FAILED, for which the next attempt is called for."""
    backend, job = make(), spec(tmp_path.name, "works")
    submitted(backend, job)
    until(lambda: len(starts(tmp_path)) == 1, "the job works")
    reaches(backend, job, JobState.RUNNING)
    kill(starts(tmp_path)[0])
    reaches(backend, job, JobState.FAILED)
    assert GiveUp("the job's process failed or was killed; its log says more", retry=True) == decide(
        Seen(submitted=0), backend.state(job.id), 1, 1, Trainer()
    )


def test_a_job_that_is_stopped_is_stopped(make: Make, tmp_path: Path) -> None:
    """It ends though it is deaf to SIGTERM; stopping one that has ended, or that is not known, does nothing."""
    backend, job = make(), spec(tmp_path.name, "deaf")
    submitted(backend, job)
    until((tmp_path / "ready").exists, "the job works")
    backend.stop(job.id)
    reaches(backend, job, JobState.STOPPED)
    backend.stop(job.id)
    backend.stop("unknown")
    assert backend.state(job.id) is JobState.STOPPED


def test_a_job_that_is_not_known_is_lost(make: Make) -> None:
    """As after a cluster's, or the trainer's, new start; it has no log."""
    backend = make()
    until(lambda: _lost(backend), "the backend answers")
    assert "" == backend.log("unknown")


def _lost(backend: Backend) -> bool:
    try:
        return backend.state("unknown") is JobState.LOST
    except JobUnavailableError:
        return False


@pytest.mark.parametrize(("token", "said"), [("another", "holds another"), (None, "is not set")])
def test_a_wrong_token_is_refused_with_what_to_do(
    cluster: Cluster, tmp_path: Path, token: str | None, said: str
) -> None:
    """The cluster takes nothing without its token, and the error names the setting."""
    file = tmp_path / "token"
    file.write_text(token or "")
    settings = Trainer(ray_address=cluster.address, ray_token_file=str(file) if token else "")
    backend = RayBackend(settings)
    for ask in (lambda: backend.submit(spec("x")), lambda: backend.state("x-1"), lambda: backend.stop("x-1")):
        with pytest.raises(JobError, match=rf"{said}.*let trainer\.ray_token_file name a file") as caught:
            ask()
        assert not isinstance(caught.value, JobUnavailableError)


def test_a_cluster_that_does_not_answer_may_later() -> None:
    """No connection is an error that may pass."""
    with pytest.raises(JobUnavailableError, match=r"is this its address \(trainer\.ray_address\)\?"):
        RayBackend(Trainer(ray_address="http://127.0.0.1:9")).state("x-1")


@pytest.mark.parametrize("address", ["no url", "ray://head:10001"])
def test_an_address_that_is_no_url_is_refused(address: str) -> None:
    """It names the setting."""
    with pytest.raises(JobError, match=r"trainer\.ray_address"):
        RayBackend(Trainer(ray_address=address)).state("x-1")


def test_a_cluster_is_given_no_relative_folder() -> None:
    """Its nodes could not find it; the error comes before anything is sent."""
    with pytest.raises(JobError, match=r"registry\.url: .* got the relative 'registry'"):
        RayBackend(Trainer()).submit(spec("x", folder="registry"))


def test_the_backend_is_the_one_of_the_settings(tmp_path: Path) -> None:
    """A Ray job runs the cluster's own Python: the pipeline, or ranks that it starts again when they are killed."""
    assert isinstance(backend_of(Settings(registry=RegistrySettings(cache=str(tmp_path)))), LocalBackend)
    assert isinstance(backend_of(Settings(trainer=Trainer(backend="ray"))), RayBackend)
    job = spec("r", folder=tmp_path)
    assert ("python", "-m", "retrain.pipeline", str(tmp_path), "r-1") == on_cluster(job, 3)


def test_the_trainer_loads_no_ray(tmp_path: Path) -> None:
    """Its process speaks HTTP to the cluster."""
    code = "import sys, retrain.ray_job, retrain.job, retrain.ranks; sys.exit('ray' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode


def test_a_job_of_two_ranks_survives_the_death_of_a_worker(cluster: Cluster, tmp_path: Path) -> None:
    """Rank 1's Ray worker is killed, and rank 0 waits for it for ever: both start anew, and the job succeeds."""
    rank = tmp_path / "rank.py"
    rank.write_text(RANK)
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    backend = RayBackend(trainer(cluster), lambda _: (sys.executable, str(driver), str(rank), str(tmp_path)))
    job = spec(tmp_path.name)
    submitted(backend, job)
    until(lambda: backend.state(job.id).ended, "the job ends")
    assert backend.state(job.id) is JobState.SUCCEEDED, backend.log(job.id)
    assert {"0-of-2-attempt-1", "1-of-2-attempt-1", "0-of-2-attempt-2", "1-of-2-attempt-2"} == {
        file.name for file in tmp_path.glob("?-of-*")
    }


RANK = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
config = json.loads(os.environ["TF_CONFIG"])
rank, ranks = config["task"]["index"], len(config["cluster"]["worker"])
name = f"{rank}-of-{ranks}-attempt-"
attempt = 1 + len(list(folder.glob(name + "*")))
(folder / f"{name}{attempt}").touch()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while len(list(folder.glob(f"*-attempt-{attempt}"))) < ranks:  # the group is there
    time.sleep(0.05)
if attempt == 1 and rank == 1:
    os.kill(os.getppid(), signal.SIGKILL)  # the actor's process
while attempt == 1:
    time.sleep(0.05)
"""

DRIVER = """
import sys
from retrain.ranks import keep
from retrain.ray_ranks import RayRanks
beats = []
code = keep(lambda: RayRanks(tuple(sys.argv[1:]), 2, 0, lambda: beats.append(1)), 2)
sys.exit(code if beats else "no sign of life while it waited")
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_pipeline_runs_on_a_cluster(cluster: Cluster, tmp_path: Path, workers: int) -> None:
    """The job that the trainer orders ends with a stored version, trained by one process or by two ranks, one of which is killed."""
    url = str(tmp_path / "registry")
    registry = Registry(url)
    job = ordered(
        registry, url, world(tmp_path, later(400)), None, request(id=tmp_path.name), workers=workers
    )
    backend = RayBackend(trainer(cluster))
    submitted(backend, job)
    if workers == 2:
        until(lambda: _fitting(registry, job), "the ranks fit", 300)
        kill(cluster.processes("-m retrain.pipeline", job.id)[-1])
    until(lambda: backend.state(job.id).ended, "the job ends", 600)
    raw = registry.read(f"{job.folder}/result.json")
    assert raw is not None, backend.log(job.id)
    result = msgspec.json.decode(raw, type=JobResult)
    assert "" == result.error, backend.log(job.id)
    assert result.placed is not None
    assert [job.version] == [each.version for each in registry.versions()]
    assert ("attempt 1 of 3: KILLED" in backend.log(job.id)) is (workers == 2)


def _fitting(registry: Registry, job: JobSpec) -> bool:
    raw = registry.read(f"{job.folder}/heartbeat.json")
    return raw is not None and msgspec.json.decode(raw, type=Heartbeat).phase is Phase.FITTING


def _state(backend: RayBackend, job: JobSpec) -> JobState | None:
    try:
        return backend.state(job.id)
    except JobUnavailableError:
        return None


def test_a_dead_node_is_known_by_the_missing_signs_of_life(cluster: Cluster, tmp_path: Path) -> None:
    """With its node killed a job stays RUNNING, with the head no one answers; either is given up, and tried again."""
    backend = RayBackend(trainer(cluster), stand_in(tmp_path))
    job = spec(tmp_path.name, "works")
    submitted(backend, job)
    until((tmp_path / "ready").exists, "the job works")
    settings = trainer(cluster)
    beat = Heartbeat(at=1e12, phase=Phase.FITTING)  # its clock is off by far
    seen = look(Seen(submitted=0), backend.state(job.id), beat, 10)
    cluster.kill("raylet")
    until(lambda: _state(backend, job) is JobState.RUNNING, "the dashboard answers again")
    state = JobState.RUNNING
    seen = look(seen, state, beat, 20)
    assert Continue() == decide(seen, state, 1, 20, settings)
    lost = decide(seen, state, 1, 10 + settings.heartbeat_s, settings)
    assert (
        GiveUp("the job is lost: no sign of life for 120 s, while its backend calls it running", True) == lost
    )
    cluster.kill()
    with pytest.raises(JobUnavailableError):
        backend.state(job.id)
    lost = decide(look(seen, None, None, 30), None, 1, 10 + settings.heartbeat_s, settings)
    assert (
        GiveUp("the job is lost: no sign of life for 120 s, while its backend does not answer", True) == lost
    )
