"""What ingest measures of itself, beside what every process does."""

from counterfoil_chassis.metrics import Sampled

LAKE_BEHIND = Sampled(
    "counterfoil_ingest_lake_behind_records",
    "Records of the log that are not in the lake yet, of the workspace that has most of them.",
    by=(),
)
