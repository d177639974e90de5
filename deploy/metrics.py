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

OUTCOMES = Counter(
    "eddyline_outcomes_total", "Outcome events, by what came of them: docs/labels.md.", ["result"]
)
EXAMPLES = Counter("eddyline_examples_total", "Decisions whose label became known, by label.", ["label"])
UNTRACKED = Counter(
    "eddyline_untracked_decisions_total", "Scored decisions that get no example, by reason.", ["reason"]
)
OPEN = Gauge("eddyline_open_decisions", "Decisions held here whose window is open.")
HELD = Gauge("eddyline_held_outcomes", "Outcomes held here for decisions that may arrive after them.")
OPEN_BYTES = Gauge("eddyline_open_bytes", "Bytes of what waits here and of the sample's users, about.")
SAMPLES = Counter(
    "eddyline_samples_total",
    "Records for the drift monitor: monitored decisions, scored or matured.",
    ["kind"],
)
SAMPLED_SHARE = Gauge(
    "eddyline_sampled_share", "Share of users whose decisions are monitored now, mean of the partitions here."
)
_COHORT = ["model", "slice", "value"]
CLOSED = Counter(
    "eddyline_closed_decisions_total",
    "Decisions whose window is over, by model version, and by slice and value (empty: all).",
    _COHORT,
)
CLOSED_POSITIVES = Counter("eddyline_closed_positives_total", "Positives among them.", _COHORT)
CLOSED_SCORES = Counter("eddyline_closed_scores_total", "Sum of their scores.", _COHORT)
CLOSED_LOG_LOSS = Counter("eddyline_closed_log_loss_total", "Sum of their log-losses.", _COHORT)
QUALITY_DECISIONS = Gauge(
    "eddyline_quality_decisions", "Effective number of closed decisions behind the measures.", _COHORT
)
QUALITY_AUC = Gauge("eddyline_quality_auc", "Area under the ROC curve over the latest closed ones.", _COHORT)
QUALITY_LOG_LOSS = Gauge("eddyline_quality_log_loss", "Mean log-loss over them.", _COHORT)
QUALITY_CALIBRATION = Gauge(
    "eddyline_quality_calibration_error", "Expected calibration error over them.", _COHORT
)
QUALITY_BASE_RATE = Gauge("eddyline_quality_base_rate", "Share of positives among them.", _COHORT)

