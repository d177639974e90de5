"""The tables that ``make bench-drift`` prints, one part's figures at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.table import Table

from tests.bench.drift_protocol import THRESHOLD
from tests.bench.drift_rivals import BEFORE, RUN

Figures = dict[str, Any]
Shown = list[Table | str]

# Cerqueira et al., KDD 2026, arXiv 2606.07789: means over seven data sets, aggregated from the raw results they publish.
# Theirs see a Hoeffding tree's mistakes; ours sees features, labels and the scores of a model that stays as it is.
PUBLISHED: dict[str, dict[str, tuple[dict[str, float], float]]] = {
    "abrupt": {
        "SEED, tuned (best mean)": (
            {"x_exceed_skip": 0.24, "x_permutations": 0.61, "y_prior_skip": 0.30, "y_swaps": 0.37},
            0.380,
        ),
        "STEPD, tuned": (
            {"x_exceed_skip": 0.26, "x_permutations": 0.53, "y_prior_skip": 0.28, "y_swaps": 0.33},
            0.350,
        ),
        "ADWIN, tuned": (
            {"x_exceed_skip": 0.24, "x_permutations": 0.27, "y_prior_skip": 0.31, "y_swaps": 0.16},
            0.245,
        ),
    },
    "gradual": {
        "STEPD, tuned (best mean)": ({}, 0.266),
        "SEED, tuned": ({}, 0.260),
        "ADWIN, tuned": ({}, 0.093),
    },
}
ORACLE = 0.445  # the best of their detectors picked anew for every cell, mean over both modes
DRIFTS = {
    "x_exceed_skip": "covariate",
    "y_prior_skip": "label",
    "y_swaps": "concept",
    "x_permutations": "mixed",
}


def alarms(found: Figures) -> Shown:
    """Events between false alarms."""
    columns = (
        "decisions",
        "promised",
        "reference",
        "draws x watched",
        "alarms",
        "mean",
        "worst reference",
        "its lower 95 %",
        "cv",
    )
    table = Table(*columns, title="events between false alarms, over what was promised")
    for each in found["run_lengths"]:
        table.add_row(
            each["stream"],
            f"{each['threshold']:,}",
            f"{each['reference_rows']:,}",
            f"{each['references']} x {each['times']}",
            f"{each['alarms']:,}",
            *(f"{each[name]:.2f}" for name in ("mean", "least_mean", "least_bound", "variation")),
        )
    return [table, f"least lower bound of what is promised: {found['run_length_ratio_min']:.2f}"]


def delay(found: Figures) -> Shown:
    """Delays at the same rate of false alarms."""
    cells = [(each["from"], each["to"]) for each in found["delay_cells"]]
    tuned = {(each["name"], each["base"]): each["run"] for each in found["delay_tuned"]}
    delays = {(each["name"], each["base"], each["to"]): each for each in found["delay_found"]}
    table = Table(
        "", *(f"{base} to {to}" for base, to in cells), title="mean delay (false alarms: one in) [early]"
    )
    for name in dict.fromkeys(each["name"] for each in found["delay_found"]):
        row = [delays[name, *cell] for cell in cells]
        table.add_row(
            name,
            *(
                f"{each['delay']:.0f} ({tuned.get((name, each['base']), RUN) / 1000:.1f} k) \\[{each['early']}]"
                for each in row
            ),
        )
    table.add_row("ours / best", *(f"{each['ratio']:.2f} {each['best']}" for each in found["delay_cells"]))
    return [
        table,
        f"early: streams with an alarm in the {BEFORE} events before the change; wanted: a false alarm in {RUN:,} events",
        (
            f"geometric mean of ours / best: {found['delay_ratio']:.2f} (error {found['delay_ratio_error']:.0%}), worst cell "
            f"{found['delay_ratio_worst']:.2f}; of CUSUM / best, which is told both rates: {found['delay_ratio_least']:.2f}"
        ),
    ]


def protocol(found: Figures) -> Shown:
    """F1 on the protocol, and how often the kind was right."""
    return [
        *(_mode(found, mode, published) for mode, published in PUBLISHED.items()),
        (
            f"{found['protocol_episodes']} episodes a drift on {found['protocol_data']}, A = {THRESHOLD:,}. *: published in arXiv "
            f"2606.07789, means over their seven data sets; the best detector of every single cell there: {ORACLE:.3f}"
        ),
        (
            f"kind right {found['type_accuracy']:.3f}; true one not refuted {found['set_coverage']:.3f}; single kinds right "
            f"{found['single_type_precision']:.3f}, which are {found['single_types']:.3f} of those found; drifts called faults "
            f"{found['drifts_called_faults']:.3f}"
        ),
    ]


def _mode(found: Figures, mode: str, published: dict[str, tuple[dict[str, float], float]]) -> Table:
    cells = {each["drift"]: each for each in found["protocol_cells"] if each["mode"] == mode}
    table = Table(f"F1, {mode}", *DRIFTS.values(), "mean")
    for name, means in found["protocol_f1"].items():
        table.add_row(name, *(f"{cells[drift]['f1'][name]:.2f}" for drift in DRIFTS), f"{means[mode]:.3f}")
    table.add_section()
    for name, (by_drift, mean) in published.items():
        told = (f"{by_drift[drift]:.2f}" if drift in by_drift else "" for drift in DRIFTS)
        table.add_row(f"{name} *", *told, f"{mean:.3f}")
    table.add_section()
    delays = (cells[drift]["delay"] for drift in DRIFTS)
    table.add_row("our delay, rows", *("" if each is None else f"{each:.0f}" for each in delays), "")
    told = (", ".join(f"{kind} {count}" for kind, count in cells[drift]["told"].items()) for drift in DRIFTS)
    table.add_row("our verdicts", *told, "")
    return table


def faults(found: Figures) -> Shown:
    """Recall of data faults."""
    table = Table("fault", "episodes", "alarmed", "called a fault", "by its own check", "if asked at once")
    for each in found["fault_cells"]:
        shares = (f"{each[name]:.2f}" for name in ("alarmed", "called", "by_its_check", "if_asked"))
        table.add_row(each["fault"], str(each["episodes"]), *shares)
    recall = f"recall {found['fault_recall']:.3f}; of those that raised an alarm {found['fault_recall_of_alarmed']:.3f}"
    return [table, recall]


def cost(found: Figures) -> Shown:
    """Time and bytes."""
    table = Table("at 40 features", "", "target")
    table.add_row("a decision, scored and matured", f"{found['microseconds_per_event']:.1f} µs", "50")
    table.add_row("a diagnosis with labels", f"{found['diagnosis_ms']:.0f} ms", "100")
    table.add_row("a diagnosis without", f"{found['diagnosis_unlabelled_ms']:.0f} ms", "100")
    table.add_row("the panel's state", f"{found['state_bytes']:,} bytes", "64,000")
    table.add_row("river's ADWIN, one scalar", f"{found['adwin_microseconds']:.1f} µs", "")
    if "ksdrift_ms" in found:
        table.add_row("alibi-detect's KSDrift, a window of 500", f"{found['ksdrift_ms']:.0f} ms", "")
    return [table]


def delayed(found: Figures) -> Shown:
    """Verdicts on labels that come late."""
    table = Table(
        "labels told", "decisions", "alarms", "final verdicts", "of label, concept or mixed", "positive read"
    )
    for name, runs in (
        ("when the window closes", [found["delayed_labels"]]),
        ("as soon as known", found["delayed_labels_told_early"]),
    ):
        kinds = sum((Counter(run["verdicts"]) for run in runs), Counter())
        read = [share for run in runs for share in run["positive_read"]]
        table.add_row(
            name,
            f"{len(runs)} x {runs[0]['events']:,}",
            str(sum(run["alarms"] for run in runs)),
            ", ".join(f"{kind} {count}" for kind, count in kinds.items()),
            str(sum(run["of_labels"] for run in runs)),
            (f"{min(read):.3f} to {max(read):.3f}" if read else "") + f" of {runs[0]['positive']:.3f}",
        )
    return [table]


TABLES: dict[str, Callable[[Figures], Shown]] = {
    "alarms": alarms,
    "delay": delay,
    "protocol": protocol,
    "faults": faults,
    "cost": cost,
    "delayed": delayed,
}
