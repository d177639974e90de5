"""The bench's job by hand, in plain Python: an event into a profile, a profile into the model's inputs.

Faust, Quix Streams and Bytewax all run this one module, each in an environment of its own, so it imports the standard
library alone. It does what ``usecase.toml`` declares, with each event type's slots faded only when they are touched,
which is the quickest way in Python. Left out, in the peers' favour: late events, eviction, and skipping replays.
A profile is one flat list that JSON can carry, since each of the three frameworks keeps its changelog or state so; as a
dictionary of lists it would cost Bytewax a third of its speed in garbage collection.
"""

from __future__ import annotations

from math import exp2, log, nan
from typing import Any
from zlib import crc32

Profile = list[Any]  # of one user: numbers, and None for what never was

# Where each event type's slots begin in a profile; slot 0 is the time of the first event. Times are ms, 0 for never.
PAGE, SEEN, QUIZ, SUBMITTED, DUE = 1, 8, 12, 18, 24
PAGE_SLOTS = (0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # time, clicks and pages over 3, 14 and 60 days
BIT_SLOTS = (0, 0, 0, 0)  # of the pages seen
GRADED_SLOTS = (0, None, 0.0, 0.0, 0.0, 0.0)  # time, last value, count and sum over 14 and 60 days
DUE_SLOTS = (0, 0.0, 0.0)  # time, count over 14 and 60 days

_3D, _14D, _60D = (-1 / (days * 86_400_000) for days in (3, 14, 60))  # per ms
SMALLEST = 1e-30
BITS = 256
KINDS, MODULES = 8, 32  # embedding rows of the two categories

NAMES = (
    "clicks_3d", "clicks_14d", "clicks_60d", "pages_3d", "pages_14d", "pages_60d",
    "quizzes_14d", "quizzes_60d", "quiz_scores_14d", "quiz_scores_60d",
    "submitted_14d", "submitted_60d", "scores_14d", "scores_60d", "due_14d", "due_60d",
    "clicks_a_page", "mean_quiz", "mean_score", "since_page", "since_quiz", "since_submission",
    "last_quiz", "last_score", "distinct_pages", "tenure", "worth", "kind", "module",
)  # fmt: skip


def new_profile() -> Profile:
    """Return the profile of a user who has done nothing yet."""
    return [0, *PAGE_SLOTS, *BIT_SLOTS, *GRADED_SLOTS, *GRADED_SLOTS, *DUE_SLOTS]


def fold(p: Profile, kind: str, time: int, value: float | None, item: str) -> None:
    """Fold one event into profile ``p``, in place."""
    if not p[0]:
        p[0] = time
    if kind == "page":
        assert value is not None
        elapsed = time - p[PAGE]
        p[PAGE] = time
        fade3, fade14, fade60 = exp2(elapsed * _3D), exp2(elapsed * _14D), exp2(elapsed * _60D)
        p[PAGE + 1] = p[PAGE + 1] * fade3 + value
        p[PAGE + 2] = p[PAGE + 2] * fade14 + value
        p[PAGE + 3] = p[PAGE + 3] * fade60 + value
        p[PAGE + 4] = p[PAGE + 4] * fade3 + 1.0
        p[PAGE + 5] = p[PAGE + 5] * fade14 + 1.0
        p[PAGE + 6] = p[PAGE + 6] * fade60 + 1.0
        bit = crc32(item.encode()) % BITS
        p[SEEN + (bit >> 6)] |= 1 << (bit & 63)
    elif kind == "due":
        elapsed = time - p[DUE]
        p[DUE] = time
        p[DUE + 1] = p[DUE + 1] * exp2(elapsed * _14D) + 1.0
        p[DUE + 2] = p[DUE + 2] * exp2(elapsed * _60D) + 1.0
    else:
        assert value is not None
        at = QUIZ if kind == "quiz" else SUBMITTED
        elapsed = time - p[at]
        p[at] = time
        fade14, fade60 = exp2(elapsed * _14D), exp2(elapsed * _60D)
        p[at + 1] = value
        p[at + 2] = p[at + 2] * fade14 + 1.0
        p[at + 3] = p[at + 3] * fade60 + 1.0
        p[at + 4] = p[at + 4] * fade14 + value
        p[at + 5] = p[at + 5] * fade60 + value


def features(p: Profile, time: int, context: dict[str, Any]) -> tuple[list[float], list[int]]:
    """Return the model's numeric inputs, NaN for missing, and its category ids, for a decision at ``time``."""
    page, clicks3, clicks14, clicks60, pages3, pages14, pages60 = p[PAGE:SEEN]
    quiz, last_quiz, quizzes14, quizzes60, quiz_scores14, quiz_scores60 = p[QUIZ:SUBMITTED]
    submitted, last_score, submitted14, submitted60, scores14, scores60 = p[SUBMITTED:DUE]
    due, due14, due60 = p[DUE:]
    elapsed = time - page
    page3, page14, page60 = exp2(elapsed * _3D), exp2(elapsed * _14D), exp2(elapsed * _60D)
    elapsed = time - quiz
    quiz14, quiz60 = exp2(elapsed * _14D), exp2(elapsed * _60D)
    elapsed = time - submitted
    hand14, hand60 = exp2(elapsed * _14D), exp2(elapsed * _60D)
    elapsed = time - due
    seen = sum(map(int.bit_count, p[SEEN:QUIZ]))
    numeric = [
        clicks3 * page3,
        clicks14 * page14,
        clicks60 * page60,
        pages3 * page3,
        pages14 * page14,
        pages60 * page60,
        quizzes14 * quiz14,
        quizzes60 * quiz60,
        quiz_scores14 * quiz14,
        quiz_scores60 * quiz60,
        submitted14 * hand14,
        submitted60 * hand60,
        scores14 * hand14,
        scores60 * hand60,
        due14 * exp2(elapsed * _14D),
        due60 * exp2(elapsed * _60D),
        clicks14 / pages14 if pages14 * page14 > SMALLEST else nan,
        quiz_scores60 / quizzes60 if quizzes60 * quiz60 > SMALLEST else nan,
        scores60 / submitted60 if submitted60 * hand60 > SMALLEST else nan,
        (time - page) / 1000 if page else nan,
        (time - quiz) / 1000 if quiz else nan,
        (time - submitted) / 1000 if submitted else nan,
        nan if last_quiz is None else last_quiz,
        nan if last_score is None else last_score,
        -BITS * log(max(BITS - seen, 1) / BITS),
        (time - p[0]) / 1000 if p[0] else nan,
        context["weight"],
    ]
    ids = [
        1 + crc32(context["kind"].encode()) % (KINDS - 1),
        1 + crc32(context["module"].encode()) % (MODULES - 1),
    ]
    return numeric, ids


def logged(numeric: list[float], context: dict[str, Any]) -> dict[str, float | str | None]:
    """Return the features by name as a score record carries them: null for missing."""
    known = [value if value == value else None for value in numeric]  # noqa: PLR0124 — NaN alone is not itself
    return dict(zip(NAMES, [*known, context["kind"], context["module"]], strict=True))
