"""Facts about retrain/pipeline.py and retrain/learning.py: training jobs on real models, small data and a registry in a folder."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from deploy.registry import Registry, RegistryError
from deploy.release import Correction, Placed
from model import bundle, usecase
from model.checkpoint import Checkpoint, digest_of
from model.checkpoint import write as write_checkpoint
from model.scorer import LiteRTScorer
from retrain import pipeline, ranks
from retrain.gate import GateDecision
from retrain.spec import Heartbeat, JobResult, JobSpec, Phase
from tests import small_job
from tests.builders import ROOT, STEP, USECASE, examples, replaced, tensorflow
from tests.jobs import CHANGE, later, ordered, request, since, world


class Place:
    """A registry with a champion, and the jobs that are done there in this process."""

    def __init__(self, folder: Path, trained: Path) -> None:
        self.folder, self.url = folder, str(folder / "registry")
        self.registry = Registry(self.url)
        self.champion = self.registry.add(trained)
        self.beats: list[Heartbeat] = []

    def order(self, after: Any, champion: Placed | None = None, **fields: Any) -> JobSpec:
        """A job on the champion's examples and those ``after``."""
        return ordered(
            self.registry, self.url, world(self.folder, after), champion or self.champion, **fields
        )

    def run(self, spec: JobSpec) -> JobResult:
        """Do it."""
        return pipeline.run(spec, self.registry, self.beats.append)


