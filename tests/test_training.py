"""Facts about model/training.py, model/fitting.py and model/checkpoint.py; they import TensorFlow."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from eddyline import cli
from model import reference
from model.bundle import read
from model.checkpoint import CheckpointError
from model.evaluation import auc, calibration_error, log_loss
from model.scorer import LiteRTScorer
from model.split import Parts, window
from tests.builders import (
    CASE,
    ROOT,
    ROWS,
    SPEC,
    START,
    STEP,
    examples,
    inputs,
    prepared,
    replaced,
    tensorflow,
)


@pytest.fixture(scope="session")
def training() -> Any:
    """Module under test, imported only when a test runs: TensorFlow takes 10 s."""
    return tensorflow("model.training")


def fitted(training: Any, parts: Parts, **settings: float) -> Any:
    """Fit in this process, silently, without baselines; the Keras model and what came of each epoch."""
    training.tf.config.experimental.enable_op_determinism()
    return training.fit(parts, SPEC, CASE.model, training.Settings(**settings), lambda _: None)


def split(folder: Path, table: Any = None) -> Parts:
    """Read ``table``, or the usual examples, and split them as the use case says."""
    return window(prepared(folder, examples() if table is None else table), CASE.training)


def equal(one: Any, other: Any) -> bool:
    """Whether two models have the same weights to the bit."""
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_the_network_learns(process: tuple[Path, str], tmp_path: Path) -> None:
    """On fresh examples of the same law the bundle orders well and beats the base rate by far."""
    fresh = prepared(tmp_path, examples(4000, seed=99))
    scores = LiteRTScorer.load(process[0]).score(fresh.numeric, fresh.categorical)
    base = np.full_like(scores, fresh.base_rate)
    assert auc(fresh.label, scores, fresh.sample_weight) > 0.83  # the law itself: 0.88
    loss, base_loss = (log_loss(fresh.label, s, fresh.sample_weight) for s in (scores, base))
    assert loss < 0.8 * base_loss


def test_the_metrics_are_those_of_a_model_that_never_saw_the_validation_part(
    training: Any, process: tuple[Path, str], tmp_path: Path
) -> None:
    """The manifest's metrics are had again by fitting the fitting part alone; the live model's would be better."""
    parts = split(tmp_path)
    model, found = fitted(training, parts, seed=1, epochs=8)
    later, manifest = parts.validation, read(process[0]).manifest
    scores = training.predict(model, SPEC, later)
    assert manifest.metrics["auc"] == pytest.approx(auc(later.label, scores), abs=1e-6)
    assert manifest.metrics["log_loss"] == pytest.approx(log_loss(later.label, scores), abs=1e-6)
    assert manifest.metrics["epochs"] == found.epoch
    assert manifest.window == parts.times
    counted = [manifest.metrics[f"{name}rows"] for name in ("", "purged_", "validation_", "live_")]
    assert counted == [2991, 9, 1000, 4000]
    assert manifest.metrics["auc_low"] < manifest.metrics["auc"] < manifest.metrics["auc_high"]


def test_the_reference_sample_has_the_scores_of_the_live_model(
    process: tuple[Path, str], tmp_path: Path
) -> None:
    """The bundle's reference is one validation row a user a day, and its scores are those that LiteRT serves."""
    later, found = split(tmp_path).validation, reference.read(read(process[0]))
    days = later.time // 86_400_000
    assert len(found) == len(np.unique(np.column_stack([later.user, days]), axis=0)) == 97
    rows = np.searchsorted(later.time, found.time)  # the examples come one a minute
    np.testing.assert_array_equal(later.time[rows], found.time)
    np.testing.assert_array_equal(later.numeric[rows], found.numeric)
    np.testing.assert_array_equal(later.categories[rows], found.categorical)
    np.testing.assert_array_equal(later.label[rows], found.label)
    served = LiteRTScorer.load(process[0]).score(later.numeric[rows], later.categorical[rows])
    np.testing.assert_allclose(found.score, served, rtol=0, atol=1e-5)


