"""The chronicle: one HTML page of what a system lived through - quality over time, verdicts, retrains, releases.

``eddyline chronicle`` and the demo write it, from the example log, the release log and the topics ``drift`` and
``retrains``. Beside the quality of the scores that were served stands that of the first model, had it stayed: the log has
each decision's features, so it is scored anew. The page is ``chronicle.html.j2`` beside this file, and needs nothing else.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from numpy.typing import NDArray

from deploy.consumer import read_to_end
from deploy.registry import Registry
from deploy.release import Change, Release
from deploy.settings import Settings
from model.evaluation import auc, log_loss
from model.example_log import ExampleLogError, read_table
from model.examples import ExamplesError, read_examples
from model.features import FeatureSpec, Float32, feature_spec
from model.report import INK, svg
from model.scorer import LiteRTScorer
from model.split import iso
from model.usecase import UseCase

Json = Mapping[str, Any]
FROZEN, SERVED = "#c8334a", "#2f7de1"
KINDS = {
    "covariate": "#4269d0",
    "label": "#b8860b",
    "concept": "#ff725c",
    "mixed": "#a463f2",
    "data-fault": "#222222",
    "undetermined": "#9498a0",
}
POINTS = 40  # of the timeline, at most
LEAST = 100  # decisions behind a point


class ChronicleError(RuntimeError):
    """There is nothing to tell of: what is missing, what to do."""


class Decisions(msgspec.Struct, frozen=True):
    """Decisions in order of time (ms) with their label, the score that was served and the version that gave it, all [n].

    ``frozen`` is what the first model gives them.
    """

    time: NDArray[np.int64]
    label: Float32
    served: Float32
    model: NDArray[np.object_]
    frozen: Float32


class Quality(msgspec.Struct, frozen=True):
    """Log-loss and AUC of the scores served, and of the first model's, over the same decisions; AUC is NaN for one label."""

    decisions: int
    served: float
    frozen: float
    served_auc: float
    frozen_auc: float


