"""The panels of a model: which values of a slice are watched on their own."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from detectors.panels import LEAST_OF_LABEL, LEAST_ROWS, Panels
from detectors.rows import Schema
from model.features import feature_spec
from tests.drifting import reference, usecase


@pytest.mark.parametrize(
    ("rows", "positives", "watched"),
    [
        (LEAST_ROWS, LEAST_OF_LABEL, True),
        (LEAST_ROWS - 1, 100, False),
        (LEAST_ROWS, LEAST_OF_LABEL - 1, False),
        (LEAST_ROWS, LEAST_ROWS - LEAST_OF_LABEL + 1, False),
    ],
)
def test_a_value_needs_rows_of_either_label(rows: int, positives: int, *, watched: bool) -> None:
    """A value with few rows in the reference, or few of a label there, has no panel, and is said to have none."""
    known = reference(2000)
    plan, label = known.categorical.copy(), known.label.copy()
    plan[:, 0] = "other"
    plan[:rows, 0] = "one"
    label[:rows] = np.arange(rows) < positives
    known = msgspec.structs.replace(known, categorical=plan, label=label)
    case = usecase()
    spec = feature_spec(case)
    schema = Schema(spec.numeric, tuple(column.name for column in spec.categorical))
    panels = Panels(case, "v1", schema, known, ())
    assert ("one" in {each.value for each in panels.by_identity}) is watched
    assert panels.rare == {"plan": [] if watched else ["one"]}
