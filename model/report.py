"""The training report: one HTML file that needs nothing else, for the person who decides about a model.

Called by :mod:`model.training`; the page is ``report.html.j2`` beside this file, its plots are SVG within it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import msgspec
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from model.analysis import Ablation, Importance
from model.checkpoint import Epoch
from model.evaluation import CALIBRATION_BINS, Evaluation, reliability
from model.examples import Examples
from model.features import Float32
from model.split import Parts, iso

Array = NDArray[Any]

NETWORK, CHAMPION = "network", "champion"
POINTS = 400  # of a curve; more would only make the file larger
INK = "#767b86"  # readable on white and on black
COLOURS = {
    NETWORK: "#2f7de1",
    CHAMPION: "#c8334a",
    "boosting": "#e08a1e",
    "logistic": "#2ca58d",
    "heuristic": "#b05cc9",
    "base_rate": INK,
}
# A fixed salt and no date: equal findings give equal bytes. Text stays text, to be searched and read aloud.
SETTINGS: Any = {
    "svg.hashsalt": "eddyline",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that the report tells: of ``scores`` [n] of the validation rows, by model, and what they are worth.

    ``slices`` holds the network's evaluation by feature and value; an empty ``ablation`` was not asked for. Beside the
    network are its baselines, or the champion that it was to beat.
    """

    usecase: str
    version: str
    created: str
    threshold: float
    parts: Parts
    epochs: list[Epoch]
    scores: dict[str, Float32]
    evaluations: dict[str, Evaluation]
    slices: dict[str, dict[str, Evaluation]]
    importance: list[Importance]
    ablation: list[Ablation]


def html(findings: Findings) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = "{:,}".format
    page = environment.get_template("report.html.j2")
    return page.render(
        found=findings, plots=_plots(findings), network=NETWORK, bins=CALIBRATION_BINS, iso=iso
    )


def _plots(found: Findings) -> dict[str, Markup]:
    rows = found.parts.validation
    drawn: dict[str, tuple[tuple[float, float], Callable[[Axes], None]]] = {
        "window": ((9.0, 1.5), lambda axes: _window(axes, found.parts)),
        "reliability": ((4.3, 3.6), lambda axes: _reliability(axes, rows, found.scores)),
        "roc": ((4.3, 3.6), lambda axes: _roc(axes, rows, found.scores)),
        "precision": ((4.3, 3.6), lambda axes: _precision(axes, rows, found.scores)),
        "scores": ((4.3, 3.6), lambda axes: _distribution(axes, rows, found.scores[NETWORK])),
        "curve": ((4.3, 3.0), lambda axes: _curve(axes, found.epochs)),
        "importance": (
            (9.0, 0.5 + 0.24 * len(found.importance)),
            lambda axes: _importance(axes, found.importance),
        ),
    }
    return {name: svg(size, draw) for name, (size, draw) in drawn.items()}


