"""Every Prometheus name of every process, with its type, unit and meaning.

Processes change these objects and :func:`serve` shows them; names are nowhere else.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, start_http_server

RECORDS = Counter("eddyline_records_total", "Records read from the events topic.")
SKIPPED = Counter(
    "eddyline_events_skipped_total", "Events read again after a restart or rebalance and not folded twice."
)
DEAD_LETTERS = Counter("eddyline_dead_letters_total", "Records that could not be used.", ["reason"])
DECISIONS = Counter("eddyline_decisions_total", "Decisions scored, by model version.", ["model"])
SCORING_FAILURES = Counter(
    "eddyline_scoring_failures_total", "Batches that the model failed on; they got priors."
)
SCORES = Histogram(
    "eddyline_score", "Distribution of the scores.", buckets=[0.05 * step for step in range(1, 20)] + [1.0]
)
LATENCY = Histogram(
    "eddyline_event_to_score_seconds",
    "From the producer's timestamp to the acknowledged score.",
    buckets=(
        0.005,
        0.01,
        0.015,
        0.02,
        0.03,
        0.04,
        0.05,
        0.075,
        0.1,
        0.15,
        0.2,
        0.3,
        0.5,
        1,
        2,
        5,
        10,
        30,
        60,
        300,
    ),
)
BATCH_RECORDS = Histogram(
    "eddyline_batch_records", "Records of one processed run.", buckets=[4**power for power in range(9)]
)
STAGE_SECONDS = Counter("eddyline_stage_seconds_total", "Seconds spent, by stage of the hot path.", ["stage"])
PROFILES = Gauge("eddyline_profiles", "Users whose profile is held here.")
PROFILE_BYTES = Gauge("eddyline_profile_bytes", "Bytes of the profile rows held here, without their index.")
RESTORED = Gauge("eddyline_profiles_restored_records", "Changelog records read when partitions came here.")
EVICTED = Counter("eddyline_profiles_evicted_total", "Profiles forgotten after being idle.")


def serve(port: int) -> None:
    """Serve the metrics on loopback ``port``, in a thread of its own."""
    start_http_server(port, addr="127.0.0.1")
