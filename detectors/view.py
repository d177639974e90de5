"""The verdicts for people: a table, a time line, and one explained. ``eddyline drift`` and ``eddyline replay`` call."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from detectors.sentences import explained, watched, when
from detectors.verdict import Effect, Kind, Verdict

WIDTH = 100  # characters, where there is no terminal to ask
LINE = 60  # of a time line
BAR = 20  # of an effect of a standard deviation or more
LINES = 40  # episodes of a time line, at most: the latest

_COLOURS = {
    Kind.COVARIATE: "cyan",
    Kind.LABEL: "yellow",
    Kind.CONCEPT: "magenta",
    Kind.MIXED: "red",
    Kind.UNDETERMINED: "white",
    Kind.FAULT: "bold red",
}


class ViewError(ValueError):
    """What is wanted cannot be shown: why, and what to do."""


def console() -> Console:
    """A console as wide as the terminal, or ``WIDTH`` where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


def newest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Of each id the last revision, in order of the alarms."""
    found: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.id not in found or verdict.revision >= found[verdict.id].revision:
            found[verdict.id] = verdict
    return sorted(found.values(), key=lambda each: (each.alarmed, each.id))


def show(
    verdicts: Iterable[Verdict],
    wanted: str | None = None,
    *,
    as_json: bool = False,
    to: Console | None = None,
) -> None:
    """Print ``verdicts``, or explain the ``wanted`` one; raises :class:`ViewError` if it is none or several."""
    found = newest(verdicts)
    if wanted is not None:
        found = [_one(found, wanted)]
    if as_json:
        for each in found:
            sys.stdout.write(msgspec.json.encode(each).decode() + "\n")
        return
    to = to or console()
    if wanted is not None:
        _explain(found[0], to)
    elif found:
        to.print(_table(found))
        to.print(_timeline(found))
        to.print("`eddyline drift ID` explains one.", style="dim")
    else:
        to.print("No drift was found.")


def _one(found: Sequence[Verdict], wanted: str) -> Verdict:
    named = [each for each in found if each.id == wanted] or [
        each for each in found if each.id.startswith(wanted) or each.id.endswith(wanted)
    ]
    if len(named) != 1:
        known = ", ".join(each.id for each in (named or found)[-10:]) or "there are none"
        raise ViewError(
            f"an id is one that `eddyline drift` lists, its beginning or its end; {wanted!r} is that of {len(named)}: {known}"
        )
    return named[0]


def _table(found: Sequence[Verdict]) -> Table:
    table = Table(
        "id", "alarm (UTC)", "changed", "kind", "evidence", "labels", "response", box=None, pad_edge=False
    )
    for each in found:
        table.add_row(
            _plain(each.id),
            when(each.alarmed),
            when(each.changed),
            Text(each.kind, style=_COLOURS[each.kind]),
            f"10^{each.log10_e:.1f}/{each.log10_threshold:.1f}",
            f"{each.window.labels:,}",
            Text(f"{each.response.action}{'' if each.final else ' …'}"),
        )
    return table


def _timeline(found: Sequence[Verdict]) -> Text:
    """A line each: from when the world changed to the alarm."""
    shown = found[-LINES:]
    begin = min(each.changed for each in shown)
    span = max(1, max(each.alarmed for each in shown) - begin)
    text = Text(f"\n{when(begin)[:10]:{LINE - 10}}{when(begin + span)[:10]}\n", style="dim")
    for each in shown:
        first, last = (round((at - begin) / span * (LINE - 1)) for at in (each.changed, each.alarmed))
        first = min(first, last)
        line = " " * first + "─" * (last - first) + "●"
        text.append(f"{line:{LINE}} ", style=_COLOURS[each.kind])
        text.append(f"{_plain(each.id)}\n", style="default")
    text.append("─ from the change to ● its alarm\n", style="dim")
    return text


def _explain(verdict: Verdict, to: Console) -> None:
    title = _plain(f"{verdict.kind}: {watched(verdict)}")
    to.print(title.append(f"\n{_plain(verdict.id)}\n", style="dim"), style="bold")
    for heading, sentences in explained(verdict):
        to.print(Text(heading, style="bold"))
        for sentence in sentences:
            to.print(Padding(_plain(sentence), (0, 0, 0, 2)))
        to.print()
        if heading == "How the kind was told" and verdict.effects:
            to.print(Text("The columns that changed most", style="bold"))
            to.print(_effects(verdict.effects))
            to.print()


def _effects(effects: Sequence[Effect]) -> Table:
    table = Table(
        "  column", "shift (sd)", "", "distance", "p", "missing before", "now", box=None, pad_edge=False
    )
    for each in effects:
        bar = "█" * min(BAR, round(abs(each.shift) * BAR)) or "▏"
        table.add_row(
            _plain(f"  {each.column}"),
            f"{each.shift:+.2f}",
            Text(bar, style="green" if each.shift >= 0 else "red"),
            f"{each.distance:.3f}",
            f"{each.p:.2g}",
            f"{each.missing_before:.1%}",
            f"{each.missing:.1%}",
        )
    return table


def _plain(text: str) -> Text:
    """``text`` without what a terminal would take for an order: values come from the data."""
    return Text("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))
