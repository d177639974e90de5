"""Training: examples in; a model bundle, and a report on it, out. ``eddyline train`` runs it in a process of its own.

The model that is measured and the model that goes live are two. The first never saw the validation part, so the
metrics are what to expect of a model on days it has not seen; the second is fitted to the validation part as well, for
as many epochs as the first one needed, since the latest examples are the ones most like the days to come. On OULAD
this took the log-loss of the months after from .417 to .401.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from model import bundle, fitting, network, usecase

# isort: split
# After `network`, which says how TensorFlow is to start.
import keras
import tensorflow as tf

from model import analysis, baselines, reference, report
from model.checkpoint import Epoch
from model.evaluation import Evaluation, by_slice, evaluate, fitted_rate
from model.examples import Examples, read_examples
from model.features import FeatureSpec, Float32, feature_spec
from model.fitting import Report, Settings, predict
from model.normalisation import Normalisation
from model.scorer import LiteRTScorer
from model.split import Parts, window

GOLDEN_ROWS = 256
NETWORK = "network"  # its name among the baselines
_REPORTED = ("auc", "log_loss", "ece", "precision", "recall", "f1")


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A ``live`` Keras model, and what is known of it from its twin ``model``, which never saw the validation part.

    ``scores`` are [n] of the validation rows by name, ``evaluations`` by the same; ``network`` is the twin's. ``reference``
    are the rows that a monitor is to compare with; None for the validation rows.
    """

    live: Any
    model: Any
    parts: Parts
    epochs: list[Epoch]
    metrics: dict[str, float]
    scores: dict[str, Float32]
    evaluations: dict[str, Evaluation]
    reference: Examples | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to train, from what, and where to. ``as_of`` is ms, None for the time that the examples reach to.

    ``report`` is an HTML file, ``checkpoint`` a folder to go on from, if it holds anything.
    """

    usecase: Path
    examples: Path | str
    out: Path
    version: str
    settings: Settings = Settings()
    threshold: float = 0.5
    as_of: int | None = None
    report: Path | None = None
    ablation: bool = False
    checkpoint: Path | None = None


def train(
    parts: Parts,
    spec: FeatureSpec,
    sizes: usecase.Network,
    settings: Settings,
    tell: Report,
    *,
    threshold: float = 0.5,
    checkpoint: Path | None = None,
) -> Trained:
    """Fit a network to ``parts``, and baselines beside it, measure them on the validation part, and fit the live one.

    Equal arguments give equal weights on one machine. TensorFlow is told to be deterministic for the process.
    """
    tf.config.experimental.enable_op_determinism()
    model, found = fit(parts, spec, sizes, settings, tell, checkpoint=checkpoint)
    scorers: dict[str, baselines.Scorer] = {NETWORK: lambda examples: predict(model, spec, examples)}
    scorers |= baselines.fit(parts, spec, settings.seed)
    scores = {name: score(parts.validation) for name, score in scorers.items()}
    evaluations = {name: _evaluated(parts.validation, score, threshold) for name, score in scores.items()}
    return Trained(
        live=fit_live(parts, spec, sizes, settings, tell, epochs=found.epoch, checkpoint=checkpoint),
        model=model,
        parts=parts,
        epochs=found.epochs,
        metrics=_metrics(parts, evaluations, found.epoch),
        scores=scores,
        evaluations=evaluations,
    )


def fit(
    parts: Parts,
    spec: FeatureSpec,
    sizes: usecase.Network,
    settings: Settings,
    tell: Report,
    *,
    checkpoint: Path | None = None,
    start: Any | None = None,
    name: str = "validated",
) -> tuple[Any, fitting.Fitted]:
    """Fit a network to the fitting part alone, stopped by the validation part; it and what came of each epoch.

    With ``start``, an earlier Keras model, from its weights on; ``name`` is the checkpoint's file.
    """
    model, learnt = _built(parts.fitting, spec, sizes, settings, start)
    kept = checkpoint / f"{name}.npz" if checkpoint else None
    found = fitting.fit(
        model, spec, parts.fitting, settings, tell, validation=parts.validation, resume=kept, learnt=learnt
    )
    return model, found


def fit_live(
    parts: Parts,
    spec: FeatureSpec,
    sizes: usecase.Network,
    settings: Settings,
    tell: Report,
    *,
    epochs: int,
    checkpoint: Path | None = None,
    start: Any | None = None,
    name: str = "live",
) -> Any:
    """A network fitted to all of ``parts`` for so many ``epochs``; nothing is left of them that could judge it.

    ``start`` and ``name`` are as in :func:`fit`.
    """
    model, learnt = _built(parts.whole, spec, sizes, settings, start)
    kept = checkpoint / f"{name}.npz" if checkpoint else None
    fitting.fit(model, spec, parts.whole, settings, tell, epochs=epochs, resume=kept, learnt=learnt)
    return model


def _built(
    rows: Examples, spec: FeatureSpec, sizes: usecase.Network, settings: Settings, start: Any | None
) -> tuple[Any, network.Known | None]:
    with tf.distribute.get_strategy().scope():
        scaling = Normalisation.of(rows.numeric)
        rate = fitted_rate(rows.label, rows.sample_weight, rows.importance)
        model = network.build(spec, sizes, scaling, base_rate=rate, seed=settings.seed)
        return model, None if start is None else network.continued(model, start)


def _evaluated(rows: Examples, score: Float32, threshold: float) -> Evaluation:
    """The same resamples for every model, so that their intervals differ by the models alone."""
    rng = np.random.default_rng(0)
    return evaluate(rows.label, score, rows.user, threshold, rng)


def _metrics(parts: Parts, evaluations: dict[str, Evaluation], epochs: int) -> dict[str, float]:
    """The manifest's flat table; what could not be measured is not in it."""
    metrics: dict[str, float] = {
        "rows": len(parts.fitting),
        "purged_rows": parts.purged,
        "validation_rows": len(parts.validation),
        "live_rows": len(parts.whole),
        "base_rate": fitted_rate(parts.fitting.label, parts.fitting.sample_weight),
        "validation_base_rate": evaluations[NETWORK].base_rate.value,
        "epochs": epochs,
    }
    for name, evaluation in evaluations.items():
        prefix = "" if name == NETWORK else f"{name}_"
        for measure in _REPORTED:
            found = getattr(evaluation, measure)
            metrics[f"{prefix}{measure}"] = found.value
            if name == NETWORK:
                metrics |= {f"{measure}_low": found.low, f"{measure}_high": found.high}
    return {name: float(value) for name, value in metrics.items() if not math.isnan(value)}


