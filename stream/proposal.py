"""From what an event file holds to a use case that could be run on it, with the evidence beside each choice.

:func:`propose` is pure: a :class:`~stream.explore.Findings` and its candidates in, TOML text out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from model.usecase import NAME, Duration
from stream.candidates import Candidate
from stream.events import LARGEST_VALUE
from stream.explore import Findings
from stream.proposed_features import duration
from stream.proposed_features import features as proposed
from stream.tallies import EventKind, Field

FEATURES = 40  # at most
CONTEXT = 8  # context fields that do
IDLE = ("1d", "3d", "7d", "14d", "30d", "60d", "90d", "180d", "400d")
LATENESS = ("1s", "10s", "1m", "5m", "15m", "1h", "6h", "1d", "3d", "7d")
ALTERNATIVES = 4
NAMED = 3  # types, in a message
WORTH = 0.05  # score of an alternative that is listed
DAY_S = 86_400.0


def propose(findings: Findings, candidates: Sequence[Candidate], name: str) -> str:
    """The text of a use case called ``name``: valid TOML, and a valid use case if two declarable types came.

    A type or context field whose name a use case cannot hold is left out, and a comment says so. Without a
    candidate that nothing speaks against, the one with the best score stands there with its objection.
    """
    kinds = _declarable(findings)
    best = chosen(findings, candidates)
    parts = [_head(findings, name), _events(findings, kinds)]
    if best is None:
        parts.append(
            "# No decision: it takes a second event type, its outcome. Add both, then [decisions.NAME].\n"
        )
        return "\n".join(parts)
    fields, left_out = _context(findings, kinds[best.decision])
    usable = _usable(kinds, candidates)
    features = list(proposed(findings, kinds, best, fields))[:FEATURES]
    parts += [
        _decision(
            findings,
            best,
            [each for each in usable[1:] if each.score >= WORTH and not each.against],
        ),
        _context_table(fields, left_out),
        "[features]\n" + "".join(f"{each.name} = {{ {each.setting} }}\n" for each in features),
        _rest(findings, best, fields),
    ]
    return "\n".join(part for part in parts if part)


def chosen(findings: Findings, candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that becomes the decision, or a guess; None if there are not two types that can be declared."""
    kinds = _declarable(findings)
    usable = _usable(kinds, candidates)
    return usable[0] if usable else _any_pair(list(kinds))


def without_decision(findings: Findings, path: Path) -> str:
    """Why the use case proposed at ``path`` has no decision, and what to do; "" if it has one."""
    kinds = _declarable(findings)
    if len(kinds) >= 2:
        return ""
    refused = [_shown(kind) for kind in findings.kinds if kind not in kinds]
    text = f"{path}: no valid use case: a decision and its outcome take two event types, "
    if not refused:
        return text + f"and all events are {', '.join(kinds)}; explore events of both"
    more = f" and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
    return (
        f"{text}and a use case cannot name {', '.join(refused[:NAMED])}{more}; "
        "send types in lower case letters, digits and _, from a letter, up to 63"
    )


def _declarable(findings: Findings) -> dict[str, EventKind]:
    """The types whose name a use case can hold."""
    return {kind: each for kind, each in findings.kinds.items() if NAME.match(kind)}


def _usable(kinds: Collection[str], candidates: Sequence[Candidate]) -> list[Candidate]:
    return [each for each in candidates if each.decision in kinds and each.outcome in kinds]


def _head(findings: Findings, name: str) -> str:
    users = f"{findings.users:,} users over {(findings.last - findings.first) / 1000 / DAY_S:,.0f} days"
    text = f"# Proposed by `eddyline explore` from {findings.events:,} events of {users}.\n"
    if findings.histories.share < 1:
        text += f"# Outcomes and gaps: the full histories of {findings.histories.share:.2%} of the users, sampled by hash.\n"
    text += "# A start, not an answer: say whether the decision is one that you take, and drop what it cannot know.\n"
    return text + f'name = "{name}"\n'


def _events(findings: Findings, kinds: dict[str, EventKind]) -> str:
    text = ""
    for name, kind in kinds.items():
        always = [
            field for field in ("item", "value") if field in kind.fields and not kind.fields[field].missing
        ]
        text += f"[events.{name}]  # {kind.count:,} events ({kind.count / findings.events:.1%}) of {kind.users:,} users\n"
        if always:
            text += f"requires = {json.dumps(always)}  # each of these events has {'them' if len(always) > 1 else 'it'}\n"
    for name, kind in findings.kinds.items():
        if name not in kinds:
            text += (
                f"# {_shown(name)}: {kind.count:,} events; a use case cannot name them: "
                "send lower case letters, digits and _\n"
            )
    if findings.undescribed:
        text += f"# {findings.undescribed:,} events are of further types, which were not looked at.\n"
    return text


def _any_pair(kinds: list[str]) -> Candidate | None:
    """The two most frequent types, the rarer as the outcome, for want of evidence."""
    if len(kinds) < 2:
        return None
    return Candidate(
        decision=kinds[0],
        outcome=kinds[1],
        match="user",
        window="7d",
        rate=0.5,
        curve=(),
        decisions=0,
        before=math.nan,
        agreement=math.nan,
        chance=math.nan,
        eventually=math.nan,
        lags_h=np.empty(0),
        score=0.0,
        against="too few events to tell; a guess",
    )


