"""The life of model versions as rules: each returns the events to append; state and champion are views over events."""

from collections.abc import Sequence
from dataclasses import replace

from counterfoil_chassis.errors import FieldViolation

from counterfoil_models.entities import (
    SERVICE_ACTOR,
    Aggregation,
    Change,
    ForecastSpec,
    ModelEvent,
    ModelVersion,
    State,
)
from counterfoil_models.errors import (
    NoEarlierChampionError,
    SpecInvalidError,
    StateTransitionError,
)

PROMOTABLE = frozenset({State.VALIDATED, State.RETIRED, State.ROLLED_BACK})


def completed_spec(spec: ForecastSpec) -> ForecastSpec:
    """Fill in the defaults of a spec (0 = not said); raise SpecInvalidError when its fields contradict each other."""
    series = spec.series
    faults = []
    if series.aggregation is Aggregation.SUM and not series.value_field:
        faults.append(("value_field", "REQUIRED", "A sum needs the property that is summed."))
    if series.aggregation is Aggregation.COUNT and series.value_field:
        faults.append(("value_field", "NOT_ALLOWED", "A count has no property that is summed; leave it empty."))
    if series.lookup is not None and not series.dimension:
        faults.append(("dimension", "REQUIRED", "A lookup needs the property of it that names the series."))
    if faults:
        violations = [FieldViolation(f"forecast.series.{field}", reason, text) for field, reason, text in faults]
        raise SpecInvalidError(" ".join(text for _, _, text in faults), violations=violations)
    return replace(
        spec,
        horizon_days=spec.horizon_days or 28,
        season_days=spec.season_days or 7,
        coverage=spec.coverage or 0.8,
        min_active_days=spec.min_active_days or 300,
    )


def begin(version: int, *, actor: str) -> list[Change]:
    """Begin a version's life: training was asked for."""
    return [Change(version, None, State.DRAFT, actor, "Training was asked for.")]


def finish(version: int, *, accepted: bool, reason: str, trained: bool) -> list[Change]:
    """End a training by its verdict; without an artifact the version is rejected untrained."""
    end = State.VALIDATED if accepted else State.REJECTED
    if not trained:
        return [Change(version, State.DRAFT, end, SERVICE_ACTOR, reason)]
    return [
        Change(version, State.DRAFT, State.TRAINED, SERVICE_ACTOR, "Every series with enough data is fitted."),
        Change(version, State.TRAINED, end, SERVICE_ACTOR, reason),
    ]


def fail(version: int, *, reason: str) -> list[Change]:
    """Record that a training failed; the version stays a draft with its error."""
    return [Change(version, State.DRAFT, State.DRAFT, SERVICE_ACTOR, reason)]


def promote(target: ModelVersion, champion: int, *, actor: str, reason: str) -> list[Change]:
    """Make a version the champion and retire the present one (0 = none); the champion again changes nothing.

    Raises StateTransitionError when its state does not let it serve.
    """
    if target.version == champion:
        return []
    _require_promotable(target)
    changes = [Change(target.version, target.state, State.CHAMPION, actor, reason)]
    if champion:
        retired = f"Version {target.version} was promoted."
        changes.insert(0, Change(champion, State.CHAMPION, State.RETIRED, actor, retired))
    return changes


def ask_approval(target: ModelVersion, *, actor: str, reason: str) -> list[Change]:
    """Have a version wait for a second person; raises StateTransitionError when its state does not let it serve."""
    _require_promotable(target)
    return [Change(target.version, target.state, State.PENDING_APPROVAL, actor, reason)]


def approve(target: ModelVersion, champion: int, *, approver: str, reason: str) -> list[Change]:
    """Make a version that waited the champion, as its approver said, and retire the present one (0 = none)."""
    changes = [Change(target.version, State.PENDING_APPROVAL, State.APPROVED, approver, reason)]
    if champion:
        retired = f"Version {target.version} was promoted."
        changes.append(Change(champion, State.CHAMPION, State.RETIRED, SERVICE_ACTOR, retired))
    return [*changes, Change(target.version, State.APPROVED, State.CHAMPION, SERVICE_ACTOR, reason)]


def withdraw(target: ModelVersion, *, reason: str) -> list[Change]:
    """End a version's waiting without an approval; it can be promoted, or asked for, again."""
    return [Change(target.version, State.PENDING_APPROVAL, State.VALIDATED, SERVICE_ACTOR, reason)]


def rollback(events: Sequence[ModelEvent], *, actor: str, reason: str) -> list[Change]:
    """Take the present champion back and let the one before it serve; events oldest first, of one model.

    Raises NoEarlierChampionError when none served before.
    """
    champions = champions_so_far(events)
    if len(champions) < 2:
        raise NoEarlierChampionError("No version served before the present champion; promote another version instead.")
    earlier, present = champions[-2:]
    return [
        Change(present, State.CHAMPION, State.ROLLED_BACK, actor, reason),
        Change(earlier, State.RETIRED, State.CHAMPION, actor, reason),
    ]


def champions_so_far(events: Sequence[ModelEvent]) -> list[int]:
    """Return the champions a rollback can go back through, the present one last."""
    champions: list[int] = []
    for event in events:
        if event.to_state is State.ROLLED_BACK:
            champions.pop()
        elif event.to_state is State.CHAMPION and champions[-1:] != [event.version]:
            champions.append(event.version)
    return champions


def _require_promotable(target: ModelVersion) -> None:
    if target.state not in PROMOTABLE:
        raise StateTransitionError(
            f"Version {target.version} is {target.state.name}; "
            "only a validated, retired or rolled-back version can be promoted.",
            metadata={"state": target.state.name},
        )


def fields_read(spec: ForecastSpec) -> dict[str, tuple[str, ...]]:
    """Return, per dataset, the properties that a model reads; a lookup in the dataset itself adds to them."""
    series, lookup = spec.series, spec.series.lookup
    own = [series.time_field, series.value_field, *(each.field for each in series.filters)]
    found = {series.dataset: own}
    if lookup is None:
        own.append(series.dimension)
    else:
        own.append(lookup.key)
        found.setdefault(lookup.dataset, []).extend((lookup.key, series.dimension))
    return {dataset: tuple(dict.fromkeys(filter(None, fields))) for dataset, fields in found.items()}
