"""``python -m tests.small_job REGISTRY JOB``: the pipeline, of which every fit is of few epochs, so that a test need not wait."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from retrain import pipeline

EPOCHS = 3


def shorten(fitting: Any) -> None:
    """Let fits by default be of :data:`EPOCHS`."""
    epochs = ("epochs", int, int(os.environ.get("EPOCHS", EPOCHS)))
    fitting.Settings = msgspec.defstruct(
        "Settings", [epochs], bases=(fitting.Settings,), frozen=True, kw_only=True
    )


if __name__ == "__main__":
    from model import fitting

    shorten(fitting)
    sys.exit(pipeline.main(sys.argv[1:]))
