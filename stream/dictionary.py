"""The data dictionary of an event file: what :mod:`stream.explore` found, as Markdown and as one HTML page.

Both show the same :class:`Section` values through ``dictionary.md.j2`` and ``dictionary.html.j2``; the page has plots.
Names and values from the data are escaped in both.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
import markupsafe
import msgspec
import numpy as np
import rich.table
import rich.text

from stream import plots
from stream.candidates import HOLDS, WINDOWS, Candidate
from stream.explore import MAX_TYPES, Findings
from stream.tallies import QUANTILES, Field

SHOWN = 12  # candidates
DRAWN = 5  # of them
VALUES = 5  # of a field
NOTHING = "-"
_TEMPLATES = Path(__file__).parent


class Table(msgspec.Struct, frozen=True):
    """Rows [r] of cells [c] under their head [c]; ``numeric`` columns are set to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


class Section(msgspec.Struct, frozen=True):
    """A part of the dictionary: text, a table, and plots with their titles."""

    title: str
    text: str
    table: Table | None = None
    plots: tuple[tuple[str, str], ...] = ()  # title, SVG


def dictionary(findings: Findings, candidates: Sequence[Candidate], files: Sequence[str]) -> tuple[str, str]:
    """The data dictionary of ``files`` as (Markdown, HTML); the HTML needs no other file."""
    sections = [
        _overview(findings),
        _refused(findings),
        _types(findings),
        _users(findings),
        _outcomes(candidates),
        _fields(findings),
    ]
    shown = [section for section in sections if section is not None]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"cell": _cell, "svg": markupsafe.Markup}
    values = {"files": files, "sections": shown}
    return (
        environment.get_template("dictionary.md.j2").render(values),
        environment.get_template("dictionary.html.j2").render(values),
    )


def summary(findings: Findings, candidates: Sequence[Candidate]) -> rich.table.Table:
    """The event types with the best outcome of each, for a terminal."""
    table = rich.table.Table(
        title=f"{findings.events:,} events of {findings.users:,} users, {_time(findings.first)[:10]} to {_time(findings.last)[:10]}",
        caption=f"{findings.lines - findings.events:,} lines are no events"
        if findings.lines > findings.events
        else None,
    )
    table.add_column("type")
    table.add_column("events", justify="right")
    table.add_column("users", justify="right")
    table.add_column("best outcome")
    for name in ("within", "rate", "score"):
        table.add_column(name, justify="right")
    for name, kind in findings.kinds.items():
        outcome = _best([each for each in candidates if each.decision == name])
        table.add_row(*map(rich.text.Text, (name, f"{kind.count:,}", f"{kind.users:,}", *outcome)))
    return table


def _best(candidates: Sequence[Candidate]) -> tuple[str, str, str, str]:
    """The cells of the first of the outcomes; only where no other is left has it something against it."""
    if not candidates:
        return "none", "", "", ""
    best = candidates[0]
    doubtful = "doubtful: " if best.against else ""
    name = f"{doubtful}{best.outcome}, same {best.match}"
    return name, best.window, _percent(best.rate), f"{best.score:.2f}"


def _overview(findings: Findings) -> Section:
    order, sample = findings.order, findings.histories
    bad = sum(refused.count for refused in findings.refused.values())
    about = "" if findings.ids_share == 1 else f", from {_percent(findings.ids_share)} of the ids"
    late = "none"
    if order.late:
        late = (
            f"{order.late:,} ({_percent(order.late / findings.events)}): 99 % of them by up to {_span(order.p99_s)}, "
            f"the furthest by {_span(order.most_s)}"
        )
    rows = (
        ("lines", f"{findings.lines:,}"),
        ("of them no events", f"{bad:,} ({_percent(bad / findings.lines)})"),
        ("events", f"{findings.events:,}"),
        (
            "event types",
            f"{len(findings.kinds):,}" + (f", the first {MAX_TYPES}" if findings.undescribed else ""),
        ),
        ("users", f"{findings.users:,}"),
        ("from", _time(findings.first)),
        ("to", _time(findings.last)),
        ("ids that came before", f"{_percent(findings.duplicates)}{about}"),
        ("events behind the latest before them", late),
        ("users whose histories were kept", f"{_percent(sample.share)} of all, {len(sample.users):,} events"),
    )
    text = (
        "Counts of different users, items and values are exact up to 8,192 and then estimates with a standard error "
        "of at most 1.6 %. Times are UTC. Each file is taken as one log, so lateness is that of a line behind the "
        "lines above it. What needs a user's whole history rests on a sample of users by hash, where not all were kept."
    )
    return Section("Overview", text, Table(("", ""), rows))


def _refused(findings: Findings) -> Section | None:
    if not findings.refused:
        return None
    rows = tuple(
        (reason.value, f"{each.count:,}", each.where, each.detail)
        for reason, each in findings.refused.items()
    )
    text = "These lines do not meet the event contract; a worker would dead-letter them for the same reasons."
    return Section(
        "Lines that are no events", text, Table(("reason", "lines", "first", "detail"), rows, _right(1))
    )


