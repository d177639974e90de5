"""The use case: one TOML file that says which events there are, what is decided, and from which features.

Everything that consumes, scores, trains or checks starts from :func:`load`. A broken file never
starts anything: :class:`UseCaseError` names the file, the line, the rule, what came and the fix.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from model.mistakes import advice, keys_of, line_of

NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)([smhdw])$")

ContextKind = Literal["number", "category"]
Field = Literal["item", "value"]


class Duration(float):
    """A length of time in seconds, written in the file as ``"90s"``, ``"15m"``, ``"12h"``, ``"7d"`` or ``"2w"``."""

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Seconds of ``text``; raises :class:`ValueError` with the rule when it is not a positive duration."""
        found = _DURATION.match(text) if isinstance(text, str) else None
        if found is None or float(found[1]) <= 0:
            raise ValueError(f'expected a duration such as "90s", "15m", "12h", "7d" or "2w", got {text!r}')
        return cls(float(found[1]) * _UNITS[found[2]])


class UseCaseError(ValueError):
    """The use case cannot be used: ``path:line: rule, what came, what to do``."""

    def __init__(self, path: Path | str, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")
        self.path, self.line = str(path), line


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: unknown keys are refused."""


class EventType(_Table, frozen=True):
    """An event type. ``requires`` lists the optional fields that this type must carry."""

    description: str = ""
    requires: tuple[Field, ...] = ()


class Decision(_Table, frozen=True):
    """A decision: an event at which a score is wanted, and the outcomes that say whether it was right.

    The label is positive when one of ``outcome`` happens for the same user (and, with ``match = "item"``, the
    same item) within ``window`` of event time. ``outcome`` is an event type, or several with the weight that an
    example with such an outcome gets: ``outcome = { bought = 5.0, viewed = 1.0 }``; of several that happened the
    largest counts, and a negative example weighs 1. ``lateness`` is how far behind its partition's latest event a
    late outcome, or a decision that comes after its outcome, may arrive and still count: longer keeps labels
    waiting, and more of them right. ``prior`` is the score while there is no model: the share of positive outcomes
    that the owner expects.
    """

    outcome: str | dict[str, Annotated[float, msgspec.Meta(gt=0, le=1e6)]]
    window: Duration
    match: Literal["item", "user"] = "item"
    lateness: Duration = Duration(0)
    prior: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5

    @property
    def outcomes(self) -> dict[str, float]:
        """The weight of each outcome's event type."""
        return {self.outcome: 1.0} if isinstance(self.outcome, str) else self.outcome


class DecayedCount(_Table, frozen=True, tag_field="kind", tag="decayed_count"):
    """Number of ``events``, each weighing half as much every ``half_life``."""

    events: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    half_life: Duration


class DecayedSum(_Table, frozen=True, tag_field="kind", tag="decayed_sum"):
    """Sum of the ``value`` of ``events``, each weighing half as much every ``half_life``."""

    events: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    half_life: Duration


class Ratio(_Table, frozen=True, tag_field="kind", tag="ratio"):
    """One decayed feature divided by another; missing while the divisor is 0."""

    numerator: str
    denominator: str


class Recency(_Table, frozen=True, tag_field="kind", tag="recency"):
    """Seconds since the latest of ``events``; missing before the first."""

    events: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class LastValue(_Table, frozen=True, tag_field="kind", tag="last_value"):
    """The ``value`` of the latest of ``events`` in event time; missing before the first."""

    events: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class DistinctItems(_Table, frozen=True, tag_field="kind", tag="distinct_items"):
    """About how many different items ``events`` named: linear counting on ``bits`` bits (Whang et al. 1990).

    The standard error is about 3 % of 100 items with 256 bits; the largest answer is ``bits * ln(bits)``.
    """

    events: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    bits: Literal[64, 128, 256, 512, 1024] = 256


class Tenure(_Table, frozen=True, tag_field="kind", tag="tenure"):
    """Seconds since the user's first event of any type; missing at the first."""


class TimeOfDay(_Table, frozen=True, tag_field="kind", tag="time_of_day"):
    """The decision's time of day (UTC) as two numbers, sine and cosine of its angle."""


class Value(_Table, frozen=True, tag_field="kind", tag="value"):
    """The decision event's own ``value``."""


class Context(_Table, frozen=True, tag_field="kind", tag="context"):
    """A field of the decision event's ``context``; a category is hashed into ``buckets`` embedding rows."""

    field: str
    buckets: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)] = 64


class Item(_Table, frozen=True, tag_field="kind", tag="item"):
    """The decision event's item, hashed into ``buckets`` embedding rows."""

    buckets: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)] = 1024


Feature = (
    DecayedCount
    | DecayedSum
    | Ratio
    | Recency
    | LastValue
    | DistinctItems
    | Tenure
    | TimeOfDay
    | Value
    | Context
    | Item
)


class Network(_Table, frozen=True):
    """Sizes of the model: embedding width, number and rank of cross layers, widths of the dense layers."""

    embedding: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    cross_layers: Annotated[int, msgspec.Meta(ge=0, le=8)] = 2
    cross_rank: Annotated[int, msgspec.Meta(ge=1, le=512)] = 16
    dense: tuple[Annotated[int, msgspec.Meta(ge=1, le=4096)], ...] = (64, 32)


