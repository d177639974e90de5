"""Plots of a data dictionary, each as inline SVG that reads on light and dark ground.

Text stays text, in the page's own colour; nothing global of matplotlib is touched.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from stream.candidates import WINDOWS, Candidate
from stream.tallies import EventKind, Field

INK = "#808080"  # replaced by the page's text colour in text; lines keep it
COLOURS = ("#4C8DD6", "#E0853A", "#3FA66B", "#C65B8A", "#8F7CC9", "#B59A2E")
WIDTH = 8.0  # inches, scaled to the page
TYPES, NUMBERS, HEAT_FIELDS = 8, 12, 24  # shown at most
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "eddyline",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "grid.color": INK,
    "grid.alpha": 0.25,
}


def _figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).ravel())


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has the font
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def events_a_day(kinds: Mapping[str, EventKind]) -> str:
    """Events by day, or by week of a span beyond 400 days, of the most frequent types."""
    shown = dict(list(kinds.items())[:TYPES])
    first, last = (f(f(kind.days) for kind in shown.values()) for f in (min, max))
    step = 7 if last - first > 400 else 1
    edges = np.arange(first, last + step, step)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.6 + 0.75 * len(shown), rows=len(shown), sharex=True)
        for at, (ax, (name, kind)) in enumerate(zip(axes, shown.items(), strict=True)):
            days = np.array(list(kind.days))
            counts = np.bincount((days - first) // step, list(kind.days.values()), len(edges))
            colour = COLOURS[at % len(COLOURS)]
            ax.fill_between(edges.astype("datetime64[D]"), counts, step="post", color=colour, linewidth=0)
            ax.set_title(_short(name), pad=2)
            ax.set_ylim(0)
            ax.yaxis.set_major_formatter(FuncFormatter(_number))
            ax.locator_params(axis="y", nbins=2)
        figure.supylabel("events a week" if step == 7 else "events a day", size=9)
        return _svg(figure)


def week(kinds: Mapping[str, EventKind]) -> str:
    """Events of all types by weekday and hour."""
    counts = np.sum([kind.week for kind in kinds.values()], axis=0)  # [7, 24]
    with mpl.rc_context(_STYLE):
        figure, (ax,) = _figure(2.2)
        _heat(ax, counts / counts.sum(), ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], None)
        ax.set_xticks(range(0, 24, 3), [f"{hour:02d}" for hour in range(0, 24, 3)])
        ax.set_xlabel("hour (UTC)")
        return _svg(figure)


def events_a_user(counts: NDArray[np.int64]) -> str:
    """How many users have how many events, in steps of a factor of two."""
    powers = np.bincount(np.floor(np.log2(counts)).astype(np.int64))
    with mpl.rc_context(_STYLE):
        figure, (ax,) = _figure(2.2)
        ax.bar(range(len(powers)), powers / powers.sum(), width=0.9, color=COLOURS[0])
        labels = [
            f"{2**p:,}" if p == 0 else f"{2**p:,}\N{EN DASH}{2 ** (p + 1) - 1:,}" for p in range(len(powers))
        ]
        ax.set_xticks(range(len(powers)), labels, rotation=35, ha="right", rotation_mode="anchor")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set_xlabel("events")
        ax.set_ylabel("share of users")
        return _svg(figure)


def outcome_curves(candidates: Sequence[Candidate]) -> str:
    """The share of decisions with their outcome, by window; a dot is the window proposed."""
    with mpl.rc_context(_STYLE):
        figure, (ax,) = _figure(3.0)
        for each, colour in zip(candidates, COLOURS, strict=False):
            name = f"{_short(each.decision)} \N{RIGHTWARDS ARROW} {_short(each.outcome)}, same {each.match}"
            ax.plot(range(len(WINDOWS)), each.curve, color=colour, label=name)
            ax.plot(WINDOWS.index(each.window), each.rate, "o", color=colour)
        ax.set_xticks(range(len(WINDOWS)), WINDOWS)
        ax.set_xlabel("within")
        ax.set_ylim(0, 1)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.grid(axis="y")
        figure.legend(loc="outside right upper")
        return _svg(figure)


def present(kinds: Mapping[str, EventKind]) -> str:
    """The share of events that have a field, by type and field; the fullest is never missing."""
    names = list(dict.fromkeys(name for kind in kinds.values() for name in kind.fields))[:HEAT_FIELDS]
    shares = np.array(
        [
            [1 - kind.fields[name].missing if name in kind.fields else 0.0 for name in names]
            for kind in list(kinds.values())[: 2 * TYPES]
        ]
    )  # [types, fields]
    with mpl.rc_context(_STYLE):
        figure, (ax,) = _figure(0.9 + 0.28 * len(shares))
        _heat(ax, shares, list(kinds)[: 2 * TYPES], 1.0)
        ax.set_xticks(range(len(names)), map(_short, names), rotation=35, ha="right", rotation_mode="anchor")
        for (row, column), share in np.ndenumerate(shares):
            if 0 < share < 1:
                ax.text(column, row, _percent(share), ha="center", va="center", size=7)
        return _svg(figure)


def distributions(fields: Mapping[str, Field]) -> str:
    """Histograms of numeric fields, from the sampled values, between their 0.5 % and 99.5 % quantiles."""
    shown = list(fields.items())[:NUMBERS]
    rows = math.ceil(len(shown) / 3)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.3 + 1.4 * rows, rows=rows, columns=3)
        for ax, (name, field) in zip(axes, shown, strict=False):
            low, high = np.quantile(field.sample, (0.005, 0.995))
            inside = field.sample[(field.sample >= low) & (field.sample <= high)]
            bins = min(30, max(1, len(np.unique(inside))))
            ax.hist(inside, bins=bins, weights=np.full(len(inside), 1 / len(field.sample)), color=COLOURS[0])
            ax.set_title(_short(name), pad=2)
            ax.xaxis.set_major_formatter(FuncFormatter(_number))
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            ax.locator_params(axis="x", nbins=4)
            ax.locator_params(axis="y", nbins=3)
        for ax in axes[len(shown) :]:
            ax.set_axis_off()
        return _svg(figure)


def _heat(ax: Axes, shares: NDArray[np.float64], rows: Sequence[str], top: float | None) -> None:
    """Cells whose opacity is their share, so that they fit either ground."""
    height, width = shares.shape
    scaled = shares / (top or max(float(shares.max()), 1e-12))
    for (row, column), share in np.ndenumerate(scaled):
        ax.add_patch(
            mpl.patches.Rectangle(
                (column - 0.48, row - 0.46), 0.96, 0.92, facecolor=COLOURS[0], alpha=0.06 + 0.9 * float(share)
            )
        )
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_yticks(range(height), list(map(_short, rows)))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(b=False)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}\N{HORIZONTAL ELLIPSIS}"


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else ">99%" if share > 0.99 else f"{share:.0%}"


def _number(value: float, _at: int | None = None) -> str:
    """1500 as 1.5k."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