def svg(size: tuple[float, float], draw: Callable[[Axes], None]) -> Markup:
    """The drawing that ``draw`` makes, of ``size`` in inches, as an ``svg`` element; the figure belongs to no window, so nothing is left open."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return Markup(text[text.index("<svg") :])  # noqa: S704 - matplotlib escapes the text it draws


def _window(axes: Axes, parts: Parts) -> None:
    """Decisions a day by what became of them."""
    day = 86_400_000
    first = int(parts.whole.time[0])
    shown = {
        "fitted": parts.fitting.time,
        "purged": parts.whole.time[len(parts.fitting) : len(parts.whole) - len(parts.validation)],
        "validated": parts.validation.time,
    }
    days = max(1, (int(parts.whole.time[-1]) - first) // day + 1)
    edges = np.linspace(first, first + days * day, min(days, 180) + 1)
    for (name, times), colour in zip(shown.items(), (COLOURS[NETWORK], INK, "#e08a1e"), strict=True):
        if len(times):
            axes.hist(_dates(times), bins=_dates(edges).tolist(), color=colour, label=name)
    axes.set_ylabel("decisions")
    axes.legend(loc="upper left", ncols=3, bbox_to_anchor=(0, 1.35))


def _dates(ms: Array) -> Array:
    return np.asarray(ms, np.int64).astype("datetime64[ms]")


def _reliability(axes: Axes, rows: Examples, scores: dict[str, Float32]) -> None:
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    for name in (NETWORK, CHAMPION, "boosting", "logistic"):
        if name not in scores:
            continue
        found = reliability(rows.label, scores[name])
        seen = found.weight > 0
        axes.plot(
            found.score[seen],
            found.rate[seen],
            "o-",
            color=COLOURS[name],
            label=name.replace("_", " "),
            markersize=3,
        )
    axes.set(xlabel="score", ylabel="share of positive outcomes", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def _curves(rows: Examples, score: Float32) -> tuple[Array, Array]:
    """True and false positives [n + 1], as counts, when rows are called positive from the highest score down."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # rows of one score are called together
    positive = np.cumsum(rows.label[order], dtype=np.float64)[last]
    negative = np.cumsum(1 - rows.label[order], dtype=np.float64)[last]
    return np.append(0.0, positive), np.append(0.0, negative)


def _thinned(*curves: Array) -> list[Array]:
    chosen = np.unique(np.linspace(0, len(curves[0]) - 1, POINTS).astype(int))
    return [curve[chosen] for curve in curves]


def _roc(axes: Axes, rows: Examples, scores: dict[str, Float32]) -> None:
    for name, score in scores.items():
        positive, negative = _curves(rows, score)
        axes.plot(
            *_thinned(negative / negative[-1], positive / positive[-1]),
            color=COLOURS[name], label=name.replace("_", " "), linewidth=1.8 if name == NETWORK else 1,
        )  # fmt: skip
    axes.set(xlabel="false positive rate", ylabel="true positive rate (recall)", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower right")


def _precision(axes: Axes, rows: Examples, scores: dict[str, Float32]) -> None:
    for name, score in scores.items():
        positive, negative = (curve[1:] for curve in _curves(rows, score))
        axes.plot(
            *_thinned(positive / positive[-1], positive / np.maximum(positive + negative, 1e-12)),
            color=COLOURS[name], label=name.replace("_", " "), linewidth=1.8 if name == NETWORK else 1,
        )  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left")


def _distribution(axes: Axes, rows: Examples, score: Float32) -> None:
    for label, name, colour in ((1, "positive", COLOURS[NETWORK]), (0, "negative", "#e08a1e")):
        chosen = rows.label == label
        axes.hist(score[chosen], bins=np.linspace(0, 1, 41).tolist(), color=colour, alpha=0.6, label=name)
    axes.set(xlabel="score", ylabel="decisions", xlim=(0, 1))
    axes.legend(title="outcome")


def _curve(axes: Axes, epochs: list[Epoch]) -> None:
    numbers = [each.epoch for each in epochs]
    axes.plot(numbers, [each.loss for each in epochs], "o-", color=INK, label="fitted", markersize=3)
    losses = [np.nan if each.validation_log_loss is None else each.validation_log_loss for each in epochs]
    axes.plot(numbers, losses, "o-", color=COLOURS[NETWORK], label="validated", markersize=3)
    best = max(each.epoch for each in epochs if each.best)
    axes.axvline(best, color=INK, linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="log-loss")
    axes.legend()


def _importance(axes: Axes, importance: list[Importance]) -> None:
    shown = importance[::-1]
    axes.barh(
        [each.feature for each in shown], [each.log_loss for each in shown],
        xerr=[each.spread for each in shown], color=COLOURS[NETWORK], ecolor=INK,
    )  # fmt: skip
    axes.set_xlabel("log-loss added by shuffling the feature")
    axes.margins(y=0.01)
