"""Attribution beside lift, their receipts and replays."""

from typing import Any

from counterfoil_cli.client import Client

_TIMEOUT = 65

Json = dict[str, Any]


def attribute(api: Client, spec: Json, *, purpose: str = "measurement") -> Json:
    """Attribute conversions; asking the same again gives the same answer and receipt."""
    return api.post("/v1/attribution", {"spec": spec, "purpose": purpose}, headers=_long(), timeout=_TIMEOUT)


def measure_lift(api: Client, spec: Json, *, purpose: str = "measurement") -> Json:
    """Measure a lift by every method."""
    return api.post("/v1/lift", {"spec": spec, "purpose": purpose}, headers=_long(), timeout=_TIMEOUT)


def read_receipt(api: Client, receipt_id: str) -> Json:
    """Return what stands behind an output."""
    return api.get(f"/v1/receipts/{receipt_id}")


def replay_receipt(api: Client, receipt_id: str) -> Json:
    """Make the output again from its cited inputs and compare."""
    return api.post(f"/v1/receipts/{receipt_id}:replay", headers=_long(), timeout=_TIMEOUT)


def estimates_of(lift: Json, measure: str) -> dict[str, Json]:
    """Return the estimates of one measure by method."""
    return {each["method"]: each for each in lift["estimates"] if each["measure"] == measure}


def holds(estimate: Json, truth: float) -> bool:
    """Tell whether an estimate's interval contains a value."""
    return bool(estimate["lower"] <= truth <= estimate["upper"])


def _long() -> dict[str, str]:
    return {"Request-Timeout": "60"}