def test_baselines_are_reported_beside_the_network(process: tuple[Path, str]) -> None:
    """The metrics hold those of every baseline, and a network that has learnt is better than the simple ones."""
    metrics = read(process[0]).manifest.metrics
    assert metrics["base_rate_auc"] == 0.5
    assert metrics["base_rate_log_loss"] > metrics["heuristic_log_loss"] > metrics["log_loss"]
    assert {"logistic_auc", "boosting_auc", "boosting_log_loss", "boosting_ece"} <= metrics.keys()


def test_progress_is_one_line_of_json_an_epoch(process: tuple[Path, str]) -> None:
    """Standard output is JSON lines alone: one an epoch, then those of the live model, then the manifest's metrics."""
    *epochs, metrics = map(json.loads, process[1].splitlines())
    judged = [line for line in epochs if line["validation_log_loss"] is not None]
    live = epochs[len(judged) :]
    assert [line["fit"] for line in epochs] == ["validated"] * len(judged) + ["live"] * len(live)
    assert [line["epoch"] for line in judged] == list(range(1, len(judged) + 1))
    assert [line["epoch"] for line in live] == list(range(1, int(metrics["epochs"]) + 1))
    assert read(process[0]).manifest.metrics == metrics
    best = min(judged, key=lambda line: float(line["validation_log_loss"]))
    assert best["epoch"] == metrics["epochs"]
    assert best["validation_log_loss"] == pytest.approx(metrics["log_loss"], abs=1e-9)


def test_equal_seeds_give_equal_weights(training: Any, process: tuple[Path, str], tmp_path: Path) -> None:
    """This process and the training process, with one seed, reach the same live model to the bit."""
    parts = split(tmp_path)
    epochs = int(read(process[0]).manifest.metrics["epochs"])
    settings = training.Settings(seed=1, epochs=8)
    training.tf.config.experimental.enable_op_determinism()
    again = training.fit_live(parts, SPEC, CASE.model, settings, lambda _: None, epochs=epochs)
    assert equal(again, training.network.keras.saving.load_model(process[0] / "model.keras"))


def test_fitting_never_sees_labels_that_had_not_matured(training: Any, tmp_path: Path) -> None:
    """As of a moment, labels and features of every decision whose window was open then change no weight at all."""
    table, moment = examples(1500), START + 1000 * STEP
    unknown = table.column("closes").to_numpy() > moment
    price = np.where(unknown, 1e6, table.column("feature.price").to_numpy()).astype(np.float32)
    flipped = np.where(unknown, 1 - table.column("label").to_numpy(), table.column("label").to_numpy())
    other = replaced(replaced(table, "feature.price", price), "label", flipped.astype(np.int8))
    models = []
    for name, each in (("as it was", table), ("another future", other)):
        parts = window(prepared(tmp_path / name, each), CASE.training, moment)
        settings = training.Settings(epochs=2)
        model, _ = fitted(training, parts, epochs=2)
        live = training.fit_live(parts, SPEC, CASE.model, settings, lambda _: None, epochs=2)
        models.append((model, live))
    assert equal(models[0][0], models[1][0])
    assert equal(models[0][1], models[1][1])


def test_fitting_never_sees_the_validation_part(training: Any, tmp_path: Path) -> None:
    """After one epoch the weights are the same whatever the validated rows hold, and the labels not known before."""
    table = examples(1000)
    # The validation part begins at 750, the windows are 10 long; the last, a negative one, tells when examples end.
    later = (np.arange(1000) >= 741) & (np.arange(1000) < 999)
    label = np.where(later, 1 - table.column("label").to_numpy(), table.column("label").to_numpy())
    other = replaced(table, "label", label.astype(np.int8))
    one, two = (fitted(training, split(tmp_path / str(i), t), epochs=1) for i, t in enumerate((table, other)))
    assert equal(one[0], two[0])
    assert one[1].epochs[0].validation_log_loss != two[1].epochs[0].validation_log_loss