class Chronicle(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page tells. ``verdicts`` and ``retrains`` are the newest record of each id, as on their topics."""

    usecase: str
    first: str  # the first model's version
    decisions: Decisions
    verdicts: Sequence[Json]
    retrains: Sequence[Json]
    releases: Sequence[Release]

    @property
    def since(self) -> dict[int, int]:
        """Of each release that brought a version to life, by number, the first decision's time that it served, ms."""
        found: dict[int, int] = {}
        for release in self.releases:
            if release.live is not None and release.change in {Change.PROMOTE, Change.ROLLBACK}:
                own = self.decisions.time[self.decisions.model == release.live.version]
                after = max(found.values(), default=0)
                if len(own := own[own > after]):
                    found[release.number] = int(own[0])
        return found


def gather(usecase: UseCase, settings: Settings) -> Chronicle:
    """What happened to ``usecase`` where ``settings`` point.

    Raises :class:`ChronicleError`, :class:`deploy.registry.RegistryError` and :class:`deploy.consumer.ConsumerError`.
    """
    registry = Registry.of(settings.registry)
    releases = registry.releases()
    live = [release.live for release in releases if release.live is not None]
    if not live:
        raise ChronicleError(
            f"{settings.registry.url}: nothing was released; correct registry.url, or release a model with `eddyline models`"
        )
    return Chronicle(
        usecase=usecase.name,
        first=live[0].version,
        decisions=read_decisions(settings.sink.log, feature_spec(usecase), registry.fetch(live[0])),
        verdicts=_newest(settings, settings.topics.drift, lambda each: each["id"]),
        retrains=_newest(settings, settings.topics.retrains, lambda each: each["request"]["id"]),
        releases=releases,
    )


def _newest(settings: Settings, topic: str, identity: Callable[[Json], str]) -> list[Json]:
    """The newest record of each identity on ``topic``, in the order in which the first ones came."""
    found: dict[str, Json] = {}
    for message in read_to_end(settings.kafka, topic):
        value = message.value()
        if value:
            record: Json = msgspec.json.decode(value)
            found[identity(record)] = record
    return list(found.values())


def read_decisions(log: str, spec: FeatureSpec, first: Path) -> Decisions:
    """The decisions in the example log at ``log``, scored anew by the bundle ``first``; raises :class:`ChronicleError`."""
    try:
        table = read_table(log)
        if not len(table):
            raise ChronicleError(
                f"{log}: there are no examples yet; wait until labels have matured, or correct sink.log"
            )
        table = table.sort_by([("time", "ascending"), ("id", "ascending")])  # the order of `examples`
        # Of one reading: a sink may write to the log in between.
        with tempfile.TemporaryDirectory() as folder:
            pq.write_table(table, Path(folder) / "read.parquet")
            examples = read_examples(Path(folder) / "read.parquet", spec)
    except (ExamplesError, ExampleLogError) as error:
        raise ChronicleError(str(error)) from error
    return Decisions(
        time=examples.time,
        label=examples.label,
        served=table.column("score").to_numpy().astype(np.float32),
        model=np.array(table.column("model").to_pylist(), np.object_),
        frozen=LiteRTScorer.load(first).score(examples.numeric, examples.categorical),
    )


def quality(decisions: Decisions, chosen: NDArray[np.bool_] | slice = slice(None)) -> Quality:
    """What the scores of ``chosen`` decisions are worth."""
    label, served, frozen = (each[chosen] for each in (decisions.label, decisions.served, decisions.frozen))
    both = 0 < label.sum() < len(label)
    return Quality(
        len(label),
        log_loss(label, served),
        log_loss(label, frozen),
        auc(label, served) if both else float("nan"),
        auc(label, frozen) if both else float("nan"),
    )


def html(told: Chronicle, created: str) -> str:
    """The page, made at the moment ``created``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = "{:,}".format
    environment.filters["iso"] = iso
    decisions, since = told.decisions, told.since
    changed = min((at for number, at in since.items() if number > min(since)), default=None)
    return environment.get_template("chronicle.html.j2").render(
        told=told,
        created=created,
        since=since,
        colours=KINDS,
        whole=quality(decisions),
        after=None if changed is None else quality(decisions, decisions.time >= changed),
        changed=changed,
        timeline=svg((9.5, 3.4), lambda axes: _timeline(axes, told)),
    )


def _timeline(axes: Axes, told: Chronicle) -> None:
    """Log-loss served and frozen over time, verdicts as marks below, releases as lines."""
    decisions = told.decisions
    points = max(1, min(POINTS, len(decisions.time) // LEAST))
    edges = np.linspace(decisions.time[0], decisions.time[-1] + 1, points + 1)
    cut = np.searchsorted(decisions.time, edges)
    middles, served, frozen = [], [], []
    for begin, end in itertools.pairwise(cut):
        if end - begin >= LEAST // 2:
            found = quality(decisions, slice(int(begin), int(end)))
            middles.append(int(decisions.time[(begin + end) // 2]))
            served.append(found.served)
            frozen.append(found.frozen)
    axes.plot(_dates(middles), frozen, "o-", color=FROZEN, label=f"model {told.first}, frozen", markersize=3)
    axes.plot(_dates(middles), served, "o-", color=SERVED, label="served", markersize=3)
    low = min([*served, *frozen])
    for verdict in told.verdicts:
        at = _dates([max(int(verdict["alarmed"]), int(decisions.time[0]))])[0]
        axes.plot([at], [low], "v", color=KINDS.get(verdict["kind"], INK), markersize=7, clip_on=False)
    top = max([*served, *frozen])
    for number, moment in told.since.items():
        release = next(each for each in told.releases if each.number == number)
        at = _dates([moment])[0]
        axes.axvline(at, color=INK, linewidth=0.9, linestyle="--")
        version = "" if release.live is None else release.live.version
        axes.text(at, top, f" {version}", va="top", fontsize=8)
    axes.set_ylabel("log-loss")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)


def _dates(ms: Sequence[int]) -> NDArray[Any]:
    return np.asarray(ms, np.int64).astype("datetime64[ms]")
