"""The artifact of a forecast model: JSON parameters, addressed by the SHA-256 of their canonical form.

Never code, never pickle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson
from counterfoil_chassis.canonical import canonical_json

from counterfoil_models.documents import inputs_document, inputs_of, spec_document, spec_of
from counterfoil_models.entities import ForecastSpec, Input, Method
from counterfoil_models.forecasting import Smoothing

KIND = "forecast"
LAYOUT = 1


@dataclass(frozen=True)
class ArtifactSeries:
    """What serves one series; `floor_zero` keeps it from going below 0, where its history never did."""

    series: str
    method: Method
    smoothing: Smoothing | None
    floor_zero: bool


@dataclass(frozen=True)
class Artifact:
    """All that is needed, with a snapshot, to forecast; `first_day` and `last_day` bound the training data."""

    spec: ForecastSpec
    timezone: str
    inputs: tuple[Input, ...]
    first_day: date
    last_day: date
    interval_scale: float
    series: tuple[ArtifactSeries, ...]
    libraries: Mapping[str, str]

    def encode(self) -> bytes:
        """Return the canonical JSON."""
        return canonical_json(
            {
                "kind": KIND,
                "layout": LAYOUT,
                "spec": spec_document(self.spec),
                "timezone": self.timezone,
                "inputs": inputs_document(self.inputs),
                "first_day": self.first_day.isoformat(),
                "last_day": self.last_day.isoformat(),
                "interval_scale": self.interval_scale,
                "series": [_series_document(one) for one in self.series],
                "libraries": dict(self.libraries),
            }
        )


def decode(data: bytes) -> Artifact:
    """Read an artifact whose hash was verified."""
    document = orjson.loads(data)
    if (document["kind"], document["layout"]) != (KIND, LAYOUT):
        raise ValueError(f"no reader for artifacts of kind {document['kind']}, layout {document['layout']}")
    return Artifact(
        spec=spec_of(document["spec"]),
        timezone=document["timezone"],
        inputs=inputs_of(document["inputs"]),
        first_day=date.fromisoformat(document["first_day"]),
        last_day=date.fromisoformat(document["last_day"]),
        interval_scale=float(document["interval_scale"]),
        series=tuple(_series_of(one) for one in document["series"]),
        libraries=document["libraries"],
    )


def _series_document(one: ArtifactSeries) -> dict[str, Any]:
    parameters = {} if one.smoothing is None else vars(one.smoothing)
    return {
        "series": one.series,
        "method": one.method.value,
        "parameters": parameters,
        "floor_zero": one.floor_zero,
    }


def _series_of(document: dict[str, Any]) -> ArtifactSeries:
    parameters = document["parameters"]
    smoothing = Smoothing(**{name: float(value) for name, value in parameters.items()}) if parameters else None
    return ArtifactSeries(document["series"], Method(document["method"]), smoothing, document["floor_zero"])
