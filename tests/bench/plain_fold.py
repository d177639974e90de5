"""The bench's job by hand, in plain Python: an event into a profile, a profile into the model's inputs.

Faust, Quix Streams and Bytewax all run this one module, each in an environment of its own, so it imports the standard
library alone. It does what ``usecase.toml`` declares, with each event type's slots faded only when they are touched,
which is the quickest way in Python. Left out, in the peers' favour: late events, eviction, and skipping replays.
A profile is a dictionary that JSON can carry, since each of the three frameworks keeps its changelog or state so.
"""

from __future__ import annotations

from math import exp2, log, nan
from typing import Any
from zlib import crc32

Profile = dict[str, Any]

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
    """Return the profile of a user who has done nothing yet; times are ms since the epoch, 0 for never."""
    return {
        "first": 0,
        "page": [0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # time, clicks and pages over 3, 14 and 60 days
        "bits": [0, 0, 0, 0],  # of the pages seen
        "quiz": [0, None, 0.0, 0.0, 0.0, 0.0],  # time, last value, count and sum over 14 and 60 days
        "submitted": [0, None, 0.0, 0.0, 0.0, 0.0],
        "due": [0, 0.0, 0.0],  # time, count over 14 and 60 days
    }


def fold(profile: Profile, kind: str, time: int, value: float | None, item: str) -> None:
    """Fold one event into ``profile``, in place."""
    if not profile["first"]:
        profile["first"] = time
    slots = profile[kind]
    elapsed = time - slots[0]
    slots[0] = time
    if kind == "page":
        assert value is not None
        fade3, fade14, fade60 = exp2(elapsed * _3D), exp2(elapsed * _14D), exp2(elapsed * _60D)
        slots[1] = slots[1] * fade3 + value
        slots[2] = slots[2] * fade14 + value
        slots[3] = slots[3] * fade60 + value
        slots[4] = slots[4] * fade3 + 1.0
        slots[5] = slots[5] * fade14 + 1.0
        slots[6] = slots[6] * fade60 + 1.0
        bit = crc32(item.encode()) % BITS
        profile["bits"][bit >> 6] |= 1 << (bit & 63)
    elif kind == "due":
        slots[1] = slots[1] * exp2(elapsed * _14D) + 1.0
        slots[2] = slots[2] * exp2(elapsed * _60D) + 1.0
    else:
        assert value is not None
        fade14, fade60 = exp2(elapsed * _14D), exp2(elapsed * _60D)
        slots[1] = value
        slots[2] = slots[2] * fade14 + 1.0
        slots[3] = slots[3] * fade60 + 1.0
        slots[4] = slots[4] * fade14 + value
        slots[5] = slots[5] * fade60 + value


def features(profile: Profile, time: int, context: dict[str, Any]) -> tuple[list[float], list[int]]:
    """Return the model's numeric inputs, NaN for missing, and its category ids, for a decision at ``time``."""
    page, quiz, submitted, due = profile["page"], profile["quiz"], profile["submitted"], profile["due"]
    elapsed = time - page[0]
    fade3, fade14, fade60 = exp2(elapsed * _3D), exp2(elapsed * _14D), exp2(elapsed * _60D)
    clicks14, pages14 = page[2] * fade14, page[5] * fade14
    elapsed = time - quiz[0]
    quiz14, quiz60 = exp2(elapsed * _14D), exp2(elapsed * _60D)
    quizzes60, quiz_scores60 = quiz[3] * quiz60, quiz[5] * quiz60
    elapsed = time - submitted[0]
    submitted14, submitted60 = exp2(elapsed * _14D), exp2(elapsed * _60D)
    count60, scores60 = submitted[3] * submitted60, submitted[5] * submitted60
    elapsed = time - due[0]
    seen = sum(map(int.bit_count, profile["bits"]))
    numeric = [
        page[1] * fade3,
        clicks14,
        page[3] * fade60,
        page[4] * fade3,
        pages14,
        page[6] * fade60,
        quiz[2] * quiz14,
        quizzes60,
        quiz[4] * quiz14,
        quiz_scores60,
        submitted[2] * submitted14,
        count60,
        submitted[4] * submitted14,
        scores60,
        due[1] * exp2(elapsed * _14D),
        due[2] * exp2(elapsed * _60D),
        clicks14 / pages14 if pages14 > SMALLEST else nan,
        quiz_scores60 / quizzes60 if quizzes60 > SMALLEST else nan,
        scores60 / count60 if count60 > SMALLEST else nan,
        (time - page[0]) / 1000 if page[0] else nan,
        (time - quiz[0]) / 1000 if quiz[0] else nan,
        (time - submitted[0]) / 1000 if submitted[0] else nan,
        nan if quiz[1] is None else quiz[1],
        nan if submitted[1] is None else submitted[1],
        -BITS * log(max(BITS - seen, 1) / BITS),
        (time - profile["first"]) / 1000 if profile["first"] else nan,
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
