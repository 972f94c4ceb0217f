"""What is attributed, with every default filled in, and as a document."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from counterfoil_chassis.clock import to_micros
from counterfoil_chassis.errors import FieldViolation

from counterfoil_models.documents import Document
from counterfoil_models.errors import SpecInvalidError

DEFAULT_PURPOSE = "measurement"
DEFAULT_LOOKBACK_DAYS = 30
DEFAULT_HALF_LIFE_DAYS = 7.0
MAX_DAYS = 3_660
"""What a period may span."""

FIRST_YEAR, LAST_YEAR = 1971, 9998
DAY_US = 86_400_000_000
_PURPOSE = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Subject(enum.Enum):
    """What gets the credit."""

    CHANNEL = "channel"
    CAMPAIGN = "campaign"


class Window(enum.Enum):
    """Which touchpoints a conversion can be credited to."""

    LOOKBACK = "lookback"
    FLIGHT = "flight"


@dataclass(frozen=True)
class CostSource:
    """A dataset with spend per day; its channel, or the property with its campaign, says whose."""

    dataset: str
    time_field: str
    amount_field: str
    micros: bool
    currency: str
    channel: str = ""
    campaign_field: str = ""


@dataclass(frozen=True)
class AttributionSpec:
    """What is attributed; days are the workspace's, the last one included."""

    conversion_type: str
    first_day: date
    last_day: date
    subject: Subject = Subject.CHANNEL
    window: Window = Window.LOOKBACK
    lookback_days: int = 0
    half_life_days: float = 0.0
    costs: tuple[CostSource, ...] = ()

    @property
    def days_read(self) -> tuple[date, date] | None:
        """Return the first and the last day whose records count; None = a flight may have begun on any."""
        if self.window is not Window.LOOKBACK:
            return None
        return self.first_day - timedelta(days=self.lookback_days), self.last_day


@dataclass(frozen=True)
class Period:
    """The period in microseconds, from `begin` on and before `end`."""

    begin: int
    end: int


def completed(spec: AttributionSpec) -> AttributionSpec:
    """Fill in the defaults (0 = not said); raise SpecInvalidError when its fields contradict each other."""
    faults = []
    for field, day in (("first_day", spec.first_day), ("last_day", spec.last_day)):
        if not FIRST_YEAR <= day.year <= LAST_YEAR:
            faults.append((field, "OUT_OF_RANGE", f"Days lie between the years {FIRST_YEAR} and {LAST_YEAR}."))
    if spec.last_day < spec.first_day:
        faults.append(("last_day", "BEFORE_FIRST_DAY", "The last day lies before the first."))
    elif (spec.last_day - spec.first_day).days >= MAX_DAYS:
        faults.append(("last_day", "TOO_LONG", f"A period has at most {MAX_DAYS} days."))
    for place, one in enumerate(spec.costs):
        if spec.subject is Subject.CHANNEL and not one.channel:
            text = "Attribution by channel needs the channel that the cost belongs to."
            faults.append((f"costs[{place}].channel", "REQUIRED", text))
        if spec.subject is Subject.CAMPAIGN and not one.campaign_field:
            text = "Attribution by campaign needs the property of the cost that names the campaign."
            faults.append((f"costs[{place}].campaign_field", "REQUIRED", text))
    if faults:
        violations = [FieldViolation(f"spec.{field}", reason, text) for field, reason, text in faults]
        raise SpecInvalidError(" ".join(text for _, _, text in faults), violations=violations)
    lookback = (spec.lookback_days or DEFAULT_LOOKBACK_DAYS) if spec.window is Window.LOOKBACK else 0
    return replace(spec, lookback_days=lookback, half_life_days=spec.half_life_days or DEFAULT_HALF_LIFE_DAYS)


def completed_purpose(purpose: str) -> str:
    """Return the purpose, `measurement` when none is said; raise SpecInvalidError for one that cannot be a name."""
    if purpose and not _PURPOSE.fullmatch(purpose):
        text = "A purpose is a name of small letters, digits and underscores, e.g. `measurement`."
        raise SpecInvalidError(text, violations=[FieldViolation("purpose", "BAD_FORMAT", text)])
    return purpose or DEFAULT_PURPOSE


def day_of(text: str, *, field: str) -> date:
    """Read an ISO 8601 day; raise SpecInvalidError, naming the field, when the calendar has none such."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        message = f"{text} is no day of the calendar."
        raise SpecInvalidError(message, violations=[FieldViolation(field, "BAD_DAY", message)]) from error


def period_of(spec: AttributionSpec, timezone: str) -> Period:
    """Return the period between midnights of the timezone."""
    zone = ZoneInfo(timezone)
    begin, end = (
        to_micros(datetime.combine(day, time(), zone).astimezone(UTC))
        for day in (spec.first_day, spec.last_day + timedelta(days=1))
    )
    return Period(begin, end)


def spec_document(spec: AttributionSpec) -> Document:
    """Return a spec as JSON."""
    return {
        "conversion_type": spec.conversion_type,
        "first_day": spec.first_day.isoformat(),
        "last_day": spec.last_day.isoformat(),
        "subject": spec.subject.value,
        "window": spec.window.value,
        "lookback_days": spec.lookback_days,
        "half_life_days": spec.half_life_days,
        "costs": [dict(vars(one)) for one in spec.costs],
    }


def spec_of(document: Document) -> AttributionSpec:
    """Read a spec."""
    return AttributionSpec(
        **{
            **document,
            "first_day": date.fromisoformat(document["first_day"]),
            "last_day": date.fromisoformat(document["last_day"]),
            "subject": Subject(document["subject"]),
            "window": Window(document["window"]),
            "half_life_days": float(document["half_life_days"]),
            "costs": tuple(CostSource(**one) for one in document["costs"]),
        }
    )