def golden_rows(trained: Trained, spec: FeatureSpec, seed: int) -> bundle.Golden:
    """Rows spread over the validation time, a quarter with values made missing and the last with nothing else."""
    validation = trained.parts.validation
    chosen = np.linspace(0, len(validation) - 1, GOLDEN_ROWS).astype(int)
    numeric, categorical = validation.numeric[chosen], validation.categorical[chosen]
    random = np.random.default_rng(seed)
    quarter = np.arange(GOLDEN_ROWS)[:, None] % 4 == 3  # [n, 1]
    numeric[quarter & (random.random(numeric.shape) < 0.5)] = np.nan
    categorical[quarter & (random.random(categorical.shape) < 0.5)] = 0
    numeric[-1], categorical[-1] = np.nan, 0
    score = np.asarray(trained.live(network.inputs(spec, numeric, categorical), training=False))[:, 0]
    return bundle.Golden(numeric, categorical, score)


def reference_rows(
    trained: Trained, spec: FeatureSpec, policy: usecase.Drift, seed: int
) -> reference.Reference:
    """What the drift monitor compares with, with the scores of the model that goes live."""
    rows = trained.parts.validation if trained.reference is None else trained.reference
    return reference.sample(rows, predict(trained.live, spec, rows), policy, seed, trained.parts.whole)


def challenger(
    twin: Any,
    live: Any,
    parts: Parts,
    spec: FeatureSpec,
    found: fitting.Fitted,
    others: dict[str, Float32],
    reference: Examples,
) -> Trained:
    """What a job made, to be written and reported: ``twin`` and ``others``' scores are measured on the validation part."""
    scores = {NETWORK: predict(twin, spec, parts.validation), **others}
    evaluations = {name: _evaluated(parts.validation, score, 0.5) for name, score in scores.items()}
    return Trained(
        live=live,
        model=twin,
        parts=parts,
        epochs=found.epochs,
        metrics=_metrics(parts, evaluations, found.epoch),
        scores=scores,
        evaluations=evaluations,
        reference=reference,
    )