def test_early_stopping_keeps_the_best_epoch(training: Any, tmp_path: Path) -> None:
    """Fitting stops after the set number of epochs without a gain and leaves the weights of the best one."""
    parts = split(tmp_path, examples(600))
    model, found = fitted(training, parts, epochs=60, patience=2, learning_rate=0.02, batch=32, hidden=0.0)
    losses = [line.validation_log_loss for line in found.epochs]
    assert found.epoch == int(np.argmin(losses)) + 1
    assert len(losses) == found.epoch + 2
    later = parts.validation
    assert log_loss(later.label, training.predict(model, SPEC, later)) == pytest.approx(min(losses))


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(training: Any, tmp_path: Path, after: int) -> None:
    """Resumed from its checkpoint after any epoch, a fit ends with the weights of one that was never interrupted."""
    parts, settings = split(tmp_path, examples(1000)), training.Settings(epochs=5)
    told: list[int] = []

    def kill(line: Any) -> None:
        told.append(line.epoch)
        if len(told) == after:
            raise KilledError

    whole, found = fitted(training, parts, epochs=5)
    folder = tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        training.fit(parts, SPEC, CASE.model, settings, kill, checkpoint=folder)
    resumed, again = training.fit(parts, SPEC, CASE.model, settings, kill, checkpoint=folder)
    assert equal(whole, resumed)
    assert told == list(range(1, len(found.epochs) + 1))
    assert [line.loss for line in found.epochs] == [line.loss for line in again.epochs]
    assert found.epoch == again.epoch


def test_a_checkpoint_of_another_fit_is_refused(training: Any, tmp_path: Path) -> None:
    """Other settings or other rows than the checkpoint's are told apart, and so is a file that is none."""
    parts, folder = split(tmp_path, examples(400)), tmp_path / "checkpoint"
    fit, settings = training.fit, training.Settings(epochs=1)
    fit(parts, SPEC, CASE.model, settings, lambda _: None, checkpoint=folder)
    other = msgspec.structs.replace(settings, learning_rate=0.1)
    with pytest.raises(
        CheckpointError, match=r"validated\.npz: a checkpoint is gone on from with the examples"
    ):
        fit(parts, SPEC, CASE.model, other, lambda _: None, checkpoint=folder)
    rows = split(tmp_path / "other", examples(400, seed=1))
    with pytest.raises(CheckpointError, match="name another folder, or remove it to fit from the start"):
        fit(rows, SPEC, CASE.model, settings, lambda _: None, checkpoint=folder)
    (folder / "validated.npz").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"validated\.npz: not a readable checkpoint"):
        fit(parts, SPEC, CASE.model, settings, lambda _: None, checkpoint=folder)


def test_balanced_fitting_of_a_rare_outcome_stays_calibrated(training: Any, tmp_path: Path) -> None:
    """With labels weighed alike, scores of an outcome of a few per cent still are its probability, not a half."""
    table = examples(8000)
    rare = (np.random.default_rng(3).random(8000) < 0.1) & (table.column("label").to_numpy() == 1)
    parts = split(tmp_path, replaced(table, "label", rare.astype(np.int8)))
    model, _ = fitted(training, parts, epochs=10, balance=True)
    later = parts.validation
    scores = training.predict(model, SPEC, later)
    assert parts.fitting.base_rate < 0.07
    assert scores.mean() == pytest.approx(later.base_rate, abs=0.02)
    assert calibration_error(later.label, scores) < 0.03
    assert auc(later.label, scores) > 0.65


def test_balanced_labels_weigh_alike(training: Any, tmp_path: Path) -> None:
    """Both labels have the same total weight, and the offset is the logarithm of the odds that unweighted rows have."""
    table = replaced(examples(), "sample_weight", np.linspace(0.5, 2, ROWS).astype(np.float32))
    rows = split(tmp_path, table).fitting
    weight, offset = training.fitting._weights(rows, balance=True)
    positive = rows.label == 1
    assert weight[positive].sum() == pytest.approx(weight[~positive].sum(), rel=1e-4)
    rate = rows.label.mean()
    assert offset == pytest.approx(np.log((1 - rate) / rate), abs=1e-6)