class Training(_Table, frozen=True):
    """How models are trained: on the decisions of the last ``train`` before those of the last ``validate``.

    The validation part, all of it later, stops the fitting early and gives the metrics. A history shorter than
    both is divided in their proportion. ``balance`` weighs both labels alike while fitting, for rare outcomes, and
    then corrects the score back to the real base rate.
    """

    train: Duration = Duration(270 * 86400)
    validate: Duration = Duration(90 * 86400)
    balance: bool = False


class Quality(_Table, frozen=True):
    """How quality is watched online: over about the last ``examples`` matured decisions, and by each value of ``slices``.

    A slice is a categorical feature. More ``examples`` are steadier and slower to show a change.
    """

    slices: tuple[str, ...] = ()
    examples: Annotated[int, msgspec.Meta(ge=100)] = 5000


Witness = Literal[
    "ks",
    "cvm",
    "chi2",
    "tabular",
    "classifier",
    "chi2_label",
    "fet_label",
    "ks_score",
    "cvm_online",
    "fet_online",
    "adwin",
    "page_hinkley",
    "kswin",
    "ddm",
    "hddm_a",
    "hddm_w",
]


class Drift(_Table, frozen=True):
    """How drift is watched for, in each model and in each value of its ``slices``.

    ``events_between_false_alarms`` is the mean number of monitored decisions between two false alarms of one model,
    over all that is watched in it: fewer find drift sooner. A user gives one monitored decision a ``block`` at most,
    because the decisions of one visit are alike, and what is alike raises false alarms; of all users about ``samples``
    decisions a block are monitored. They are watched when the block is over, in random order, so that what comes and
    goes within it (day and night) is no drift: a shorter block finds drift sooner, where there is no such rhythm. A model brings a ``reference`` of so many decisions to compare with. After an alarm
    the type of the drift is told from ``labels`` decisions whose outcome is known, and called refuted where its test
    gives less than ``alpha``. ``witnesses`` are detectors of alibi-detect and river whose evidence stands beside ours.

    ``label_free`` says that when the scores alone have changed the owner takes it for a change of the base rate, unless the
    fit refutes that: the prior is then corrected at once, without labels. A covariate shift along the score looks the
    same, and there the correction does harm until labels withdraw it; so it is off unless declared.
    """

    events_between_false_alarms: Annotated[int, msgspec.Meta(ge=100, le=1_000_000_000)] = 50_000
    block: Duration = Duration(86400)
    samples: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 10_000
    reference: Annotated[int, msgspec.Meta(ge=500, le=50_000)] = 5000
    labels: Annotated[int, msgspec.Meta(ge=400, le=50_000)] = 1000
    alpha: Annotated[float, msgspec.Meta(gt=0, le=0.1)] = 0.01
    slices: tuple[str, ...] = ()
    witnesses: tuple[Witness, ...] = ("ks", "chi2", "classifier", "chi2_label", "ks_score", "adwin")
    label_free: bool = False


class Retrain(_Table, frozen=True):
    """When a new model is trained, and what it must show before it goes live, and after.

    Verdicts on drift and people ask for training; with ``every``, so does the calendar; and so does ``growth``, once so many
    labels became known since the live model was trained, as a share of the rows that it was trained on (0: never). What a
    model loses for want of examples falls with their number, so early on more of them are worth more than any drift is,
    and later on this is a calendar in units of data: docs/backtest.md. Training begins no sooner than
    ``cooldown`` after the last one ended, costs at most ``budget`` of training a day, and waits for ``labels`` examples whose label is known since
    the change. A challenger goes live if its log-loss, on later decisions that no model has seen, is nowhere worse than
    the live model's by more than ``margin``: a wider one lets more through. Before that it goes through ``stages``,
    each for ``stage_labels`` labels: in the ``shadow`` it scores a ``share`` of the users and nobody sees it, as a
    ``canary`` it serves that share. Once live it is watched: the model before scores that share as well, for ``watch_labels`` labels,
    and comes back if the new one is worse. With ``trials`` so many settings of the learner are tried first.
    """

    every: Duration | None = None
    cooldown: Duration = Duration(86400)
    budget: Duration = Duration(4 * 3600)
    labels: Annotated[int, msgspec.Meta(ge=100, le=10_000_000)] = 1000
    growth: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1 / 3
    margin: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.005
    stages: tuple[Literal["shadow", "canary"], ...] = ()
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    stage_labels: Annotated[int, msgspec.Meta(ge=100)] = 1000
    watch_labels: Annotated[int, msgspec.Meta(ge=100)] = 20_000
    trials: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0


class Profile(_Table, frozen=True):
    """How long a profile lives: ``idle_after`` without an event it is forgotten."""

    idle_after: Duration = Duration(400 * 86400)


class UseCase(_Table, frozen=True):
    """A validated use case; see the module docstring and ``examples/oulad/usecase.toml``."""

    name: str
    events: dict[str, EventType]
    decisions: dict[str, Decision]
    features: dict[str, Feature]
    context: dict[str, ContextKind] = {}
    profile: Profile = Profile()
    model: Network = Network()
    training: Training = Training()
    quality: Quality = Quality()
    drift: Drift = Drift()
    retrain: Retrain = Retrain()


