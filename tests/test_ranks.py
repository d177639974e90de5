"""Ranks that share a job's training: how the group is told, watched and started again."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from retrain import ranks
from retrain.ranks import LocalRanks, Outcome, keep, outcome, tf_configs
from tests.stand_ins import alive

W, D, F, K = Outcome.WORKING, Outcome.DONE, Outcome.FAILED, Outcome.KILLED


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([None, None], W),
        ([None, 0], W),  # rank 0 stores the result
        ([0, None], D),
        ([0, 1], D),  # the result is there
        ([0, -9], D),
        ([None, 1], F),
        ([1, None], F),
        ([None, -9], K),
        ([1, -9], K),  # rank 0 failed because its peer was gone
        ([-15, 0], K),
        ([143, None], K),
    ],
)
def test_rank_0_decides_and_a_death_is_the_group_s(codes: list[int | None], expected: Outcome) -> None:
    """Killed ranks are told from those that fail, which would again."""
    assert expected is outcome(codes)


def test_each_rank_is_told_of_all() -> None:
    """``TF_CONFIG`` is TensorFlow's own format."""
    configs = [msgspec.json.decode(each) for each in tf_configs(["a:1", "b:2"])]
    assert [{"worker": ["a:1", "b:2"]}] * 2 == [each["cluster"] for each in configs]
    assert [{"type": "worker", "index": 0}, {"type": "worker", "index": 1}] == [
        each["task"] for each in configs
    ]


RANK = """
import json, os, pathlib, signal, sys, time
folder, ends = pathlib.Path(sys.argv[1]), sys.argv[2]
config = json.loads(os.environ["TF_CONFIG"])
rank, ranks = config["task"]["index"], len(set(config["cluster"]["worker"]))
name = f"{rank}-of-{ranks}-attempt-"
attempt = 1 + len(list(folder.glob(name + "*")))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / f"{name}{attempt}").write_text(str(os.getpid()))
while len(list(folder.glob(f"*-attempt-{attempt}"))) < ranks:
    time.sleep(0.02)
if ends == "killed" and attempt == 1 and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if ends == "fails" and rank == 1:
    sys.exit(1)
while ends == "fails" or (ends == "killed" and attempt == 1):
    time.sleep(0.02)
while rank == 1:  # it waits for rank 0, which has ended
    time.sleep(0.02)
"""


def ran(tmp_path: Path, ends: str, attempts: int) -> tuple[int, set[str]]:
    """The group's exit code, and the ranks that began; none of them runs any more."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    code = keep(lambda: LocalRanks((sys.executable, str(script), str(tmp_path), ends), 2), attempts)
    files = list(tmp_path.glob("?-of-*"))
    assert not any(alive(int(file.read_text())) for file in files)
    return code, {file.name for file in files}


FIRST = {"0-of-2-attempt-1", "1-of-2-attempt-1"}
SECOND = {"0-of-2-attempt-2", "1-of-2-attempt-2"}


@pytest.mark.parametrize(
    ("ends", "attempts", "expected"),
    [
        ("well", 2, (0, FIRST)),
        ("killed", 2, (0, FIRST | SECOND)),
        ("killed", 1, (1, FIRST)),
        ("fails", 2, (1, FIRST)),
    ],
)
def test_a_group_lives_and_dies_together(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: str,
    attempts: int,
    expected: tuple[int, set[str]],
) -> None:
    """Ranks deaf to SIGTERM are killed with the one that ended; the group starts again only when one was killed."""
    monkeypatch.setattr(ranks, "SETTLE_S", 0.1)
    assert expected == ran(tmp_path, ends, attempts)


def test_a_job_that_the_registry_does_not_know_is_none(tmp_path: Path) -> None:
    """As when the cluster reaches another registry than the trainer."""
    with pytest.raises(SystemExit, match=r"x-1/spec\.json: this registry has no such job"):
        ranks.main([str(tmp_path), "x-1"])