def alone(model: Any, spec: FeatureSpec, sizes: usecase.Network) -> Any:
    """A copy of ``model`` that belongs to no strategy, and so can be saved and exported by one process alone."""
    scaling = Normalisation.of(np.zeros((1, len(spec.numeric)), np.float32))
    copy = network.build(spec, sizes, scaling)
    copy.set_weights(model.get_weights())
    return copy


def earlier(directory: Path) -> Any:
    """The Keras model of the bundle at ``directory``, to go on from."""
    return keras.saving.load_model(directory / bundle.KERAS, compile=False)


def write(
    trained: Trained, case: usecase.UseCase, out: Path, *, version: str, created: str, seed: int
) -> None:
    """Export to a new bundle at ``out``, which appears only once LiteRT has loaded it and scored as Keras does."""
    spec = feature_spec(case)
    with bundle.writing(out) as directory:
        trained.live.save(directory / bundle.KERAS)
        trained.live.export(directory / bundle.SAVED_MODEL, verbose=False)
        trained.live.export(directory / bundle.MODEL, format="litert", verbose=False)
        bundle.write_features(directory, spec)
        bundle.write_golden(directory, golden_rows(trained, spec, seed))
        reference.write(directory, reference_rows(trained, spec, case.drift, seed))
        manifest = bundle.Manifest(
            usecase=case.name,
            version=version,
            created=created,
            metrics=trained.metrics,
            window=trained.parts.times,
            buckets=bundle.BUCKETS,
        )
        bundle.write_manifest(directory, manifest)
        LiteRTScorer.load(directory)


def run(order: Order, tell: Report) -> dict[str, float]:
    """Do what ``order`` says, telling ``tell`` of each epoch, and return the metrics of the bundle's manifest.

    Raises :class:`~model.usecase.UseCaseError`, :class:`~model.examples.ExamplesError`,
    :class:`~model.bundle.BundleError` and :class:`~model.checkpoint.CheckpointError`.
    """
    bundle.check_new(order.out)
    case = usecase.load(order.usecase)
    spec = feature_spec(case)
    parts = window(read_examples(order.examples, spec), case.training, order.as_of)
    settings = msgspec.structs.replace(order.settings, balance=case.training.balance)
    trained = train(
        parts, spec, case.model, settings, tell, threshold=order.threshold, checkpoint=order.checkpoint
    )
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write(trained, case, order.out, version=order.version, created=created, seed=settings.seed)
    if order.report:
        told = findings(
            trained,
            case,
            settings,
            version=order.version,
            created=created,
            threshold=order.threshold,
            ablation=order.ablation,
        )
        page = report.html(told)
        order.report.parent.mkdir(parents=True, exist_ok=True)
        order.report.write_text(page, encoding="utf-8")
    return trained.metrics


def findings(
    trained: Trained,
    case: usecase.UseCase,
    settings: Settings,
    *,
    version: str,
    created: str,
    threshold: float = 0.5,
    ablation: bool = False,
) -> report.Findings:
    """All that the report tells; what each feature is worth is found out here."""
    spec, parts = feature_spec(case), trained.parts
    rows, score = parts.validation, trained.scores[NETWORK]
    rng = np.random.default_rng(settings.seed)
    columns = {category.name: rows.categories[:, j] for j, category in enumerate(spec.categorical)}
    sliced = {
        name: by_slice(column, rows.label, score, rows.user, threshold, rng)
        for name, column in columns.items()
        if name in case.quality.slices
    }

    def refitted(parts: Parts, spec: FeatureSpec, seed: int) -> Float32:
        changed = msgspec.structs.replace(settings, seed=seed)
        model, _ = fit(parts, spec, case.model, changed, lambda _: None)
        return predict(model, spec, parts.validation)

    def scorer(rows: Examples) -> Float32:
        return predict(trained.model, spec, rows)

    return report.Findings(
        usecase=case.name,
        version=version,
        created=created,
        threshold=threshold,
        parts=parts,
        epochs=trained.epochs,
        scores=trained.scores,
        evaluations=trained.evaluations,
        slices=sliced,
        importance=analysis.importance(scorer, rows, spec, rng),
        ablation=analysis.ablation(refitted, case, parts, score, settings.seed) if ablation else [],
    )
