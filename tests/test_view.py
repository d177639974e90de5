"""Facts about ``eddyline drift``: what it lists, what it says of a verdict, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner, Result

import eddyline
from detectors import verdict as verdicts
from detectors.sentences import explained
from detectors.verdict import (
    Action,
    Channel,
    Effect,
    Estimate,
    Fault,
    Invariances,
    Kind,
    Response,
    SliceEffect,
    Verdict,
    Window,
)
from detectors.view import newest

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
SCHEMA = Path(verdicts.__file__).with_name("drift.schema.json")


def verdict(**fields: object) -> Verdict:
    """A verdict with what a test does not care about."""
    made = Verdict(
        id="v1/2888",
        revision=2,
        final=True,
        usecase="shop",
        model="v1",
        slice="",
        value="",
        alarmed=START_MS + 3 * DAY_MS,
        changed=START_MS,
        monitored=1545,
        log10_e=4.22,
        log10_threshold=4.0,
        channels=(
            Channel("location of views up", "views", 0.54, 5.0),
            Channel("location of score up", "score", 0.455, 4.9),
            Channel("location of price up", "price", 0.005, 1.0),
        ),
        kind=Kind.COVARIATE,
        kinds=(Kind.COVARIATE,),
        response=Response(Action.KEEP, "P(Y|X) stays, and the model has data there (overlap 0.35)", START_MS),
        invariances=Invariances(0.85, 1e-9, 0.002, None),
        window=Window(START_MS + 3 * DAY_MS, START_MS + 4 * DAY_MS, 400, 400),
        effects=(
            Effect("views", 1.02, 0.425, 8e-53, 0.04, 0.029),
            Effect("price", -0.1, 0.05, 1.0, 0.0, 0.0),
        ),
        slices=(
            SliceEffect("plan", "basic", 0.579, 0.568, -0.007, 227),
            SliceEffect("plan", "new", 0.0, 0.1, None, 40),
        ),
        prior_before=0.489,
        prior_fitted=Estimate(0.995, 0.897, 1.0),
        prior_counted=Estimate(0.695, 0.648, 0.738),
        overlap=0.35,
        smallest_shift=0.22,
        smallest_prior=0.094,
        faults=(),
        witnesses=(
            verdicts.Testimony("ks", "features", drift=True, p=1e-7, columns=("views",)),
            verdicts.Testimony("adwin", "loss", drift=False, statistic=0.1, threshold=0.3),
            verdicts.Testimony("chi2", "features", drift=None, note="alibi-detect is not installed"),
        ),
    )
    return msgspec.structs.replace(made, **fields)


def drift(tmp_path: Path, given: list[Verdict], *arguments: str) -> Result:
    """``eddyline drift`` on a file with these verdicts."""
    path = tmp_path / "drift.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in given))
    return CliRunner().invoke(eddyline.cli, ["drift", "--from", str(path), *arguments])


def text(given: Verdict) -> dict[str, str]:
    """The explanation by heading."""
    return {heading: " ".join(sentences) for heading, sentences in explained(given)}


def test_of_each_episode_the_newest_revision_is_listed(tmp_path: Path) -> None:
    """Whatever the order in the topic, and however often a crash repeated one; in order of the alarms."""
    first = verdict(revision=0, kind=Kind.UNDETERMINED, final=False)
    later = verdict(id="v1/plan=plus/2", alarmed=START_MS + 9 * DAY_MS, kind=Kind.CONCEPT)
    ran = drift(tmp_path, [later, verdict(), first, verdict()])
    assert ran.exit_code == 0, ran.output
    rows = [line for line in ran.output.splitlines() if re.match(r"v1/\S+ +2023", line)]
    assert [line.split()[0] for line in rows] == ["v1/2888", "v1/plan=plus/2"]
    assert rows[0].split() == [
        *("v1/2888", "2023-11-17", "22:13", "2023-11-14", "22:13", "covariate", "10^4.2/4.0", "400", "keep")
    ]
    assert max(map(len, ran.output.splitlines())) <= 100
    assert [each.revision for each in newest([verdict(), first])] == [2]


def test_json_is_what_the_topic_holds(tmp_path: Path) -> None:
    """Of each episode the newest revision, as JSON Lines; with an ID that one alone."""
    other = verdict(id="v1/9", alarmed=START_MS + 10 * DAY_MS)
    ran = drift(tmp_path, [verdict(revision=1), verdict(), other], "--json")
    assert [msgspec.json.decode(line, type=Verdict) for line in ran.output.splitlines()] == [verdict(), other]
    ran = drift(tmp_path, [verdict(), other], "--json", "v1/9")
    assert msgspec.json.decode(ran.output, type=Verdict) == other


def test_an_explanation_says_all_that_the_verdict_does() -> None:
    """In sentences, with the numbers."""
    told = text(verdict())
    assert told["What changed"].startswith("The decisions are others than before: P(X) changed.")
    assert "2023-11-17 22:13 UTC, after 1,545 monitored decisions" in told["Since when, and how sure"]
    assert "2023-11-14 22:13, 3 days before" in told["Since when, and how sure"]
    assert "10^4.2. The alarm is raised at 10^4.0" in told["Since when, and how sure"]
    assert "10,000 decisions" in told["Since when, and how sure"]
    assert "location of views up (54%), location of score up (46%)." in told["Since when, and how sure"]
    assert told["What it calls for"].startswith("Keep the model: P(Y|X) stays, and the model has data there")
    kinds = told["How the kind was told"]
    assert "P(Y|X), how outcomes follow from decisions, would stay: p = 0.85, not refuted." in kinds
    assert "P(X|Y), how the decisions of either outcome look, would stay: p < 0.0001, refuted." in kinds
    assert "overlap of window and reference is 0.35, where 1 is complete: the model has seen few" in kinds
    assert "0.695 (0.648 to 0.738 with 95 % confidence), counted" in told["Base rate"]
    assert (
        "plan = 'basic': 57.9% of the decisions before, 56.8% now (227 rows); there the scores are 0.007 too high"
        in told["Slices"]
    )
    assert "plan = 'new': 0.0% of the decisions before, 10.0% now (40 rows)." in told["Slices"]
    assert "less than 0.22 standard deviations" in told["What could not have been seen"]
    assert "base rate by less than 0.094" in told["What could not have been seen"]
    assert "ks on features: drift, p < 0.0001; in views." in told["Other detectors"]
    assert "adwin on loss: no drift, statistic 0.1, threshold 0.3." in told["Other detectors"]
    assert "chi2 on features: could not be asked: alibi-detect is not installed." in told["Other detectors"]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("action", Action)
def test_every_kind_and_response_can_be_told(kind: Kind, action: Action, tmp_path: Path) -> None:
    """Also by a verdict that knows as little as the first of an episode."""
    bare = verdict(
        kind=kind,
        kinds=tuple(kind for kind in Kind if kind in {"covariate", "label", "concept"}),
        revision=0,
        final=False,
        response=Response(action, "so it is", START_MS),
        window=Window(START_MS, START_MS, 0, 0),
        effects=(),
        channels=(),
        witnesses=(),
        faults=(
            Fault("missing", "price", "40 % of the values are missing, 2 % were"),
            Fault("flood", "", "too many"),
        ),
    )
    told = text(bare)
    assert [
        "What changed",
        "Since when, and how sure",
        "What it calls for",
        "What is wrong with the data",
    ] == list(told)
    assert "so it is." in told["What it calls for"]
    assert "missing of price: 40 %" in told["What is wrong with the data"]
    assert "flood: too many." in told["What is wrong with the data"]
    assert drift(tmp_path, [bare], bare.id).exit_code == 0


def test_what_was_not_tested_is_said() -> None:
    """Before labels two of the three invariances are open."""
    early = verdict(
        kind=Kind.LABEL,
        kinds=(Kind.LABEL, Kind.COVARIATE),
        invariances=Invariances(None, None, 1e-9, 0.4),
        window=Window(START_MS, START_MS, 300, 0),
        prior_counted=None,
        smallest_prior=None,
        final=False,
    )
    told = text(early)
    assert told["How the kind was told"].count("not tested, that takes labels") == 2
    assert "none of them with a label yet" in told["How the kind was told"]
    assert "another proportion has p = 0.4." in told["How the kind was told"]
    assert "counted" not in told["Base rate"]
    assert "Covariate drift is not excluded" in told["What changed"]
    assert "More is to come of this episode: this is revision 2." in told["What changed"]


def test_an_explanation_fits_100_columns_and_shows_bars(tmp_path: Path) -> None:
    """It is read in a terminal or a ticket."""
    ran = drift(tmp_path, [verdict()], "v1/2888")
    assert ran.exit_code == 0, ran.output
    assert max(map(len, ran.output.splitlines())) <= 100
    assert re.search(r"  views +\+1\.02 +█{20} +0\.425", ran.output)
    assert re.search(r"  price +-0\.10 +█{2} +0\.050", ran.output)


def test_a_verdict_is_found_by_either_end_of_its_id(tmp_path: Path) -> None:
    """What names several, or none, is refused with those that there are."""
    both = [verdict(), verdict(id="v1/plan=plus/2999")]
    assert "where plan is 'plus'" not in drift(tmp_path, both, "2888").output
    assert drift(tmp_path, both, "v1/pl").exit_code == 0
    for wanted, count in (("v1", 2), ("nothing", 0)):
        ran = drift(tmp_path, both, wanted)
        assert ran.exit_code == 2
        assert f"{wanted!r} is that of {count}: v1/2888, v1/plan=plus/2999" in ran.output
    assert "there are none" in drift(tmp_path, [], "v1").output


def test_no_drift_is_told() -> None:
    """An empty table would leave one in doubt."""
    with CliRunner().isolated_filesystem() as folder:
        ran = drift(Path(folder), [])
    assert (ran.exit_code, ran.output) == (0, "No drift was found.\n")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """With the record that is no verdict."""
    path = tmp_path / "drift.jsonl"
    path.write_bytes(msgspec.json.encode(verdict()) + b'\n\n{"id": 3}\n')
    ran = CliRunner().invoke(eddyline.cli, ["drift", "--from", str(path)])
    assert ran.exit_code == 2
    assert f"{path}: record 2 is not a verdict" in ran.output


def test_values_of_the_data_cannot_command_the_terminal(tmp_path: Path) -> None:
    """Neither by escape sequences nor by rich's own markup."""
    odd = verdict(id="v1/plan=\x1b[2J[red]/7", slice="plan", value="\x1b[2J[red]")
    for arguments in ((), ("/7",)):
        ran = drift(tmp_path, [odd], *arguments)
        assert ran.exit_code == 0
        assert "\x1b" not in ran.output
        assert "[red]" in ran.output


def test_the_schema_is_that_of_the_struct() -> None:
    """What other languages read verdicts by; after a change of the struct write this to the file."""
    made = msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Verdict))) + b"\n"
    assert SCHEMA.read_bytes() == made
    jsonschema.validate(msgspec.json.decode(msgspec.json.encode(verdict())), msgspec.json.decode(made))


def test_an_unknown_id_lists_ten_at_most(tmp_path: Path) -> None:
    """A log of years is not poured over whoever mistypes one."""
    ran = drift(tmp_path, [verdict(id=f"v1/{n:03}", alarmed=START_MS + n) for n in range(40)], "nothing")
    assert ran.exit_code == 2
    assert ran.output.count("v1/") == 10