MODEL_LIVE = Gauge(
    "eddyline_model_live",
    "1 for each model that scores here, by role: live, or beside it as shadow, canary or previous.",
    ["model", "role"],
)
RELEASE = Gauge("eddyline_release", "Number of the release that is live here; 0: none, or a fixed model.")
REGISTRY_RELEASE = Gauge(
    "eddyline_registry_release",
    "Highest release number seen here; above the one that is live: it is refused.",
)
SWAPS = Counter("eddyline_swaps_total", "Times that what scores here was replaced.")
SWAP_SECONDS = Histogram(
    "eddyline_swap_seconds",
    "Reading a release, and loading, verifying and warming what it names.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
SWAP_LAG_SECONDS = Histogram(
    "eddyline_swap_lag_seconds",
    "From a release's creation until it is live here; not of those that are older than the worker's start.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
SWAPS_REFUSED = Counter(
    "eddyline_swaps_refused_total",
    "Versions of a release that are no good and do not score here, by reason; what was live before does.",
    ["reason"],
)
REGISTRY_FAILURES = Counter(
    "eddyline_registry_failures_total",
    "Looks that found the registry, or a version in it, unreadable; the next look tries again.",
)
CORRECTION = Gauge(
    "eddyline_correction",
    "Share of positives that a model's scores are corrected to, of models with a prior correction.",
    ["model"],
)
BESIDE_SCORES = Counter("eddyline_beside_scores_total", "Decisions that a model beside the live one scored.")
BESIDE_FAILURES = Counter(
    "eddyline_beside_failures_total", "Batches that it failed on; the live model's scores stood."
)

LOG_ROWS = Counter(
    "eddyline_log_rows_total", "Examples written to the example log, those that a crash repeats included."
)
LOG_FILES = Counter("eddyline_log_files_total", "Files that they went to.")
LOG_FLUSH_SECONDS = Histogram(
    "eddyline_log_flush_seconds",
    "Writing what was buffered and committing its offsets.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
LOG_LAST_FLUSH = Gauge("eddyline_log_last_flush_timestamp_seconds", "When that was done last, Unix time.")
LOG_BUFFERED = Gauge("eddyline_log_buffered_rows", "Examples read and not yet written.")
LOG_MERGED = Counter("eddyline_log_merged_files_total", "Small files that a compaction made one of.")
LOG_COMPACTION_FAILURES = Counter(
    "eddyline_log_compaction_failures_total", "Compactions that failed; their files stay as they are."
)

MONITOR_WATCHING = Gauge("eddyline_monitor_watching", "1 where the samples are watched, 0 in a standby.")
MONITORED = Counter(
    "eddyline_monitor_samples_total",
    "Samples read, by kind: scored, matured, repeated (and not watched again), or of an unknown-model.",
    ["kind"],
)
MONITOR_LATEST = Gauge(
    "eddyline_monitor_latest_decision_timestamp_seconds",
    "Event time of the latest decision watched, Unix time.",
)
UNWATCHED = Counter(
    "eddyline_monitor_unwatched_total",
    "Samples whose value of a slice is too rare in the reference to be watched on its own.",
    ["model", "slice"],
)
VERDICTS = Counter(
    "eddyline_drift_verdicts_total",
    "Verdicts written, each revision of an episode and what a crash repeats.",
    ["model", "kind", "action"],
)
EVIDENCE = Gauge(
    "eddyline_drift_evidence_log10",
    "Evidence of a change, by model version, and by slice and value (empty: all); an alarm is raised at the threshold.",
    _COHORT,
)
EVIDENCE_THRESHOLD = Gauge("eddyline_drift_threshold_log10", "That threshold.", _COHORT)
DRIFT_STATE = Gauge(
    "eddyline_drift_state",
    "0 watching, 1 diagnosing an alarm, 2 settling: gathering what to compare with from now on.",
    _COHORT,
)
DRIFT_OPEN = Gauge(
    "eddyline_drift_open",
    "1 while the episode is open whose latest verdict is of this kind.",
    [*_COHORT, "kind"],
)

TRAINER_ACTIVE = Gauge("eddyline_trainer_active", "1 in the trainer that decides, 0 in a standby.")
RETRAIN_REQUESTS = Counter(
    "eddyline_retrain_requests_total", "Requests to retrain, by who asks.", ["trigger"]
)
RETRAIN_STATE = Gauge("eddyline_retrain_state", "Requests that are in this state now.", ["state"])
RETRAINS = Counter("eddyline_retrains_total", "Trainings that ended, by what came of them.", ["outcome"])
RETRAIN_SECONDS = Histogram(
    "eddyline_retrain_seconds",
    "What they took, all attempts together.",
    buckets=(10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400),
)
RETRAIN_PROGRESS = Gauge(
    "eddyline_retrain_progress",
    "The running job: `epoch` and `epochs`, `rows`, `loss`, `attempt`; 0 where none runs.",
    ["what"],
)
RELEASES = Counter("eddyline_releases_total", "Releases that this trainer published, by change.", ["change"])
WATCH_EVIDENCE = Gauge(
    "eddyline_watch_evidence_log10",
    "Evidence that a model is worse than the one it is compared with, at its highest; it acts at 2.",
    ["compared"],
)
WATCH_PAIRS = Gauge(
    "eddyline_watch_pairs", "Decisions with a label on which they were compared.", ["compared"]
)
BUDGET_SPENT = Gauge("eddyline_budget_spent_seconds", "Seconds of training in the last 24 h.")
TRAINER_FAILURES = Counter(
    "eddyline_trainer_failures_total",
    "What the trainer could not do and tries again: registry, jobs, examples, announce; or skipped: drift, samples, retrains.",
    ["what"],
)


def serve(port: int) -> None:
    """Serve the metrics on loopback ``port``, in a thread of its own."""
    start_http_server(port, addr="127.0.0.1")
