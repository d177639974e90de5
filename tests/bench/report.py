"""What every bench leaves behind: ``bench/results/NAME.json``, with what it ran on."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
ALWAYS = ("eddyline", "numpy", "msgspec")
LOAD_AT_START = os.getloadavg()[0]  # of the minute before: was the machine quiet?


def write(name: str, figures: Mapping[str, float], versions: Mapping[str, str]) -> Path:
    """Write the ``figures`` of bench ``name`` with the ``versions`` of what took part; returns the file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"figures": dict(figures), "versions": dict(versions), "machine": machine()}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions here of ``packages``, and of those that every bench names."""
    return {package: metadata.version(package) for package in (*ALWAYS, *packages)}


def pinned(pins: Path, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of ``packages`` in the file ``pins``."""
    found = dict(
        re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==(\S+)", pins.read_text(encoding="utf-8"), re.MULTILINE)
    )
    return {package: found[package] for package in packages}


def kafka_version() -> str:
    """Return the version of the broker that ``tests/kafka/install.sh`` fetched."""
    jars = sorted(path.name for path in (ROOT / ".kafka" / "jars").glob("kafka-clients-*.jar"))
    return jars[-1].removeprefix("kafka-clients-").removesuffix(".jar") if jars else "unknown"


def machine() -> dict[str, str | int | float]:
    """Return processor, cores, memory, system and Python."""
    model = re.search(
        r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_at_start": round(LOAD_AT_START, 2),
    }