def load(path: Path | str) -> UseCase:
    """Read and validate the use case at ``path``; raises :class:`UseCaseError` naming line and fix."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UseCaseError(path, 1, f"the use case cannot be read: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path | str = "<use case>") -> UseCase:
    """Validate the TOML ``text``; ``path`` only names it in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise UseCaseError(path, int(found[1]) if found else 1, f"not valid TOML: {error}") from error
    try:
        usecase = msgspec.convert(table, UseCase, dec_hook=_decode)
    except msgspec.ValidationError as error:
        keys, message = keys_of(error, table, _ENTRIES, _decode), advice(error)
        if message.startswith("invalid value") and keys[:1] == ("features",):
            known = ", ".join(sorted(str(struct.__struct_config__.tag) for struct in Feature.__args__))
            message = f"{message}; `kind` is one of {known}"
        raise UseCaseError(path, line_of(text, keys), f"{'.'.join(keys)}: {message}") from error
    for keys, message in _problems(usecase):
        raise UseCaseError(path, line_of(text, keys), f"{'.'.join(keys)}: {message}")
    return usecase


def _decode(kind: type, value: Any) -> Any:
    if kind is Duration:
        return Duration.parse(value)
    raise NotImplementedError(kind)


_ENTRIES: dict[str, Any] = {
    "events": EventType,
    "decisions": Decision,
    "features": Feature,
    "context": ContextKind,
}


Problem = tuple[tuple[str, ...], str]


def _problems(usecase: UseCase) -> Iterator[Problem]:
    """What the types alone cannot refuse, each with the key it stands at and the fix."""
    if not NAME.match(usecase.name.replace("-", "_")):
        yield ("name",), f"a name is lower case letters, digits, - and _, got {usecase.name!r}"
    for table in ("events", "decisions", "features", "context"):
        names = getattr(usecase, table)
        if not names and table != "context":
            yield (table,), f"at least one of [{table}.NAME] is needed; add it"
        for name in names:
            if not NAME.match(name):
                yield (table, name), "a name is lower case letters, digits and _, from a letter, up to 63"
    for name, decision in usecase.decisions.items():
        yield from _decision_problems(usecase, name, decision)
    for name, feature in usecase.features.items():
        yield from _feature_problems(usecase, ("features", name), feature)
    yield from _slice_problems(usecase)


def _slice_problems(usecase: UseCase) -> Iterator[Problem]:
    for table, slices in (("quality", usecase.quality.slices), ("drift", usecase.drift.slices)):
        for name in slices:
            if not is_category(usecase, name):
                known = ", ".join(name for name in usecase.features if is_category(usecase, name))
                yield (
                    (table, "slices"),
                    f"`{name}` is not a categorical feature; the categorical ones: {known or 'none is declared'}",
                )


def _decision_problems(usecase: UseCase, name: str, decision: Decision) -> Iterator[Problem]:
    yield from _unknown(usecase, ("decisions", name), [name])
    yield from _unknown(usecase, ("decisions", name, "outcome"), decision.outcomes)
    if not decision.outcomes:
        yield ("decisions", name, "outcome"), "at least one outcome is needed; name an event type"
    if name in decision.outcomes:
        yield (
            ("decisions", name, "outcome"),
            "a decision cannot be its own outcome; name another event type",
        )


def is_category(usecase: UseCase, name: str) -> bool:
    """Whether ``name`` is a categorical feature of ``usecase``."""
    feature = usecase.features.get(name)
    return isinstance(feature, Item) or (
        isinstance(feature, Context) and usecase.context.get(feature.field) == "category"
    )


def _unknown(usecase: UseCase, keys: tuple[str, ...], names: Iterable[str]) -> Iterator[Problem]:
    for name in names:
        if name not in usecase.events:
            known = ", ".join(sorted(usecase.events))
            yield keys, f"`{name}` is not an event type; declare [events.{name}] or use one of {known}"


def _feature_problems(usecase: UseCase, at: tuple[str, ...], feature: Feature) -> Iterator[Problem]:
    if isinstance(feature, TimeOfDay):
        for column in (f"{at[-1]}_sin", f"{at[-1]}_cos"):
            if column in usecase.features:
                yield (
                    ("features", column),
                    f"`{at[-1]}` has a column of that name already; rename one of them",
                )
    elif isinstance(feature, Ratio):
        for side in ("numerator", "denominator"):
            name = getattr(feature, side)
            if not isinstance(usecase.features.get(name), DecayedCount | DecayedSum):
                yield (*at, side), f"`{name}` is not a decayed_count or decayed_sum feature; name one"
    elif isinstance(feature, Context):
        if feature.field not in usecase.context:
            yield (
                (*at, "field"),
                f"`{feature.field}` is not a context field; declare it in [context] as number or category",
            )
    elif not isinstance(feature, Tenure | Value | Item):
        yield from _unknown(usecase, (*at, "events"), feature.events)
