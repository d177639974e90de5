"""The registry for people: a table of versions, one of them whole, two compared, the release log. For ``eddyline models``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.overview import LIVE, Detail, Difference, Gate, Row, Spell
from deploy.release import Change, Correction, Release, Role

WIDTH = 120  # characters, where there is no terminal to ask
ABSENT = "-"
_MEASURES = ("auc", "log_loss", "ece", "base_rate_log_loss", "base_rate", "rows", "validation_rows", "epochs")
_COLOURS = {Change.PROMOTE: "green", Change.ROLLBACK: "red", Change.CORRECT: "yellow", Change.PIN: "magenta"}


def console() -> Console:
    """A console as wide as the terminal, or ``WIDTH`` where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


def show_versions(rows: Sequence[Row], now: Release, where: str, to: Console) -> None:
    """Print a line a version, and what holds."""
    to.print(_plain(standing(now)))
    if not rows:
        to.print(
            _plain(f"No version is in {where}; `eddyline models add BUNDLE` brings one in."), soft_wrap=True
        )
        return
    to.print()
    table = _table("version", "created (UTC)", "AUC", "log-loss", "gate", "now", "live in releases")
    for row in rows:
        if row.problem:
            table.add_row(_plain(row.version), "", "", "", "", Text("unusable", "red"), _spells(row.live))
            continue
        table.add_row(
            _plain(row.version),
            when(row.created),
            _number(row.auc, ".4f"),
            _number(row.log_loss, ".4f"),
            _gate(row.gate),
            Text(_role(row), "green" if row.role == LIVE else ""),
            _spells(row.live),
        )
    to.print(table)
    for row in rows:
        if row.problem:
            to.print(_plain(row.problem), style="red")


def show_version(detail: Detail, to: Console) -> None:
    """Print all that is known of a version."""
    row = detail.row
    title = f"{row.version} of {row.usecase}, created {when(row.created)} UTC"
    to.print(_plain(f"{title}{f'; {_role(row)}' if row.role else ''}"), style="bold")
    to.print(
        _plain(
            f"digest {row.digest}; {detail.files} files, {detail.size:,} bytes, {detail.model_size:,} of them what "
            "workers load"
        )
    )
    if row.correction:
        to.print(_plain(f"Scores are corrected: {correction(row.correction)}."))
    for name, moment in detail.window.items():
        to.print(_plain(f"{name.replace('_', ' ')}: {when(moment)}"))
    if detail.metrics:
        to.print()
        table = _table("measured on days it had not seen", "value", "95 % interval")
        for name in (each for each in _MEASURES if each in detail.metrics):
            low, high = (detail.metrics.get(f"{name}_{end}") for end in ("low", "high"))
            between = f"{_value(low)} to {_value(high)}" if low is not None and high is not None else ""
            table.add_row(name.replace("_", " "), _value(detail.metrics[name]), between)
        to.print(table)
    to.print()
    _show_gate(detail.gate, to)
    if detail.releases:
        to.print()
        show_log(detail.releases, to)


def show_difference(found: Difference, to: Console) -> None:
    """Print two versions side by side."""
    table = _table("", found.a, found.b, "difference")
    for name, (a, b) in found.about.items():
        both = (a, b) if isinstance(a, int) and isinstance(b, int) else None
        table.add_row(name.replace("_", " "), *map(_cell, (a, b)), f"{both[1] - both[0]:+,}" if both else "")
    for name in (each for each in _MEASURES if each in found.metrics):
        left, right = found.metrics[name]
        change = right - left if left is not None and right is not None else 0.0
        sign = "+" if change > 0 else ""  # a minus comes by itself
        table.add_row(
            name.replace("_", " "), _value(left), _value(right), sign + _value(change) if change else ""
        )
    table.add_row("gate", *(_gate(None if each is None else each.passed) for each in found.gates), "")
    to.print(table)
    for name, (was, becomes) in found.features.items():
        what = "is new" if was is None else "is gone" if becomes is None else f"was {was}"
        to.print(_plain(f"feature {name} {what}{f' ({becomes})' if becomes else ''}"))
    if not found.features:
        to.print("The features are the same.")
    for name, gate in zip((found.a, found.b), found.gates, strict=True):
        if gate is not None:
            to.print()
            to.print(_plain(name), style="bold")
            _show_gate(gate, to)


