"""Mistakes in a TOML file: at which keys, on which line, and what to do. For the use case and for the settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

DecHook = Callable[[type, Any], Any]


def line_of(text: str, keys: tuple[str, ...]) -> int:
    """The line (from 1) of ``text`` on which the TOML key path ``keys`` stands, or that of its nearest parent."""
    best, depth = 1, 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"^\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            here: tuple[str, ...] = table
        else:
            entry = re.match(r"^\s*([\w\-\.\"']+)\s*=(.*)$", line)
            if not entry:
                continue
            here = table + tuple(part.strip("\"'") for part in entry[1].split("."))
            inline = keys[len(here)] if here == keys[: len(here)] and len(keys) > len(here) else None
            if inline and re.search(rf"\b{re.escape(inline)}\s*=", entry[2]):
                here += (inline,)
        shared = len(here) if here == keys[: len(here)] else 0
        if shared > depth:
            best, depth = number, shared
    return best


def keys_of(
    error: msgspec.ValidationError, table: dict[str, Any], entries: Mapping[str, Any], dec_hook: DecHook
) -> tuple[str, ...]:
    """The keys at which ``error`` arose in ``table``, parsed TOML: ``$.features[...].half_life`` in msgspec's words.

    msgspec names struct fields but not dictionary keys (``[...]``), so those are found by trying the entries: of the
    table NAME each is to be an ``entries[NAME]``, converted by ``dec_hook``.
    """
    message, _, where = str(error).partition(" - at `")
    keys: list[str] = []
    node: Any = table
    for name, entry in re.findall(r"\.([A-Za-z_]\w*)|(\[\.\.\.\])", where.rstrip("`")):
        key = name
        if entry and isinstance(node, dict):
            kind = entries.get(keys[-1] if keys else "", Any)
            key = next((key for key, value in node.items() if _fails(kind, value, message, dec_hook)), "")
        if key:
            keys.append(key)
            node = node.get(key) if isinstance(node, dict) else None
    missing = re.search(r"missing required field `(\w+)`", message)
    unknown = re.search(r"unknown field `(\w+)`", message)
    if unknown and isinstance(node, dict) and unknown[1] in node:
        keys.append(unknown[1])
    if missing and not keys:
        keys.append(missing[1])
    return tuple(keys)


def _fails(kind: Any, value: Any, message: str, dec_hook: DecHook) -> bool:
    try:
        msgspec.convert(value, kind, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        return str(error).partition(" - at `")[0] == message
    return False


def advice(error: msgspec.ValidationError) -> str:
    """What ``error`` says, with what to do about it."""
    message = str(error).partition(" - at `")[0]
    unknown = re.search(r"unknown field `(\w+)`", message)
    if unknown:
        return f"`{unknown[1]}` is not a setting here; remove it or correct its spelling"
    if "missing required field" in message:
        return message.replace("Object missing", "missing") + "; add it"
    return message[:1].lower() + message[1:]
