"""``make bench-quality``: how good the scores are on the Open University data, beside boosting and logistic regression.

``python -m tests.bench.quality --data DIR`` prints a table and writes ``bench/results/quality.json``, and with
``quality.html`` the report of the frozen model. DIR holds the OULAD tables; without it, it is the sample, one module.

*Frozen*: models that are fitted to what was known at 2014-02-01, and score every later decision. *Monthly*: at the
start of each month from then on they are fitted anew to what is known then, and score the decisions of that month. Both
are judged by outcomes that came later than anything they were fitted to or chosen by, and network, boosting and logistic
regression see the same rows. The replay is timed with the frozen model in it,
from the file on, in this process on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from deploy.live import Scorer
from deploy.settings import Events
from model import baselines, training, usecase
from model.evaluation import auc, calibration_error, log_loss
from model.examples import Examples, read_examples
from model.features import FeatureSpec, Float32, feature_spec
from model.fitting import Settings, predict
from model.scorer import LiteRTScorer
from model.split import Parts, window
from stream.files import merged, survey
from stream.replay import Replay, examples_of
from tests.bench import report
from tests.bench.report import ROOT

USECASE = ROOT / "examples" / "oulad" / "usecase.toml"
FROZEN = datetime(2014, 2, 1, tzinfo=UTC)
SEED = 0
MODELS = (training.NETWORK, "boosting", "logistic")
MEASURES: dict[str, Callable[[Float32, Float32], float]] = {
    "auc": auc,
    "logloss": log_loss,
    "ece": calibration_error,
}
Scores = dict[str, Float32]


def converted(data: Path, directory: Path) -> Path:
    """Write the tables in ``data`` to ``directory`` as events and return that file."""
    events = directory / "events.jsonl"
    command = [sys.executable, "-m", "examples.oulad.convert", str(data.resolve()), str(events)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return events


def replayed(case: usecase.UseCase, events: Path, directory: Path) -> Path:
    """Write the examples that ``events`` come to as Parquet into ``directory`` and return that file."""
    examples = directory / "examples.parquet"
    pq.write_table(examples_of(case, Replay(case, Events(), None).run(_chunks(events), _now())), examples)
    return examples


def timed_replay(case: usecase.UseCase, events: Path, scorer: Scorer) -> tuple[float, int]:
    """Replay the file ``events`` with ``scorer`` on one core, as `eddyline replay` does; seconds, and how many they are."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        begin = time.perf_counter()
        results = Replay(case, Events(), scorer).run(_chunks(events), _now())
        count = sum(processed.records for processed in results)
        return time.perf_counter() - begin, count
    finally:
        os.sched_setaffinity(0, allowed)


def _chunks(events: Path) -> Iterator[list[bytes]]:
    return merged([survey(events)])


def _now() -> int:
    return int(time.time() * 1000)


def closed(examples: Path, spec: FeatureSpec) -> Examples:
    """Return the examples whose window had closed when the events ended; of later ones only positives are there."""
    known = read_examples(examples, spec)
    return known[known.closes <= known.closes[known.label == 0].max()]


def frozen(case: usecase.UseCase, examples: Path, bundle: Path) -> tuple[Scores, Examples]:
    """Train the frozen models, write the ``bundle`` and the report, and score all decisions from then on."""
    spec = feature_spec(case)
    order = training.Order(
        usecase=USECASE,
        examples=examples,
        out=bundle,
        version=f"{FROZEN:%Y-%m-%d}",
        settings=Settings(seed=SEED),
        as_of=_ms(FROZEN),
        report=report.RESULTS / "quality.html",
        ablation=True,
    )
    training.run(order, lambda _: None)
    known = closed(examples, spec)
    later = known[known.time >= _ms(FROZEN)]
    parts = window(known, case.training, _ms(FROZEN))
    scores = {training.NETWORK: LiteRTScorer.load(bundle).score(later.numeric, later.categorical)}
    return scores | _beside(parts, spec, later), later


def monthly(case: usecase.UseCase, known: Examples) -> tuple[Scores, Examples]:
    """Train anew as of the start of each month, and score that month's decisions."""
    spec, settings = feature_spec(case), Settings(seed=SEED, balance=case.training.balance)
    chunks: list[Scores] = []
    for begin, end in _months(known):
        here = known[(known.time >= begin) & (known.time < end)]
        if not len(here):
            continue
        parts = window(known, case.training, begin)
        _, found = training.fit(parts, spec, case.model, settings, lambda _: None)
        live = training.fit_live(parts, spec, case.model, settings, lambda _: None, epochs=found.epoch)
        chunks.append({training.NETWORK: predict(live, spec, here)} | _beside(parts, spec, here))
    scores = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in MODELS}
    return scores, known[known.time >= _ms(FROZEN)]


def _beside(parts: Parts, spec: FeatureSpec, rows: Examples) -> Scores:
    fitted = baselines.fit(parts, spec, SEED, live=True)
    return {name: fitted[name](rows) for name in MODELS if name in fitted}


def _months(known: Examples) -> Iterator[tuple[int, int]]:
    """Begin and end (ms) of each month from :data:`FROZEN` to the last decision."""
    begin = FROZEN
    while _ms(begin) <= known.time[-1]:
        end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
        yield _ms(begin), _ms(end)
        begin = end


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def figures(name: str, scores: Scores, rows: Examples) -> dict[str, float]:
    """Return the measures of every model on ``rows`` as ``MEASURE_NAME`` and ``MEASURE_NAME_MODEL``."""
    return {
        f"{measure}_{name}" + ("" if model == training.NETWORK else f"_{model}"): of(rows.label, score)
        for model, score in scores.items()
        for measure, of in MEASURES.items()
    }


def shown(found: dict[str, float]) -> Table:
    """Return the table to print."""
    table = Table("", *(f"{name} {measure}" for name in ("frozen", "monthly") for measure in MEASURES))
    for model in MODELS:
        ending = "" if model == training.NETWORK else f"_{model}"
        cells = [found[f"{measure}_{name}{ending}"] for name in ("frozen", "monthly") for measure in MEASURES]
        table.add_row(model, *(f"{cell:.4f}" for cell in cells))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quality", description="Measure the scores.")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "examples" / "oulad" / "data", help="folder of the OULAD tables"
    )
    data: Path = parser.parse_args(arguments).data
    console = Console(highlight=False)
    case = usecase.load(USECASE)
    report.RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-quality-") as temporary:
        directory = Path(temporary)
        events = converted(data, directory)
        examples = replayed(case, events, directory)
        known = closed(examples, feature_spec(case))
        console.print(f"{len(known):,} examples, {known.base_rate:.1%} of them positive")
        begin = time.perf_counter()
        scores, later = frozen(case, examples, directory / "bundle")
        found = figures("frozen", scores, later)
        console.print(f"frozen: trained and reported in {time.perf_counter() - begin:.0f} s")
        found |= figures("monthly", *monthly(case, known))
        seconds, count = timed_replay(case, events, LiteRTScorer.load(directory / "bundle"))
    found |= {"replay_seconds": seconds, "replay_events": count, "examples": len(known)}
    console.print(shown(found))
    console.print(f"replayed {count:,} events with their scores in {seconds:.1f} s on one core")
    path = report.RESULTS / "quality.json"
    versions = report.versions(("tensorflow-cpu", "keras", "scikit-learn"))
    content = {**found, "versions": versions, "machine": report.machine()}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