def _types(findings: Findings) -> Section:
    rows = tuple(
        (
            name,
            f"{kind.count:,}",
            _percent(kind.count / findings.events),
            f"{kind.users:,}",
            f"{kind.a_day:,.1f}",
            _time(kind.first)[:10],
            _time(kind.last)[:10],
            f"{kind.empty_days:,}",
            f"{kind.silence:,}",
        )
        for name, kind in findings.kinds.items()
    )
    head = (
        "type",
        "events",
        "share",
        "users",
        "a day",
        "first",
        "last",
        "days without",
        "longest silence, days",
    )
    figures = (
        ("Events over time", plots.events_a_day(findings.kinds)),
        ("The week", plots.week(findings.kinds)),
    )
    return Section("Event types", "", Table(head, rows, _right(1, 2, 3, 4, 7, 8)), figures)


def _users(findings: Findings) -> Section | None:
    counts = findings.histories.per_user()
    if not len(counts):
        return None
    gaps = findings.histories.longest_gaps() / 1000
    shares = (0.1, 0.5, 0.9, 0.99)
    away = [_span(gap) for gap in np.quantile(gaps, shares)] if len(gaps) else [NOTHING] * len(shares)
    rows = (
        ("events", *(f"{n:,.0f}" for n in np.quantile(counts, shares)), f"{counts.max():,}"),
        ("longest time away", *away, _span(gaps.max()) if len(gaps) else NOTHING),
    )
    head = ("of a user", *(f"{100 * share:.0f} % have up to" for share in shares), "most")
    figure = ("Events of a user", plots.events_a_user(counts))
    return Section("Users", "", Table(head, rows, _right(1, 2, 3, 4, 5)), (figure,))


def _outcomes(candidates: Sequence[Candidate]) -> Section:
    shown = candidates[:SHOWN]
    if not shown:
        text = "No pair of event types happens often enough, for long enough, to tell what follows what."
        return Section("Decisions and outcomes", text)
    rows = tuple(
        (
            f"{each.decision} → {each.outcome}",
            each.match,
            each.window,
            _percent(each.rate),
            _percent(each.before),
            NOTHING
            if math.isnan(each.agreement)
            else f"{_percent(each.agreement)} ({_percent(each.chance)})",
            _percent(each.eventually),
            _span(float(np.median(each.lags_h)) * 3600) if len(each.lags_h) else NOTHING,
            f"{each.score:.2f}",
            each.against,
        )
        for each in shown
    )
    head = (
        "decision → outcome", "same", "window", "rate", "before", "same item (chance)", "of all later", "median lag",
        "score", "against it",
    )  # fmt: skip
    text = (
        f"Each pair asks how many events of the first type are followed by the second for the same user, or the same "
        f"user and item, within {', '.join(WINDOWS)}. *Before*: how many have it within a window before them; so many are "
        f"taken to come anyhow. The window is the shortest that holds {100 * HOLDS:.0f} % of what any of these holds "
        "beyond that. *Same item*: of those followed by the outcome, how many for the same item, and how many if items "
        "were dealt out at random. *Of all later*: how much of what ever comes of it the window holds. The score is "
        "high for an even rate, an outcome that comes after rather than before, and a window that holds it."
    )
    drawn = [each for each in shown if not each.against][:DRAWN] or list(shown[:DRAWN])
    figure = ("Outcomes by window", plots.outcome_curves(drawn))
    return Section("Decisions and outcomes", text, Table(head, rows, _right(3, 4, 5, 6, 7, 8)), (figure,))


def _fields(findings: Findings) -> Section:
    rows = tuple(
        (
            name,
            field_name,
            field.kind,
            _percent(field.missing),
            _distinct(field),
            _range(field),
            _values(field),
        )
        for name, kind in findings.kinds.items()
        for field_name, field in kind.fields.items()
    )
    numbers = {
        f"{name} · {field_name}": field
        for name, kind in findings.kinds.items()
        for field_name, field in kind.fields.items()
        if len(field.sample) and field.least < field.most
    }
    figures = [("Share of events that have a field", plots.present(findings.kinds))] if rows else []
    if numbers:
        figures.append(("Numbers", plots.distributions(numbers)))
    quantiles = ", ".join(f"{100 * share:.0f} %" for share in QUANTILES)
    text = (
        f"Numbers: least | quantiles at {quantiles} | largest. Counts of the most frequent values with ≥ may be too "
        "small by up to a 2,048th of the events."
    )
    head = ("type", "field", "kind", "missing", "values", "numbers", "most frequent")
    return Section("Fields", text, Table(head, rows, _right(3, 4)), tuple(figures))


def _distinct(field: Field) -> str:
    return f"{'' if field.exact else '≈ '}{field.distinct:,}"


def _range(field: Field) -> str:
    if not field.quantiles:
        return ""
    middle = ", ".join(f"{value:,.4g}" for value in field.quantiles)
    return f"{field.least:,.4g} | {middle} | {field.most:,.4g}"


def _values(field: Field) -> str:
    if field.distinct > 50 and field.top and field.top[0][1] < 0.01 * field.present:
        return ""  # none is frequent
    more = "≥ " if field.lost else ""
    return ", ".join(
        f"{value} ({more}{_percent(count / field.present)})" for value, count in field.top[:VALUES]
    )


def _percent(share: float) -> str:
    """A share to a tenth of a percent; what is there at all is never 0 %."""
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _span(seconds: float) -> str:
    """A length of time in its largest fitting unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.3g} s"


def _time(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")


def _right(*columns: int) -> frozenset[int]:
    return frozenset(columns)


def _cell(text: str) -> str:
    """``text`` in a cell of a Markdown table: on one line, and as itself."""
    line = re.sub(r"\s+", " ", text)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)
