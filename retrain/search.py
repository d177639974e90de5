"""A search for better settings of the learner within a budget, off by default. Called by :mod:`retrain.pipeline`.

By Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), seeded; the extra ``tune`` installs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from model.examples import ExamplesError

Choice = Mapping[str, float | int]

#: Those of :class:`model.fitting.Settings`, which this module does not import: it would load TensorFlow.
DEFAULTS: Choice = {"learning_rate": 2e-3, "weight_decay": 0.3, "hidden": 0.05, "batch": 256}


class SearchError(RuntimeError):
    """There can be no search: what is missing, what to do."""


def search(
    objective: Callable[[Choice], float], trials: int, seconds: float, seed: int
) -> dict[str, float | int]:
    """The settings with the least ``objective``, such as a log-loss on later examples, of up to ``trials``.

    The defaults are tried first, whatever the budget, so that what is found is no worse by this measure. No trial begins
    after ``seconds``, but one that has begun ends. A trial that diverges, which is an
    :class:`~model.examples.ExamplesError`, counts as bad. Equal arguments
    give equal settings, unless time decides. Raises :class:`SearchError` without Optuna.
    """
    try:
        import optuna  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise SearchError(
            "[retrain] trials: a search needs Optuna, which is not installed; install eddyline[tune], or set trials to 0"
        ) from error

    def tried(trial: optuna.Trial) -> float:
        choice = {
            "learning_rate": trial.suggest_float("learning_rate", 2e-4, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 0.01, 1.0, log=True),
            "hidden": trial.suggest_float("hidden", 0.0, 0.2),
            "batch": trial.suggest_categorical("batch", [128, 256, 512]),
        }
        try:
            return objective(choice)
        except (
            ExamplesError
        ):  # as where every epoch's loss is NaN; if it is the examples, the fit after this says so
            return math.inf

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each trial otherwise
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(dict(DEFAULTS))
    study.optimize(tried, n_trials=1)
    first = study.trials[0].duration
    if trials > 1 and first is not None and first.total_seconds() < seconds:
        study.optimize(tried, n_trials=trials - 1, timeout=seconds - first.total_seconds())
    return dict(study.best_params)
