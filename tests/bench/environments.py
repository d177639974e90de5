"""Each peer's environment: made by uv in ``.venvs`` from the pins in ``NAME.txt`` beside this file."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.bench.report import ROOT


def pins(name: str) -> Path:
    """Return the file that pins every package of the environment ``name``."""
    return Path(__file__).with_name(f"{name}.txt")


def python(name: str) -> Path:
    """Return the interpreter of the environment ``name``, made or brought up to its pins first if need be."""
    directory = ROOT / ".venvs" / name
    interpreter, marker = directory / "bin" / "python", directory / ".pins"
    digest = hashlib.sha256(pins(name).read_bytes()).hexdigest()
    if not marker.exists() or marker.read_text(encoding="utf-8") != digest:
        uv = shutil.which("uv") or str(ROOT / ".venvs" / "uv" / "bin" / "uv")
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", "--python", "3.11", directory], check=True)
        subprocess.run([uv, "pip", "sync", "--quiet", "--python", interpreter, pins(name)], check=True)
        marker.write_text(digest, encoding="utf-8")
    return interpreter