@pytest.fixture
def place(tmp_path: Path, trained: Path) -> Place:
    """A fresh one."""
    return Place(tmp_path, trained)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the fits of this process be of few epochs."""

    def shorten(epochs: int) -> None:
        monkeypatch.setenv("EPOCHS", str(epochs))
        fitting = tensorflow("model.fitting")
        monkeypatch.setattr(fitting, "Settings", fitting.Settings)
        small_job.shorten(fitting)

    return shorten


def process(spec: JobSpec) -> list[str]:
    """The command that does the job in a process of its own."""
    return [sys.executable, "-m", "tests.small_job", spec.registry, spec.id]


def test_after_a_change_of_the_law_a_better_model_is_stored(
    place: Place, short: Callable[[int], None]
) -> None:
    """All labels turned round: the job fits anew, passes the gate by far, and leaves bundle, decision, report and result."""
    short(6)
    spec = place.order(later(1200, flipped=True), wish=since())
    result = place.run(spec)
    assert not result.error
    assert result.gate is not None
    assert result.placed is not None
    assert result.gate.passed, result.gate.reasons
    assert result.gate.reasons[-1].startswith("fitted anew, ")
    overall = result.gate.compared[0]
    assert overall.rows == 480
    assert overall.challenger_log_loss < overall.champion_log_loss - 0.5
    assert overall.challenger_auc is not None
    assert overall.challenger_auc > 0.7
    stored = place.registry.fetch(result.placed)
    manifest = LiteRTScorer.load(stored).bundle.manifest
    assert (manifest.version, manifest.metrics["live_rows"]) == ("8", result.rows)
    assert manifest.metrics["log_loss"] == pytest.approx(overall.challenger_log_loss, abs=1e-6)
    assert manifest.metrics["champion_log_loss"] == pytest.approx(overall.champion_log_loss, abs=1e-6)
    decision = place.registry.read("versions/8/gate.json")
    assert decision is not None
    assert msgspec.json.decode(decision, type=GateDecision) == result.gate
    page = place.registry.read("versions/8/report.html")
    assert page is not None
    assert b"champion" in page
    phases = [beat.phase for beat in place.beats]
    assert sorted(set(phases), key=phases.index) == [
        Phase.READING,
        Phase.FITTING,
        Phase.JUDGING,
        Phase.STORING,
    ]

    # killed after it had stored the bundle, it takes that up: nothing is fitted or written twice
    for name in ("gate.json", "report.html"):
        (Path(place.url) / "versions" / "8" / name).unlink()
    place.beats.clear()
    again = place.run(spec)
    assert (again.placed, again.gate) == (result.placed, result.gate)
    assert not [beat for beat in place.beats if beat.epoch]

    # and a version of that name that is not its own is left alone
    other = ordered(place.registry, place.url, spec.examples, place.champion, request(id="r2"))
    with pytest.raises(
        RegistryError, match="and 8 is another job's bundle there; ask for the training again"
    ):
        place.run(other)


def test_a_version_that_found_no_room_at_first_is_known_again(
    place: Place, short: Callable[[int], None]
) -> None:
    """An attempt that could not store its bundle leaves none; the next one stores its own, and a third takes that up."""
    short(1)
    spec = place.order(later(700))
    way = Path(place.url) / "versions" / spec.version
    way.write_text("in the way")
    with pytest.raises(RegistryError, match=r"cannot be written: .*, with room left"):
        place.run(spec)
    way.unlink()
    # nor does one that was killed in the midst of sending it to an object store, where what it sent stays
    place.registry.write(f"versions/{spec.version}/bundle/model.tflite", b"another attempt's")
    result = place.run(spec)
    assert result.placed is not None
    assert result.gate is not None
    assert (result.placed.version, result.gate.challenger) == ("8-2", "8-2")
    assert bundle.read(place.registry.fetch(result.placed)).manifest.version == "8-2"
    (Path(place.url) / "versions" / "8-2" / "gate.json").unlink()
    assert place.run(spec).placed == result.placed


def test_a_worse_challenger_is_refused_and_kept(place: Place, short: Callable[[int], None]) -> None:
    """Learnt from labels that were turned round before the holdout, it does not pass, and is stored to be looked at."""
    short(3)
    poisoned = later(900)
    flip = np.arange(900) < 500
    label = poisoned.column("label").to_numpy()
    poisoned = replaced(poisoned, "label", np.where(flip, 1 - label, label).astype(np.int8))
    case = USECASE + '[training]\ntrain = "15h"\nvalidate = "5h"\n'
    result = place.run(place.order(poisoned, usecase=case, wish=since()))
    assert result.gate is not None
    assert not result.gate.passed
    assert any(reason.startswith("over all") for reason in result.gate.reasons)
    assert result.placed is not None
    assert place.registry.version("8") is not None


def test_the_champion_is_judged_as_it_is_served(place: Place, short: Callable[[int], None]) -> None:
    """With a correction in force, the corrected scores are those to beat."""
    short(1)
    table = later(700)
    plain = place.run(place.order(table))
    wrong = Correction(0.5, 0.05, 0.04, 0.06, "v1")
    corrected = msgspec.structs.replace(place.champion, correction=wrong)
    worse = place.run(place.order(table, corrected, version="9", wish=request(id="r2")))
    assert plain.gate is not None
    assert worse.gate is not None
    found = [each.compared[0].champion_log_loss for each in (plain.gate, worse.gate)]
    assert found[1] > found[0] + 0.3
    assert plain.gate.reasons[-1].startswith("fitted from the weights of the champion on")


def test_the_first_model_has_the_base_rate_to_beat(tmp_path: Path, short: Callable[[int], None]) -> None:
    """Without a champion a job trains from nothing, here with settings searched for, and passes if it learnt anything."""
    short(3)
    url, path = str(tmp_path / "registry"), tmp_path / "examples.parquet"
    pq.write_table(examples(2000), path)
    registry = Registry(url)
    spec = ordered(registry, url, str(path), None, usecase=USECASE + "[retrain]\ntrials = 2\n")
    beats: list[Heartbeat] = []
    result = pipeline.run(spec, registry, beats.append)
    assert [beat.epoch for beat in beats if beat.phase is Phase.SEARCHING] == [1, 2]
    assert registry.read(f"{spec.checkpoints}/settings.json") is not None
    assert result.gate is not None
    assert (result.gate.champion, result.gate.passed) == ("", True), result.gate.reasons


def test_what_another_attempt_would_meet_again_is_a_result(place: Place) -> None:
    """Too little that is new, a broken use case, a champion of other features: an error that says what to do, at once."""
    said = place.run(place.order(later(100))).error
    assert "100 have a label by" in said
    assert "ask again then" in said
    broken = place.run(place.order(later(700), usecase="name = 1")).error
    assert "use case:1: name" in broken
    other = USECASE.replace("buckets = 64", "buckets = 32")
    assert (
        "reads other features than the use case computes"
        in place.run(place.order(later(700), usecase=other)).error
    )
    lost = ordered(place.registry, place.url, str(place.folder / "none"), place.champion)
    assert "there are no examples" in place.run(lost).error
    assert place.registry.version("8") is None


def test_a_job_that_was_killed_goes_on(place: Place) -> None:
    """Killed in mid-fit, it is gone on with from the checkpoint in the registry, by another process, to a result."""
    spec = place.order(later(700), wish=request())
    checkpoint, log = f"{spec.checkpoints}/judged.npz", place.folder / "log"
    with log.open("wb") as file:
        first = subprocess.Popen(process(spec), cwd=ROOT, stderr=file)
        while place.registry.read(checkpoint) is None:
            assert first.poll() is None, log.read_text()
            time.sleep(0.02)
        first.kill()
        first.wait()
    before = epochs(log.read_text())
    assert ("live", 3) not in before
    assert place.registry.read(f"{spec.folder}/heartbeat.json") is not None
    attempt = msgspec.structs.replace(spec, attempt=2)
    place.registry.write(f"{attempt.folder}/spec.json", msgspec.json.encode(attempt))
    done = subprocess.run(process(attempt), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = epochs(done.stderr)
    assert not [line for line in after if line[0] == "validated"]
    assert ("judged", 1) not in after
    assert after[-1][0] == "live"
    data = place.registry.read(f"{attempt.folder}/result.json")
    assert data is not None
    assert msgspec.json.decode(data, type=JobResult).gate is not None
    # a result is there: nothing is done, not even TensorFlow imported
    assert pipeline.main([spec.registry, attempt.id]) == 0
    assert place.registry.read(f"{attempt.folder}/result.json") == data


def epochs(log: str) -> list[tuple[str, int]]:
    """The fits and epochs that a job told of, in order."""
    return [(name, int(epoch)) for name, epoch in re.findall(r"learning: (\w+): epoch (\d+)", log)]


def test_two_ranks_end_with_the_same_weights(place: Place, short: Callable[[int], None]) -> None:
    """Two processes share the fits: both end with the same weights to the bit, and the gate finds what it does of one alone."""
    short(1)
    table = later(600)
    spec = place.order(table, workers=2)
    outputs = []
    configs = ranks.tf_configs([f"127.0.0.1:{port}" for port in ranks.free_ports("127.0.0.1", 2)])
    started = [
        subprocess.Popen(
            ["env", f"TF_CONFIG={config}", *process(spec)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for config in configs
    ]
    try:
        outputs = [each.communicate(timeout=240)[1] for each in started]
    finally:
        for each in started:
            each.kill()
    assert [each.returncode for each in started] == [0, 0], outputs
    digests = [re.findall(r"live model: (\w{64})", each) for each in outputs]
    assert len(digests[0]) == 1
    assert digests[0] == digests[1]
    data = place.registry.read(f"{spec.folder}/result.json")
    assert data is not None
    shared = msgspec.json.decode(data, type=JobResult)
    alone = place.run(place.order(table, version="9", wish=request(id="r2")))
    assert shared.gate is not None
    assert alone.gate is not None
    found = [each.compared[0].challenger_log_loss for each in (shared.gate, alone.gate)]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_job_that_is_stopped_leaves_no_result(place: Place) -> None:
    """SIGTERM ends it with 143, and what it had fitted is in the registry."""
    spec = place.order(later(700))
    running = subprocess.Popen(process(spec), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while place.registry.read(f"{spec.checkpoints}/validated.npz") is None:
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    assert place.registry.read(f"{spec.folder}/result.json") is None


def test_a_job_that_is_not_there_is_an_error(place: Place) -> None:
    """Whoever names another registry than the trainer's is told."""
    assert pipeline.main([place.url, "none"]) == 2