def _decision(findings: Findings, best: Candidate, others: Sequence[Candidate]) -> str:
    text = _one_decision(findings, best)
    if others:
        text += "# Other candidates, the next best first:\n"
    for other in others[:ALTERNATIVES]:
        lines = _one_decision(findings, other).splitlines()
        text += "#\n" + "".join(f"{'' if line.startswith('#') else '# '}{line}\n" for line in lines)
    return text


def _one_decision(findings: Findings, each: Candidate) -> str:
    text = f"[decisions.{each.decision}]\n"
    if each.against:
        text += f"# DOUBTFUL: {each.against}.\n"
    if each.decisions:
        text += (
            f"# {each.rate:.1%} of {each.decisions:,} are followed by {each.outcome} within {each.window}, which is "
            f"{each.eventually:.0%} of what ever comes of it; {each.before:.1%} were preceded by it.\n"
        )
    text += f'outcome = "{each.outcome}"\nwindow = "{each.window}"\nmatch = "{each.match}"'
    if each.match == "item":
        text += f"  # {each.agreement:.0%} of outcomes are for the same item; {each.chance:.0%} by chance"
    text += "\n"
    if findings.order.late:
        text += f'lateness = "{duration(findings.order.p99_s, LATENESS)}"  # {_late(findings)}\n'
    return text + f"prior = {min(max(round(each.rate, 3), 0.001), 0.999)}\n"


def _late(findings: Findings) -> str:
    return (
        f"{findings.order.late / findings.events:.2%} of the events come late, 99 % of them up to "
        f"{findings.order.p99_s:,.0f} s, the latest {findings.order.most_s:,.0f} s"
    )


def _context(findings: Findings, decision: EventKind) -> tuple[dict[str, Field], list[str]]:
    """The decision's context fields that a use case can declare, and why others were left out."""
    fields: dict[str, Field] = {}
    left_out = []
    for name, overall in findings.context.items():
        here = decision.fields.get(f"context.{name}")
        why = _unfit(name, overall, here)
        if why or here is None:
            left_out.append(f"{_shown(name)}: {why}")
        else:
            fields[name] = here
    ordered = sorted(fields, key=lambda name: (fields[name].missing, fields[name].distinct))
    left_out += [f"{name}: more than {CONTEXT} fields" for name in ordered[CONTEXT:]]
    return {name: fields[name] for name in ordered[:CONTEXT]}, left_out


def _unfit(name: str, overall: Field, here: Field | None) -> str:
    """Why the context field is not proposed; "" if it is. Its kind must be the same on every event."""
    if here is None:
        return "not on the decision"
    too_large = overall.kind == "number" and max(abs(overall.least), abs(overall.most)) > LARGEST_VALUE
    identifies = overall.kind == "category" and here.distinct > 100 and here.distinct > here.present / 2
    objections = (
        (not NAME.match(name), "a use case cannot name it: send lower case letters, digits and _"),
        (overall.kind == "mixed", "values of several kinds"),
        (overall.kind == "other", "lists or objects"),
        (here.distinct < 2, "always the same on the decision"),
        (too_large, f"numbers beyond {LARGEST_VALUE:g}"),
        (identifies, "an identifier: hardly a value comes twice"),
    )
    return next((why for holds, why in objections if holds), "")


def _context_table(fields: dict[str, Field], left_out: Sequence[str]) -> str:
    text = "[context]  # of the decision\n" if fields else ""
    for name, field in fields.items():
        kind = "number" if field.kind == "number" else "category"
        text += (
            f'{name} = "{kind}"  # {_about(field)}{field.distinct:,} values, {field.missing:.1%} missing\n'
        )
    return text + "".join(f"# left out: {why}\n" for why in left_out)


def _rest(findings: Findings, best: Candidate, fields: dict[str, Field]) -> str:
    gaps = findings.histories.longest_gaps() / 1000
    longest = float(np.quantile(gaps, 0.99)) if len(gaps) else 0.0
    idle = duration(max(longest, Duration.parse(best.window)), IDLE)
    usable = (findings.last - findings.first) / 1000 - Duration.parse(best.window)
    validate = min(max(usable / 4, 3600.0), 90 * DAY_S)
    train = min(max(usable - validate, 3600.0), 270 * DAY_S)
    text = (
        f'[profile]\nidle_after = "{idle}"  # 99 % of users were never away longer than {longest / DAY_S:,.1f} days\n\n'
        f'[training]\ntrain = "{_whole(train)}"\nvalidate = "{_whole(validate)}"\n'
    )
    if not 0.05 <= best.rate <= 0.95:
        text += "balance = true  # one of the labels is rare\n"
    slices = [name for name, f in fields.items() if f.kind in ("category", "bool") and 2 <= f.distinct <= 30][
        :3
    ]
    return text + (f"\n[quality]\nslices = {json.dumps(slices)}\n" if slices else "")


def _whole(seconds: float) -> str:
    return f"{int(seconds / DAY_S)}d" if seconds >= DAY_S else f"{int(seconds / 3600)}h"


def _about(field: Field) -> str:
    return "" if field.exact else "about "


def _shown(name: str) -> str:
    """A name from the data, safe in a comment: printable ASCII on one line."""
    return json.dumps(name[:60]).replace("\x7f", "\\u007f")


def use_case_name(file_name: str) -> str:
    """A use case's name after a file's: ``Clicks 2024.jsonl.gz`` gives ``clicks-2024``."""
    name = re.sub(r"[^a-z0-9]+", "-", file_name.lower().partition(".")[0]).strip("-")[:60]
    return name if NAME.match(name.replace("-", "_")) else f"events-{name[:56]}".rstrip("-")
