"""Facts about detectors/offline.py, detectors/models.py and ``eddyline replay --drift``: the verdicts of a history."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

import eddyline
from deploy.settings import Events
from detectors import models
from detectors.monitor import Monitor
from detectors.offline import Offline
from detectors.verdict import Verdict
from model.bundle import BundleError
from model.scorer import LiteRTScorer
from model.usecase import parse
from stream import history
from tests.builders import USECASE as SYNTHETIC
from tests.drifting import USECASE, bundle, records, reference, samples, usecase
from tests.test_replay import customers

DRIFTED = samples(2600, 1200)
WATCHED = (
    SYNTHETIC + "[drift]\nevents_between_false_alarms = 2000\nlabels = 400\nblock = '1h'\nwitnesses = []\n"
)


def written(path: Path) -> list[Verdict]:
    """The verdicts of a file."""
    return [msgspec.json.decode(line, type=Verdict) for line in path.read_bytes().splitlines()]


def test_pieces_of_a_replay_are_one_topic(tmp_path: Path) -> None:
    """Whatever the chunks, the file has what a monitor says of the whole; what is bad is counted and told."""
    path = tmp_path / "drift.jsonl"
    with Offline(Monitor(usecase(), {"v1": reference()}), path) as offline:
        for begin in range(0, len(DRIFTED), 333):
            offline.watch(DRIFTED[begin : begin + 333])
        offline.watch([b"no sample"])
    monitor = Monitor(usecase(), {"v1": reference()})
    whole = [*monitor.observe(records(DRIFTED)).verdicts, *monitor.finish().verdicts]
    assert {each.id: each for each in offline.verdicts} == {each.id: each for each in whole}
    assert written(path) == offline.verdicts
    assert (offline.scored, offline.matured, len(offline.bad)) == (2600, 2400, 1)


def test_the_command_writes_and_shows_the_verdicts(trained: Path, tmp_path: Path) -> None:
    """The same as of a monitor that is shown the replay's samples; a model trained on other decisions is found out."""
    declared, events, found = (tmp_path / name for name in ("usecase.toml", "events.jsonl", "drift.jsonl"))
    declared.write_text(WATCHED)
    made = customers(12_000, users=400, seed=6)
    events.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in made))
    arguments = ["replay", str(declared), str(events), "--drift", str(found)]
    ran = CliRunner().invoke(eddyline.cli, [*arguments, "--model", str(trained)])
    assert ran.exit_code == 0, ran.output
    shown: list[bytes] = []
    case = parse(WATCHED)
    history.run(case, Events(), LiteRTScorer.load(trained), [events], history.Outputs(watch=shown.extend))
    monitor = Monitor(case, models.references(case, [trained]))
    assert written(found) == monitor.observe(records(shown)).verdicts
    assert len(written(found)) > 0
    assert written(found)[0].id in ran.output
    assert f"{len(written(found))} verdicts in" in ran.output.replace("\n", " ")
    ran = CliRunner().invoke(eddyline.cli, arguments)
    assert ran.exit_code == 2
    assert "--drift watches a model; name its bundle with --model" in ran.output


def test_a_bundle_is_checked_before_it_is_watched(tmp_path: Path) -> None:
    """A damaged one, one of other features and one given twice are refused."""
    path = bundle(tmp_path / "v1")
    assert list(models.references(usecase(), [path, bundle(tmp_path / "v2", "v2")])) == ["v1", "v2"]
    with pytest.raises(BundleError, match="model v1 is given twice"):
        models.references(usecase(), [path, path])
    other = usecase(USECASE.replace('age = { kind = "context", field = "age" }', ""))
    with pytest.raises(BundleError, match="`age` is numeric in the model and absent in the use case"):
        models.references(other, [path])
    (path / "model.tflite").write_bytes(b"another network")
    with pytest.raises(BundleError, match=r"model\.tflite: the manifest says"):
        models.references(usecase(), [path])


def test_what_is_not_watched_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Witnesses that are not installed, and values that are too rare."""
    declared = usecase(USECASE.replace("witnesses = []", 'witnesses = ["ks", "adwin", "classifier"]'))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with caplog.at_level(logging.WARNING):
        make = models.maker(declared, [bundle(tmp_path / "v1")])
        make()
        make()
    first, second = (record.getMessage() for record in caplog.records)
    assert "these witnesses of [drift] are not asked: ks, classifier. Verdicts go without them" in first
    assert second == (
        "model v1: 1 values of plan are too rare in the reference to be watched on their own: 'rare'"
    )