def test_a_checkpoint_of_other_rows_is_fitted_again(place: Place, short: Callable[[int], None]) -> None:
    """Where the log got late labels since the attempt before, its checkpoint is thrown away rather than the job."""
    short(1)
    spec = place.order(later(700), as_of=CHANGE + 700 * STEP)
    empty = Checkpoint(epochs=[], best_epoch=0, weights=[], average=[], optimizer=[], best_weights=[])
    write_checkpoint(place.folder / "validated.npz", empty, digest_of(["other"]))
    place.registry.write(f"{spec.checkpoints}/validated.npz", (place.folder / "validated.npz").read_bytes())
    assert place.run(spec).gate is not None


def test_a_warm_start_keeps_what_the_champion_knew(trained: Path) -> None:
    """A network of the champion's shapes begins with its weights, and keeps its categories that no row has any more."""
    training = tensorflow("model.training")
    champion = training.earlier(trained)
    spec = bundle.read(trained).spec
    scaling = training.Normalisation.of(np.zeros((1, len(spec.numeric)), np.float32))
    sizes = usecase.parse(USECASE).model
    model = training.network.build(spec, sizes, scaling, seed=5)
    known = training.network.continued(model, champion)
    same = [
        all(
            np.array_equal(a, b)
            for a, b in zip(one.get_weights(), champion.get_layer(one.name).get_weights(), strict=True)
        )
        for one in model.layers
        if one.name != "standardise"
    ]
    assert all(same)
    assert not np.array_equal(
        model.get_layer("standardise").get_weights(), champion.get_layer("standardise").get_weights()
    )
    table = np.array(model.get_layer("embedding").table)
    training.network.read_unseen_as_missing(model, np.zeros((1, len(spec.categorical)), np.int32), known)
    np.testing.assert_array_equal(table, np.array(model.get_layer("embedding").table))
    assert 0 < known.sum() < len(table)
    other = usecase.parse(USECASE.replace("dense = [33, 17]", "dense = [8]")).model
    wider = training.network.build(spec, other, scaling, seed=5)
    assert training.network.continued(wider, champion) is not None