def show_log(releases: Sequence[Release], to: Console) -> None:
    """Print a line a release, oldest first."""
    table = _table("release", "when (UTC)", "change", "live", "beside", "by", "reason")
    for each in releases:
        live, beside = each.live, each.beside
        table.add_row(
            str(each.number),
            when(each.created),
            Text(each.change, _COLOURS.get(each.change, "")),
            _plain(f"{live.version}{' corrected' if live.correction else ''}" if live else ABSENT),
            _plain(f"{beside.model.version}, {beside.role} {beside.share:.0%}" if beside else ""),
            _plain(each.by),
            _plain(each.reason),
        )
    to.print(table)


def standing(now: Release) -> str:
    """What holds, in a sentence or a few."""
    if now.number == 0:
        return "Nothing is released: scores are the declared priors."
    said = [f"{now.live.version if now.live else 'No version'} is live"]
    if now.live and now.live.correction:
        said.append(f"its scores are corrected, {correction(now.live.correction)}")
    if now.beside:
        does = {
            Role.SHADOW: "scores {share} of the users in the shadow",
            Role.CANARY: "serves {share} of the users",
            Role.PREVIOUS: "was live before and scores {share} of the users beside it",
        }[now.beside.role]
        said.append(f"{now.beside.model.version} {does.format(share=f'{now.beside.share:.0%}')}")
    if now.pinned:
        said.append("it is pinned: only people change it (`eddyline models unpin`)")
    return f"Release {now.number} of {when(now.created)} UTC, by {now.by}: {'; '.join(said)}."


def correction(of: Correction) -> str:
    """A correction in words."""
    return f"from {of.before:.1%} positive to {of.now:.1%} ({of.low:.1%} to {of.high:.1%}), by verdict {of.verdict}"


def when(moment: str) -> str:
    """An ISO 8601 moment as people read it, UTC; what is none stays as it is."""
    try:
        read = datetime.fromisoformat(moment if "T" in moment else "")
    except ValueError:
        return moment
    return read.replace(tzinfo=read.tzinfo or UTC).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _show_gate(gate: Gate | None, to: Console) -> None:
    if gate is None:
        to.print("No gate was asked about it.")
        return
    against = f" against {gate.champion}" if gate.champion else ""
    period = f", decisions of {when(gate.begin)} to {when(gate.end)}" if gate.begin else ""
    to.print(_plain(f"The gate {'let it pass' if gate.passed else 'refused it'}{against}{period}:"))
    for reason in gate.reasons:
        to.print(_plain(f"  {reason}"))
    if not gate.compared:
        return
    table = _table("decisions", "rows", "log-loss before", "log-loss", "difference", "95 % interval", "AUC")
    for each in gate.compared:
        between = f"{_signed(each.low)} to {_signed(each.high)}" if None not in {each.low, each.high} else ""
        table.add_row(
            _plain(f"{each.slice} = {each.value}" if each.slice else "all"),
            f"{each.rows:,}",
            _number(each.champion_log_loss, ".4f"),
            _number(each.challenger_log_loss, ".4f"),
            _signed(each.difference),
            between,
            " → ".join(_number(auc, ".4f") for auc in (each.champion_auc, each.challenger_auc)),
        )
    to.print(table)


def _table(*columns: str) -> Table:
    return Table(*map(_cleaned, columns), box=None, pad_edge=False, header_style="dim")


def _role(row: Row) -> str:
    share = f" {row.share:.0%}" if row.share is not None else ""
    return f"{row.role}{share}{', corrected' if row.correction else ''}"


def _gate(passed: bool | None) -> Text:
    return Text(ABSENT) if passed is None else Text("passed", "green") if passed else Text("refused", "red")


def _spells(spells: Sequence[Spell]) -> str:
    """Release numbers, such as ``1-4, 7-``."""
    return ", ".join(f"{each.first}-{each.last or ''}" for each in spells)


def _number(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+,.4f}"


def _value(value: float | None) -> str:
    """A measure: a count whole, anything else with four digits."""
    return (
        ABSENT
        if value is None
        else f"{value:,.0f}"
        if value.is_integer() and abs(value) > 1
        else f"{value:.4f}"
    )


def _cell(value: str | int | None) -> Text:
    return _plain(ABSENT if value is None else f"{value:,}" if isinstance(value, int) else when(value))


def _plain(text: str) -> Text:
    """``text`` without what a terminal would take for an order: names and reasons come from outside."""
    return Text(_cleaned(text))


def _cleaned(text: str) -> str:
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