def test_weights_move_no_level(training: Any, tmp_path: Path) -> None:
    """With positive rows of weight 5 scores still are probabilities, and all that is measured counts a row once."""
    heavy = 1 + 4 * examples().column("label").to_numpy().astype(np.float32)
    parts = split(tmp_path, replaced(examples(), "sample_weight", heavy))
    model, found = fitted(training, parts, epochs=8)
    later = parts.validation
    scores = training.predict(model, SPEC, later)
    assert later.base_rate > later.label.mean() + 0.2
    assert scores.mean() == pytest.approx(later.label.mean(), abs=0.05)
    measured = training._evaluated(later, scores, 0.5)
    metrics = training._metrics(parts, {"network": measured}, found.epoch)
    assert metrics["log_loss"] == pytest.approx(min(line.validation_log_loss for line in found.epochs))
    assert metrics["ece"] < 0.05
    assert metrics["base_rate"] == pytest.approx(parts.fitting.label.mean())
    assert metrics["validation_base_rate"] == pytest.approx(later.label.mean())


def test_a_category_that_fitting_never_met_reads_as_missing(training: Any, tmp_path: Path) -> None:
    """An unseen category scores as none does, rather than by the chance its embedding started with."""
    parts = split(tmp_path, examples(600))
    model, _ = fitted(training, parts, epochs=1)
    unseen = np.setdiff1d(np.arange(1, 64), parts.fitting.categorical[:, 0])[0]
    rows = parts.validation[:50]
    scores = []
    for item in (unseen, 0):
        changed = rows.categorical.copy()
        changed[:, 0] = item
        scores.append(training.predict(model, SPEC, msgspec.structs.replace(rows, categorical=changed)))
    np.testing.assert_array_equal(*scores)


def test_weights_say_how_much_a_row_counts(training: Any, tmp_path: Path) -> None:
    """With all weight on the even rows, whose labels are turned round, the model learns the turned law."""
    table = examples()
    even = np.arange(ROWS) % 2 == 0
    label = np.where(even, 1 - table.column("label").to_numpy(), table.column("label").to_numpy())
    table = replaced(table, "label", label.astype(np.int8))
    table = replaced(table, "sample_weight", np.where(even, 1.0, 1e-3).astype(np.float32))
    model, _ = fitted(training, split(tmp_path, table), epochs=5)
    fresh = prepared(tmp_path / "fresh", examples(2000, seed=5))
    assert auc(fresh.label, training.predict(model, SPEC, fresh), fresh.sample_weight) < 0.3


