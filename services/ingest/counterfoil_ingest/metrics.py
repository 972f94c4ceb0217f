"""What ingest measures of itself, beside what every process does."""

from counterfoil_chassis.metrics import Sampled

LAKE_BEHIND = Sampled(
    "counterfoil_ingest_lake_behind_records",
    "Records of the log that are not in the lake yet, of the workspace that has most of them.",
    by=(),
)
LAKE_BEHIND_SECONDS = Sampled(
    "counterfoil_ingest_lake_behind_seconds",
    "Seconds since the lake had every record of the log, of the workspace that waits longest; 0 = it has them.",
    by=(),
)
MONITORS_FAILING = Sampled(
    "counterfoil_ingest_monitors_failing",
    "Monitors whose promise is broken, or that could not be evaluated, of all workspaces.",
    by=(),
)
DATASETS_HELD = Sampled(
    "counterfoil_ingest_datasets_held",
    "Datasets that a monitor holds, of all workspaces: nothing new is made from them until somebody resumes them.",
    by=(),
)
QUARANTINED = Sampled(
    "counterfoil_ingest_quarantined_records",
    "Records that lie open in quarantine, neither replayed nor set aside, of all workspaces.",
    by=(),
)
QUARANTINED_MOST = Sampled(
    "counterfoil_ingest_quarantined_records_most",
    "Records that lie open in quarantine, of the dataset of a workspace that has most of them.",
    by=(),
)
