"""Facts about model/report.py."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from model.analysis import Ablation, Importance
from model.checkpoint import Epoch
from model.evaluation import by_slice, evaluate
from model.report import Findings, html
from model.split import window
from tests.builders import CASE, SPEC, examples, prepared

MODELS = ("network", "base_rate", "heuristic", "logistic", "boosting")


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    """Findings on the usual examples, scored by chance."""
    parts = window(prepared(tmp_path, examples(2000)), CASE.training)
    rows, rng = parts.validation, np.random.default_rng(0)
    scores = {name: rng.random(len(rows)).astype(np.float32) for name in MODELS}
    given = rows.label, scores["network"], rows.user, 0.5, rng
    losses = [0.7, 0.6, 0.65]
    return Findings(
        usecase="synthetic",
        version="<7 & more>",
        created="2026-01-01T00:00:00+00:00",
        threshold=0.5,
        parts=parts,
        epochs=[
            Epoch(epoch=i, loss=loss, validation_log_loss=loss, best=i < 3, seconds=i)
            for i, loss in enumerate(losses, 1)
        ],
        scores=scores,
        evaluations={
            name: evaluate(rows.label, score, rows.user, 0.5, rng) for name, score in scores.items()
        },
        slices={"plan": by_slice(rows.categories[:, 1], *given)},
        importance=[Importance(feature=name, auc=0.1, log_loss=0.2, spread=0.01) for name in SPEC.numeric],
        ablation=[
            Ablation(group="event view", columns=("views", "last_view"), auc=0.05, log_loss=0.1),
            Ablation(group="", columns=(), auc=0.0, log_loss=0.001),
        ],
    )


class Outline(HTMLParser):
    """What a page holds: its tags in order and its links; fails when they do not nest."""

    EMPTY = ("meta", "path", "use", "rect", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Go in."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Pass by."""
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Go out."""
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_the_page_holds_everything_and_needs_nothing(findings: Findings) -> None:
    """All seven plots are in the page, and nothing in it is fetched from anywhere."""
    outline = Outline(html(findings))
    assert outline.tags.count("svg") == outline.tags.count("figcaption") == 7
    assert "script" not in outline.tags
    assert "link" not in outline.tags
    assert all(link.startswith("#") for link in outline.links)


def test_the_page_tells_its_findings(findings: Findings) -> None:
    """Models, slices, features and groups stand there with their figures, and their intervals."""
    page = html(findings)
    auc = findings.evaluations["network"].auc
    assert f"{auc.value:.3f} <small>{auc.low:.3f} \N{EN DASH} {auc.high:.3f}</small>" in page
    for text in ("base rate", "boosting", "plan-1", "missing", "last_view", "event view"):
        assert f">{text}<" in page
    assert "nothing, but with another seed" in page
    assert findings.parts.times["validation_first"] in page


def test_the_page_counts_every_decision_once(findings: Findings) -> None:
    """Weights, which steer fitting, move nothing on the page, its plots included."""
    parts = findings.parts
    rows = (parts.fitting, parts.validation, parts.whole)
    heavy = [msgspec.structs.replace(each, sample_weight=1 + 4 * each.label) for each in rows]
    weighted = msgspec.structs.replace(parts, fitting=heavy[0], validation=heavy[1], whole=heavy[2])
    assert html(msgspec.structs.replace(findings, parts=weighted)) == html(findings)
    assert "20 bins of the score" in html(findings)


def test_what_people_named_is_escaped(findings: Findings) -> None:
    """A version, or a category, that looks like markup is text."""
    page = html(findings)
    assert "version &lt;7 &amp; more&gt;" in page
    assert "<7 & more>" not in page


def test_equal_findings_give_equal_pages(findings: Findings) -> None:
    """Nothing of the time or of chance is in the file."""
    assert html(findings) == html(findings)


@pytest.mark.parametrize("gone", [{"ablation": []}, {"slices": {}}], ids=str)
def test_what_was_not_asked_for_is_left_out(findings: Findings, gone: dict[str, Any]) -> None:
    """Without slices or ablation their headings do not stand there either."""
    page = html(msgspec.structs.replace(findings, **gone))
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert ("By slice" in headings) is ("slices" not in gone)
    assert ("What each source of information is worth" in headings) is ("ablation" not in gone)


def test_a_slice_without_precision_has_a_dash(findings: Findings) -> None:
    """What could not be measured is a dash, not a number and not `nan`."""
    base = findings.evaluations["base_rate"]
    nothing = msgspec.structs.replace(base, precision=base.precision._replace(value=float("nan")))
    page = html(msgspec.structs.replace(findings, evaluations={**findings.evaluations, "base_rate": nothing}))
    assert "<td>\N{EN DASH}</td>" in page
    assert ">nan" not in page