def test_one_loop_serves_several_devices(training: Any, tmp_path: Path) -> None:
    """Under a strategy of two replicas the same loop reaches the same weights, up to rounding."""
    parts = split(tmp_path, examples(1000))
    alone = fitted(training, parts, epochs=1)[0].get_weights()
    strategy = training.tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        together = fitted(training, parts, epochs=1)[0].get_weights()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_whole_order_as_of_a_moment(training: Any, tmp_path: Path) -> None:
    """An order with all it may ask for leaves a bundle that its date binds, a report and a checkpoint of both fits."""
    case, parquet = inputs(tmp_path, examples(1500))
    moment = START + 1200 * STEP
    order = training.Order(
        usecase=case, examples=str(parquet), out=tmp_path / "bundle", version="3", as_of=moment,
        settings=training.Settings(epochs=1), report=tmp_path / "new" / "report.html", ablation=True,
        checkpoint=tmp_path / "kept",
    )  # fmt: skip
    metrics = training.run(order, lambda _: None)
    assert metrics["live_rows"] == 1191
    assert read(order.out).manifest.window["as_of"] == "2023-11-15T18:13:20+00:00"
    page = order.report.read_text(encoding="utf-8")
    assert "synthetic, version 3" in page
    assert "event view" in page
    assert {"validated.npz", "live.npz"} == {path.name for path in (tmp_path / "kept").iterdir()}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``eddyline train``."""
    return subprocess.run(
        [sys.executable, "-m", "eddyline", "train", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def refused(folder: Path, *options: object, examples: Path | None = None) -> str:
    """What ``eddyline train`` says before it imports TensorFlow and ends with 2; one line."""
    case = inputs(folder, None)[0]
    given = ["train", case, examples or folder / "examples.parquet", "--version", "1", *options]
    if "--out" not in options:
        given += ["--out", folder / "bundle"]
    program = f"import sys; sys.modules['tensorflow'] = None; import eddyline; sys.argv[1:] = {[*map(str, given)]}; eddyline.main()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (2, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines())), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("option", "below"), [("--out", "bundle"), ("--report", "report.html"), ("--checkpoint", "kept")]
)
def test_where_nothing_can_be_written_is_said_at_once(tmp_path: Path, option: str, below: str) -> None:
    """A path whose folder cannot be made is one line, before TensorFlow is imported and anything is fitted."""
    taken = tmp_path / "file"
    taken.touch()
    said = refused(tmp_path, option, taken / "folder" / below)
    assert said.startswith(f"eddyline: {taken}: no file can be written there: Not a directory")


def test_examples_that_are_not_there_are_said_at_once(tmp_path: Path) -> None:
    """A wrong path is one line, before TensorFlow is imported."""
    said = refused(tmp_path, examples=tmp_path / "no.parquet")
    assert f"{tmp_path / 'no.parquet'}: no examples can be read there: No such file or directory" in said


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz", "events"])
def test_events_are_no_examples(tmp_path: Path, name: str) -> None:
    """Who trains on an event file is told how examples are made of it."""
    (tmp_path / name).write_text("{}")
    said = refused(tmp_path, examples=tmp_path / name)
    assert "`eddyline replay USECASE EVENTS --examples LOG`" in said


def test_what_fails_while_writing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the file system while training is one readable line, too, with exit code 2."""
    case, parquet = inputs(tmp_path, examples(50))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "bundle")

    monkeypatch.setattr(tensorflow("model.training"), "run", full)
    arguments = ["train", str(case), str(parquet), "--out", str(tmp_path / "bundle"), "--version", "1"]
    done = CliRunner().invoke(cli, arguments)
    assert (2, "eddyline: [Errno 28] No space left on device: 'bundle'") == (
        done.exit_code,
        done.stderr.strip(),
    )


def test_a_failure_is_one_readable_line(tmp_path: Path) -> None:
    """The command ends with 2 and a line that says where and what to do, and leaves no bundle."""
    case, parquet = inputs(tmp_path, examples(50))
    parquet.write_bytes(b"nothing of the kind")
    done = command(case, parquet, "--out", tmp_path / "bundle", "--version", "1")
    assert (2, "") == (done.returncode, done.stdout)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"eddyline: {parquet}: ")
    assert last.endswith("rebuild the dataset")
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_is_not_written_over(training: Any, tmp_path: Path) -> None:
    """The run refuses, before it reads or trains anything, to write where something is."""
    order = training.Order(usecase=tmp_path / "no.toml", examples="no.parquet", out=tmp_path, version="1")
    with pytest.raises(Exception, match="a bundle is written once, and this exists"):
        training.run(order, lambda _: None)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--epochs", "0"], "0 is not in the range x>=1"),
        (["--as-of", "tomorrow"], "'tomorrow' does not match the formats"),
        (["--ablation"], "--ablation goes into a report; name one with --report"),
    ],
)
def test_an_order_that_cannot_be_meant_is_refused(tmp_path: Path, option: list[str], message: str) -> None:
    """Mistaken options are refused at once, with the rule."""
    case, parquet = inputs(tmp_path, examples(50))
    done = command(case, parquet, "--out", tmp_path / "bundle", "--version", "1", *option)
    assert done.returncode == 2
    assert message in done.stderr
