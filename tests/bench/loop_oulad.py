"""``make bench-loop``, its part on real decisions: a model that is retrained when that is called for, beside a monthly one.

On the Open University's data the first model knows what 2013B told. Every later decision is scored under each of four
policies, by what was known when it was taken (:mod:`detectors.backtest`):

- *frozen*: the first model scores all;
- *monthly*: a new one every 30 days;
- *triggered*: the trainer's own policy, ``loop`` of the backtest: verdicts, and much new data;
- *online*: the best of river's learners (:mod:`tests.bench.loop_online`), which learn each label when it is known.

``python -m tests.bench.loop_oulad --data DIR --learner boosting`` runs it alone. All trainings of the
network, some 25 of half a minute to a minute each on two quiet cores, and river's learners, minutes each, take about 40
minutes; a forest of a hundred trees instead of ten would take hours.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from detectors import backtest_learners
from detectors.backtest import Fitted, Learner, Policy, Scorer, backtest
from detectors.backtest_log import settled
from detectors.backtest_summary import Summary, summary
from model import fitting, training, usecase
from model.evaluation import auc, log_loss
from model.examples import Examples, read_examples
from model.features import feature_spec
from model.split import Parts, iso
from stream.sampling import Sampling
from tests.bench import loop_online
from tests.bench.quality import SEED, USECASE, converted, replayed
from tests.bench.report import ROOT

# All labels of 2013B are known from 2013-09-02 on; the first decision of 2013J is of 2013-10-10.
BEGIN = int(datetime(2013, 10, 1, tzinfo=UTC).timestamp() * 1000)
# So few decisions a week that the first 300 after an alarm, which are searched for data faults, are of two weeks or more: in
# one week all are about one or two assessments, and columns that say which look frozen. Set before policies were compared.
SAMPLES, LABELS = 200, 500
POLICIES = {"frozen": "never", "monthly": "every=30d", "triggered": "loop"}
NETWORK, BOOSTING = "network", "boosting"

Figures = dict[str, float]


def measure(data: Path | None, learner: str = NETWORK) -> Figures:
    """The figures of ``data``, a folder of OULAD's tables, or of the repository's sample, one module; prints a table."""
    console = Console(highlight=False)
    case = declared()
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as temporary:
        directory = Path(temporary)
        events = converted(data or ROOT / "examples" / "oulad" / "data", directory)
        examples = settled(read_examples(replayed(case, events, directory), feature_spec(case)))
    later = examples[examples.time >= BEGIN]
    console.print(f"{len(later):,} decisions from {iso(later.time[0])} to {iso(later.time[-1])}, {learner}")
    found: Figures = {"decisions": len(later), "base_rate": later.base_rate}
    summaries = retrained(case, examples, later, learner, console)
    for name, each in summaries.items():
        found |= {
            f"auc_{name}": np.nan if each.auc is None else each.auc,
            f"logloss_{name}": each.log_loss,
            f"retrains_{name}": each.retrains,
            f"rows_{name}": each.rows_trained_on,
            f"seconds_{name}": each.training_seconds,
        }
    losses = {}
    for name, make in loop_online.LEARNERS.items():
        learned = loop_online.live(make, examples, BEGIN)
        losses[name] = log_loss(later.label, learned.score)
        own = {
            "auc": auc(later.label, learned.score),
            "logloss": losses[name],
            "seconds": learned.seconds,
        }
        found |= {
            f"{measure}_online_{name.lower().replace(' ', '_')}": value for measure, value in own.items()
        }
        if losses[name] == min(losses.values()):
            found |= {f"{measure}_online": value for measure, value in own.items()}
        console.print(f"{name}: log-loss {losses[name]:.4f}, AUC {own['auc']:.4f}, {learned.seconds:.0f} s")
    console.print(shown(found, min(losses, key=lambda name: losses[name])))
    return found


def declared() -> usecase.UseCase:
    """The use case of the data, watched as it was for all six modules; the example's own settings are for one."""
    case = usecase.load(USECASE)
    drift = msgspec.structs.replace(case.drift, samples=SAMPLES, labels=LABELS)
    return msgspec.structs.replace(case, drift=drift)


def retrained(
    case: usecase.UseCase, examples: Examples, later: Examples, learner: str, console: Console
) -> dict[str, Summary]:
    """What each policy came to, by its name here."""
    sampling = Sampling(case.drift, partitions=1)
    monitored = np.array(
        [
            sampling.take(str(user), at)
            for user, at in zip(examples.user.tolist(), examples.time.tolist(), strict=True)
        ]
    )
    policies = [(name, Policy.parse(text)) for name, text in POLICIES.items()]
    learn = told(_learner(case, learner), console)
    runs = backtest(case, examples, monitored, BEGIN, policies, learn)
    found = {run.name: summary(run, later) for run in runs}
    for name, each in found.items():
        at = ", ".join(iso(model.at)[:10] for model in each.models[1:]) or "never"
        console.print(f"{name}: log-loss {each.log_loss:.4f}, AUC {each.auc or np.nan:.4f}; trained {at}")
    return found


def told(learn: Learner, console: Console) -> Learner:
    """``learn``, which says how long each training took."""

    def training_(parts: Parts) -> Fitted:
        fitted = learn(parts)
        console.print(f"as of {iso(parts.as_of)[:10]}: {len(parts.whole):,} rows in {fitted.seconds:.1f} s")
        return fitted

    return training_


def _learner(case: usecase.UseCase, name: str) -> Learner:
    spec = feature_spec(case)
    if name == BOOSTING:
        return backtest_learners.boosting(spec, SEED)
    settings = fitting.Settings(seed=SEED, balance=case.training.balance)

    def fit(parts: Parts) -> Scorer:
        _, found = training.fit(parts, spec, case.model, settings, lambda _: None)
        live = training.fit_live(parts, spec, case.model, settings, lambda _: None, epochs=found.epoch)
        return lambda rows: fitting.predict(live, spec, rows)

    return backtest_learners.timed(fit)


def shown(found: Figures, online: str) -> Table:
    """The table to print; ``online`` is the best of river's learners."""
    table = Table("", "AUC", "log-loss", "retrains", "seconds")
    for name, title in {**{name: name for name in POLICIES}, "online": f"online: {online}"}.items():
        retrains = f"{found[f'retrains_{name}']:.0f}" if f"retrains_{name}" in found else "-"
        table.add_row(
            title,
            f"{found[f'auc_{name}']:.4f}",
            f"{found[f'logloss_{name}']:.4f}",
            retrains,
            f"{found[f'seconds_{name}']:,.0f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.loop_oulad", description="Compare policies.")
    parser.add_argument("--data", type=Path, help="folder of the OULAD tables")
    parser.add_argument("--learner", choices=(NETWORK, BOOSTING), default=NETWORK)
    given = parser.parse_args(arguments)
    measure(given.data, given.learner)


if __name__ == "__main__":
    main()
