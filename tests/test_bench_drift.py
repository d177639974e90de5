"""The drift benchmark: what it reads, and what it makes of episodes whose drift cannot be missed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detectors.verdict import Kind
from tests.bench import drift, drift_alarms, drift_delay, drift_protocol
from tests.bench.drift_alarms import Setting
from tests.bench.drift_data import LEAST, DataError, generated, read
from tests.bench.drift_protocol import Episode, Outcome
from tests.bench.drift_rivals import BEFORE, Tuned

ROWS = 12_000


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the benchmark's own processes; on a busy machine threads wait for each other at full speed."""
    with importlib.import_module("threadpoolctl").threadpool_limits(1):  # it ships no types
        yield


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three features, of which two tell the class; it is 1 or 2 here."""
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 3))
    label = random.random(ROWS) < 1 / (1 + np.exp(-2 * x[:, 0] + x[:, 1]))
    path = tmp_path_factory.mktemp("data") / "small.csv"
    lines = [
        f"{a:.4f},{b:.4f},{c:.4f},{1 + y}" for (a, b, c), y in zip(x.tolist(), label.tolist(), strict=True)
    ]
    path.write_text("\n".join(["a,b,c,class", *lines]) + "\n", encoding="utf-8")
    return path


def test_the_larger_of_two_classes_is_the_positive_one(csv: Path) -> None:
    """A class may be written as any two numbers; the columns keep their names."""
    found = read(csv)
    assert (found.name, found.columns) == ("small", ("a", "b", "c"))
    assert found.features.shape == (ROWS, 3)
    assert set(found.label.tolist()) == {0, 1}


def test_without_a_csv_the_stream_is_the_same_every_time() -> None:
    """The generated stream is seeded, numeric and binary."""
    once, again = generated(500), generated(500)
    assert (once.features == again.features).all()
    assert set(once.label.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"bad.csv:1: the header names the features and, last, the class; got \[\]"),
        (["class"] + ["1"] * LEAST, r"bad.csv:1: the header names the features and, last, the class"),
        (["a,class", "1,0", "1,0,0"], r"bad.csv:3: every line has the 2 columns of the header; got 3"),
        (["a,class", "1,0", "red,1"], r"bad.csv:3: `a` is a number; got 'red'"),
        (["a,class", "inf,0"], r"bad.csv:2: `a` is a finite number; got 'inf'"),
        (
            ["a,class", "1,0", "2,1"],
            rf"bad.csv: {LEAST} rows are the least of which a drift can be told; got 2",
        ),
        (["a,class"] + ["1,0", "1,1", "1,2"] * LEAST, r"`class`, is a binary class: .* got 3: 0, 1, 2"),
        (["a,class"] + ["1,0", "1,"] * LEAST, r"`class`, is a binary class: .* got 2: 0, nan"),
        (["a,class"] + ["1,0"] * LEAST, r"`class`, is a binary class: .* got 1: 0"),
    ],
)
def test_a_bad_csv_is_refused_with_the_line_the_rule_and_what_came(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    """Every rule of the CSV has its own message."""
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """The encoding is a rule as well; so is that the file is there."""
    path = tmp_path / "bad.csv"
    path.write_bytes(b"a,class\n\xff\xfe,0\n")
    with pytest.raises(DataError, match=r"a CSV in UTF-8 is needed"):
        read(path)
    with pytest.raises(DataError, match=r"a CSV in UTF-8 is needed"):
        read(tmp_path / "missing.csv")


def test_the_command_refuses_a_bad_csv_before_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 2, the message one line, and no figures are written."""
    path, out = tmp_path / "bad.csv", tmp_path / "drift.json"
    path.write_text("a,class\n1,0\n", encoding="utf-8")
    assert drift.main(["--csv", str(path), "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


def test_unknown_parts_are_refused() -> None:
    """A mistyped part does not quietly measure nothing."""
    with pytest.raises(SystemExit):
        drift.main(["--only", "alarm"])


@pytest.mark.parametrize(("name", "kind"), [("y_swaps", Kind.CONCEPT), ("x_exceed_skip", Kind.COVARIATE)])
def test_a_drift_of_the_protocol_is_found_and_its_kind_is_right(csv: Path, name: str, kind: Kind) -> None:
    """One abrupt episode through the panel: one alarm, a final verdict of the one kind, and no data fault."""
    outcome = drift_protocol.run(Episode(csv, name, "abrupt", seed=3, peers=False))
    assert outcome.counts == {drift_protocol.OURS: (1, 0, True)}
    assert outcome.delay is not None
    assert outcome.delay < 300
    assert (outcome.kinds, outcome.final, outcome.faulty) == ((kind,), True, False)


def test_an_episode_counts_once_as_missed_and_each_alarm_as_true_or_false() -> None:
    """F1 as the protocol has it: two true alarms, one false, one episode without a true one."""
    assert drift_protocol.f1([(2, 0, True), (0, 1, False)]) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert drift_protocol.f1([(0, 0, False)]) == 0


def test_a_mixed_verdict_of_a_single_drift_is_wrong() -> None:
    """No kind left is an answer; one that is not final has no single kind."""
    episodes = [
        _outcome((Kind.CONCEPT,)),
        _outcome((Kind.CONCEPT, Kind.LABEL)),
        _outcome((Kind.LABEL, Kind.CONCEPT)),
        _outcome(()),
    ]
    assert drift_protocol.kinds_of(episodes) == {
        "type_accuracy": 0.5,
        "set_coverage": 0.75,
        "single_type_precision": 1.0,
        "single_types": 0.25,
    }


def _outcome(kinds: tuple[Kind, ...]) -> Outcome:
    return Outcome(
        "y_swaps", "abrupt", {drift_protocol.OURS: (1, 0, True)}, 10, kinds, final=True, faulty=False
    )


@pytest.mark.parametrize("kind", ["independent", "thinned"])
def test_run_lengths_are_the_same_every_time(kind: str) -> None:
    """A seed gives the stream and its reference; runs fit into the time that is watched."""
    setting = Setting(kind, threshold=50, rows=1000, times=40)
    found = drift_alarms.lengths(setting)
    assert found == drift_alarms.lengths(setting)
    assert found
    assert sum(found) <= 40 * 50


def test_the_lower_bound_is_that_of_a_poisson_process() -> None:
    """Ten alarms in 100: 200 over the 95 % point of chi-squared with 22 degrees of freedom, 33.92."""
    assert drift_alarms.lower_bound(100, 10) == pytest.approx(200 / 33.92, rel=1e-3)


def test_streams_side_by_side_are_those_of_one_detector_each() -> None:
    """A channel is a stream of its own: a rise from .2 to .6 is found within a hundred events in each of ten."""
    tuned = Tuned(drift_delay.OURS, 0.2, 3000, 1, 1, 0)
    random = np.random.default_rng(0)
    rate = np.where(np.arange(BEFORE + 500) < BEFORE, 0.2, 0.6)
    bits = random.random((10, len(rate))) < rate
    together = drift_delay._first_of_ours(tuned, bits)
    assert ((together - BEFORE >= 0) & (together - BEFORE < 100)).all()
