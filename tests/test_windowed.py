"""alibi-detect's tests as witnesses: what they see of missing values, how sure they are, and how they are imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

from detectors import windowed
from detectors.rows import Float64, Rows, Schema, rows_of
from detectors.windowed import CVM_FLOOR, FLOOR, ask

EVENTS = 50_000
SCHEMA = Schema(("age", "clicks"))


def rows(seed: int, n: int = 1000, shift: Float64 | float = 0.0, chance: float = 0.3) -> Rows:
    """Decisions with two numeric columns, ``shift`` off, a device, and labels positive with ``chance``."""
    rng = np.random.default_rng(seed)
    device = rng.choice(np.array(["phone", "desk", None], np.object_), n)
    label = (rng.random(n) < chance).astype(np.float64)
    return rows_of(rng.normal(size=(n, 2)) + shift, rng.random(n), label, device[:, None])


@pytest.mark.parametrize("name", ["ks", "cvm", "tabular"])
def test_the_changed_column_is_named(name: str) -> None:
    """Of several columns only that which changed is significant after Bonferroni."""
    testimony = ask(name, EVENTS, rows(0), rows(1, shift=np.array([0.0, 0.5])), SCHEMA)
    assert testimony.columns == ("clicks",)


def test_a_category_that_comes_up_is_seen() -> None:
    """A device that the reference does not know is a change of the column."""
    window = rows(1)
    window.categorical[:200, 0] = "watch"
    assert ask("chi2", EVENTS, rows(0), window, Schema((), ("device",))).columns == ("device",)


def test_rare_categories_are_taken_together() -> None:
    """A thousand categories that are seen once or twice cannot be compared one by one, and none is an alarm."""
    before, after = rows(0), rows(1)
    rng = np.random.default_rng(2)
    for each in (before, after):
        each.categorical[:, 0] = rng.integers(0, 1000, 1000).astype(str)
        each.categorical[:300, 0] = "common"
    assert ask("chi2", EVENTS, before, after, Schema((), ("item",))).drift is False


@pytest.mark.parametrize(
    ("name", "drift"), [("ks", False), ("cvm", False), ("tabular", True), ("classifier", True)]
)
def test_more_missing_values_are_a_change_where_they_are_looked_at(name: str, drift: bool) -> None:
    """``ks`` and ``cvm`` compare the values there are; ``tabular`` and ``classifier`` see that more are missing."""
    window = rows(1)
    window.numeric[np.random.default_rng(3).random(1000) < 0.3, 0] = np.nan
    assert ask(name, EVENTS, rows(0), window, SCHEMA).drift is drift


def test_the_classifier_sees_what_no_column_shows() -> None:
    """Two columns that move together, each with the law it had, are a change for the classifier alone."""
    window = rows(1)
    window.numeric[:, 1] = window.numeric[:, 0]
    assert ask("ks", EVENTS, rows(0), window, SCHEMA).drift is False
    assert ask("classifier", EVENTS, rows(0), window, SCHEMA).drift is True


@pytest.mark.parametrize("name", ["ks", "cvm", "tabular", "chi2_label", "fet_label", "classifier"])
def test_p_is_never_0(name: str) -> None:
    """However far the window is off, p is a bound that is true: the smallest that the test can tell."""
    testimony = ask(name, EVENTS, rows(0, chance=0.05), rows(1, shift=50.0, chance=0.95), SCHEMA)
    assert testimony.p is not None
    assert testimony.p >= (2 * CVM_FLOOR if name == "cvm" else FLOOR)
    assert testimony.p < 1e-5


@pytest.mark.parametrize(
    "name", ["ks", "cvm", "tabular", "classifier", "ks_score", "chi2_label", "fet_label"]
)
def test_false_alarms_are_as_rare_as_promised(name: str) -> None:
    """Of 60 windows without drift at most 7 are called drift: a test at .05 exceeds that once in 80 tries."""
    calls = [
        ask(name, EVENTS, rows(100 + seed, 400), rows(900 + seed, 200), SCHEMA).drift for seed in range(60)
    ]
    assert sum(map(bool, calls)) <= 7


def test_a_column_without_values_is_left_out() -> None:
    """A column that is missing throughout says nothing, and the others are heard."""
    before, after = rows(0), rows(1, shift=np.array([0.0, 1.0]))
    before.numeric[:, 0] = after.numeric[:, 0] = np.nan
    for name in ("ks", "cvm", "tabular", "classifier"):
        assert ask(name, EVENTS, before, after, SCHEMA).drift is True


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("ks", "no numeric column"),
        ("chi2", "no categorical column"),
        ("chi2_label", "0 labels, of which 50"),
        ("fet_online", "0 labels, of which 50"),
    ],
)
def test_what_cannot_be_asked_says_why(name: str, note: str) -> None:
    """No columns or no labels: no finding, and the reason."""
    before, after = rows(0), rows(1)
    after.label[:] = np.nan
    testimony = ask(name, EVENTS, before, after, Schema(()))
    assert testimony.drift is None
    assert note in testimony.note


def test_the_online_tests_keep_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty windows later the process has not grown, and no more than two references are remembered."""
    monkeypatch.setattr(windowed, "ONLINE_RUN", 200)  # thresholds in a tenth of a second
    before, after = rows(0), rows(1)
    ask("cvm_online", EVENTS, before, after, SCHEMA)
    tracemalloc.start()
    ask("cvm_online", EVENTS, before, after, SCHEMA)
    start, _ = tracemalloc.get_traced_memory()
    for _ in range(20):
        ask("cvm_online", EVENTS, before, after, SCHEMA)
    end, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert end - start < 50_000  # bytes
    assert windowed._cvm_online.cache_parameters()["maxsize"] == 2
    assert windowed._fet_online.cache_parameters()["maxsize"] == 2


def test_the_online_tests_say_which_false_alarms_they_allow() -> None:
    """Thresholds for as rare false alarms as are asked for cannot be simulated, and the note says so."""
    note = ask("cvm_online", EVENTS, rows(0), rows(1), SCHEMA).note
    assert "a false alarm every 4000 values" in note
    assert "thresholds for 50000 would take too long" in note


PROGRAM = """
import sys
import numpy as np
from detectors.rows import Schema, rows_of
from detectors.windowed import ask

rng = np.random.default_rng(0)
def rows():
    return rows_of(rng.normal(size=(200, 2)), rng.random(200), (rng.random(200) < 0.3).astype(float))
def testify():
    for name in ("ks", "cvm", "tabular", "classifier", "fet_label", "ks_score"):
        testimony = ask(name, 1000, rows(), rows(), Schema(("a", "b")))
        assert testimony.drift is not None, testimony
finders = list(sys.meta_path)
"""


@pytest.mark.parametrize(
    "program",
    [
        """
        testify()
        assert not [name for name in sys.modules if name.partition(".")[0] in ("tensorflow", "torch")]
        assert sys.meta_path == finders
        import tensorflow
        assert tensorflow.reduce_sum([1, 2]).numpy() == 3
        """,
        """
        import tensorflow
        testify()
        assert sys.modules["tensorflow"] is tensorflow
        import tensorflow.math
        assert tensorflow.reduce_sum([1, 2]).numpy() == 3
        """,
    ],
    ids=["before", "after"],
)
def test_alibi_detect_and_tensorflow_leave_each_other_alone(program: str) -> None:
    """alibi-detect works, and TensorFlow too: imported before it or after it."""
    subprocess.run([sys.executable, "-c", PROGRAM + textwrap.dedent(program)], check=True)
