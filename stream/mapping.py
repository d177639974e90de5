"""A file that does not follow the event contract: which of its fields look like the contract's.

Called by :mod:`stream.explore` with a file's first lines, when not one of them is an event.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

SECONDS_BEFORE = (
    100_000_000_000  # a smaller time is in seconds: in milliseconds it would be before March 1973
)
LOOKED_AT = 1000  # lines

# Names of other trackers' fields, without their capitals and underscores, likeliest first.
_ALIKE = {
    "id": ("id", "eventid", "messageid", "uuid", "insertid", "requestid"),
    "type": ("type", "event", "eventtype", "eventname", "action", "behavior", "name", "verb"),
    "user": (
        "user", "userid", "uid", "customer", "customerid", "visitorid", "clientid", "distinctid", "memberid",
        "accountid", "studentid", "playerid", "anonymousid", "sessionid",
    ),
    "time": (
        "time", "timestamp", "ts", "eventtime", "datetime", "createdat", "occurredat", "sentat", "date",
    ),
    "item": (
        "item", "itemid", "productid", "contentid", "sku", "objectid", "offerid", "articleid", "pageid",
        "product", "content", "page", "url",
    ),
    "value": ("value", "amount", "price", "revenue", "quantity", "score", "rating", "duration"),
    "context": ("context", "properties", "props", "attributes", "params", "metadata"),
}  # fmt: skip
_NEEDED = ("id", "type", "user", "time")


class FormatError(ValueError):
    """A file holds no events; the text says what it holds instead, and how to turn it into events."""


def advice(lines: list[bytes]) -> str:
    """What the ``lines`` hold instead of events, and which command would likely make events of them."""
    objects = [each for each in map(_object, lines[:LOOKED_AT]) if each]
    if not objects:
        head = lines[0][:60].decode(errors="replace")
        return f"no line is a JSON object, the first begins {head!r}; give JSON Lines, one event a line"
    fields = Counter(name for each in objects for name in each)
    mapping = likely(objects)
    if all(mapping.get(name) == name for name in _NEEDED):
        return "no line is an event although id, type, user and time are there; see docs/events.md for their kinds"
    found = ", ".join(f"{name} ({n / len(objects):.0%})" for name, n in fields.most_common(30))
    guess = ", ".join(f"{theirs} -> {ours}" for ours, theirs in mapping.items()) or "none"
    text = (
        f"no line is an event: `id`, `type`, `user` and `time` are required. Its fields: {found}. "
        f"Likely mapping: {guess}."
    )
    missing = [name for name in _NEEDED[1:] if name not in mapping]
    if missing:
        return f"{text} Nothing looks like {', '.join(missing)}; rename fields as docs/events.md says"
    return f"{text} To try it: {_command(mapping, objects)}"


def likely(objects: list[dict[str, Any]]) -> dict[str, str]:
    """The contract's fields with the field of ``objects`` whose name is most like each; no field twice."""
    names = {name.lower().replace("_", "").replace("-", ""): name for each in objects for name in each}
    found: dict[str, str] = {}
    for ours, alike in _ALIKE.items():
        theirs = next((names[a] for a in alike if a in names and names[a] not in found.values()), None)
        if theirs is not None:
            found[ours] = theirs
    return found


def _command(mapping: dict[str, str], objects: list[dict[str, Any]]) -> str:
    """A jq command line that renames the fields."""
    parts = {ours: f".{msgspec.json.encode(theirs).decode()}" for ours, theirs in mapping.items()}
    values = {ours: next((o[name] for o in objects if name in o), None) for ours, name in mapping.items()}
    parts.setdefault("id", "(input_line_number | tostring)")
    for name in ("id", "type", "user", "item"):
        if name in parts and name in values and not isinstance(values[name], str):
            parts[name] = f"({parts[name]} | tostring)"
    if isinstance(values["time"], int | float) and abs(values["time"]) < SECONDS_BEFORE:
        parts["time"] = f"({parts['time']} * 1000 | floor)"
    inside = ", ".join(f"{name}: {part}" for name, part in parts.items())
    return f"jq -c '{{{inside}}}' FILE > events.jsonl"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
