"""What is said to libraries by the environment, since they listen nowhere else."""

import os


def silence_dlt() -> None:
    """Have dlt tell nobody of its use; call it before dlt is used."""
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")  # noqa: TID251 - this is settings.py
