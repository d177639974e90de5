"""What the registry holds, as ``eddyline models`` tells it: values made from versions and releases. Pure.

:mod:`deploy.models_view` shows them to people; with ``--json`` they are printed as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from deploy.registry import Version
from deploy.release import Beside, Change, Correction, Placed, Release
from model.bundle import MODEL
from model.features import FeatureSpec


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a gate's decision, as far as it is shown: see ``retrain/gate.py``."""

    slice: str = ""
    value: str = ""
    rows: int = 0
    champion_log_loss: float | None = None
    challenger_log_loss: float | None = None
    champion_auc: float | None = None
    challenger_auc: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's decision, as far as it is shown."""

    passed: bool
    reasons: tuple[str, ...] = ()
    champion: str = ""
    margin: float | None = None
    begin: str = ""
    end: str = ""
    compared: tuple[Compared, ...] = ()


class Spell(msgspec.Struct, frozen=True):
    """A time that a version was live: from release ``first`` to ``last``, None while it is."""

    first: int
    last: int | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A version. ``role`` is what it scores as, empty if it does not; ``problem`` says why it cannot be read."""

    version: str
    digest: str = ""
    created: str = ""
    usecase: str = ""
    auc: float | None = None
    log_loss: float | None = None
    gate: bool | None = None  # whether it passed; none: it was not asked
    role: str = ""
    share: float | None = None
    correction: Correction | None = None
    live: tuple[Spell, ...] = ()
    problem: str = ""


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a version. ``size`` is in bytes, of the file that workers load and of all files."""

    row: Row
    window: dict[str, str]
    metrics: dict[str, float]
    model_size: int
    size: int
    files: int
    gate: Gate | None
    releases: tuple[Release, ...]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two versions: pairs of what ``a`` and ``b`` have, None where one has none."""

    a: str
    b: str
    about: dict[str, tuple[str | int | None, str | int | None]]
    metrics: dict[str, tuple[float | None, float | None]]
    features: dict[str, tuple[str | None, str | None]]
    gates: tuple[Gate | None, Gate | None]


LIVE = "live"


def gate_of(raw: bytes | None) -> Gate | None:
    """The decision in a ``gate.json``; None where there is none, or one of a kind that this program does not know."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Gate)
    except msgspec.DecodeError:
        return None


def rows(versions: Iterable[Version], problems: Mapping[str, str], releases: Sequence[Release]) -> list[Row]:
    """A row a version, by the time of their creation; ``problems`` are those of the others, which come last."""
    found = sorted(versions, key=lambda each: (each.created, each.version))
    made = [row(each, releases) for each in found]
    return made + [_placed(Row(version=name, problem=why), releases) for name, why in problems.items()]


def row(version: Version, releases: Sequence[Release]) -> Row:
    """What the list says of ``version``."""
    manifest, gate = version.manifest, gate_of(version.gate)
    return _placed(
        Row(
            version=version.version,
            digest=version.digest,
            created=version.created,
            usecase=manifest.usecase,
            auc=manifest.metrics.get("auc"),
            log_loss=manifest.metrics.get("log_loss"),
            gate=None if gate is None else gate.passed,
        ),
        releases,
    )


def detail(version: Version, releases: Sequence[Release]) -> Detail:
    """All of ``version``, with the releases that it came into, changed in or went in."""
    manifest = version.manifest
    return Detail(
        row=row(version, releases),
        window=manifest.window,
        metrics=manifest.metrics,
        model_size=manifest.files[MODEL].size if MODEL in manifest.files else 0,
        size=sum(file.size for file in manifest.files.values()),
        files=len(manifest.files),
        gate=gate_of(version.gate),
        releases=tuple(concerning(version.version, releases)),
    )


def difference(
    a: Detail, b: Detail, features_a: FeatureSpec | None, features_b: FeatureSpec | None
) -> Difference:
    """What differs between ``a`` and ``b``; metrics are given whether they differ or not."""
    columns = _columns(features_a), _columns(features_b)
    return Difference(
        a=a.row.version,
        b=b.row.version,
        about={
            name: (left, right)
            for name, left, right in (
                ("usecase", a.row.usecase, b.row.usecase),
                ("created", a.row.created, b.row.created),
                *((name, a.window.get(name), b.window.get(name)) for name in _both(a.window, b.window)),
                ("model bytes", a.model_size, b.model_size),
                ("bundle bytes", a.size, b.size),
                ("features", len(columns[0]), len(columns[1])),
            )
            if left != right
        },
        metrics={name: (a.metrics.get(name), b.metrics.get(name)) for name in _both(a.metrics, b.metrics)},
        features={
            name: (columns[0].get(name), columns[1].get(name))
            for name in _both(*columns)
            if columns[0].get(name) != columns[1].get(name)
        },
        gates=(a.gate, b.gate),
    )


def concerning(version: str, releases: Sequence[Release]) -> list[Release]:
    """The releases that changed something for ``version``: whether it is live, how it scores, its correction."""
    parts = [(None, None), *(_part(each, version) for each in releases)]
    return [each for each, before, after in zip(releases, parts, parts[1:], strict=False) if before != after]


def told(releases: Iterable[Release], *, claims: bool) -> list[Release]:
    """The releases that a person wants to see; ``claims`` of trainers only on demand."""
    return [each for each in releases if claims or each.change != Change.CLAIM]


def spells(version: str, releases: Sequence[Release]) -> tuple[Spell, ...]:
    """When ``version`` was live."""
    found: list[Spell] = []
    for release in releases:
        here = release.live is not None and release.live.version == version
        current = bool(found) and found[-1].last is None
        if here and not current:
            found.append(Spell(release.number, None))
        elif current and not here:
            found[-1] = Spell(found[-1].first, release.number - 1)
    return tuple(found)


def _placed(of: Row, releases: Sequence[Release]) -> Row:
    """``of`` with what the newest release makes of it."""
    replace = msgspec.structs.replace
    of = replace(of, live=spells(of.version, releases))
    newest = releases[-1] if releases else None
    if newest and newest.live and newest.live.version == of.version:
        return replace(of, role=LIVE, correction=newest.live.correction)
    if newest and newest.beside and newest.beside.model.version == of.version:
        beside = newest.beside
        return replace(of, role=beside.role.value, share=beside.share, correction=beside.model.correction)
    return of


def _part(release: Release, version: str) -> tuple[Placed | None, Beside | None]:
    """What ``version`` does in ``release``."""
    live, beside = release.live, release.beside
    return (
        live if live and live.version == version else None,
        beside if beside and beside.model.version == version else None,
    )


def _columns(spec: FeatureSpec | None) -> dict[str, str]:
    if spec is None:
        return {}
    categories = {each.name: f"category, {each.buckets} buckets" for each in spec.categorical}
    return dict.fromkeys(spec.numeric, "number") | categories


def _both(a: Iterable[str], b: Iterable[str]) -> list[str]:
    """The names of both, in the order that they stand in."""
    return list(dict.fromkeys([*a, *b]))
