"""What legal holds keep: datasets by their names, persons by the identifiers that the graph knows of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from counterfoil_chassis.clock import Clock, to_micros
from counterfoil_chassis.texts import WholeTexts

from counterfoil_ingest.hold_errors import DatasetHeldError, HoldsUnknownError

_FRESH_SECONDS: Final = 3600.0
"""The graph says every ten minutes whom holds name: after this it is not known who belongs to them by now."""
_RETRY: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold on a dataset, or on persons when that is empty; `expires_us` None = it does not end by itself."""

    workspace: str
    legal_hold_id: str
    dataset: str
    expires_us: int | None


@dataclass(frozen=True, slots=True)
class _Told:
    holds: frozenset[str]
    texts: WholeTexts | None
    at: float


class Holds:
    """The legal holds of every workspace, as governance and the graph tell them; until both did, nothing may go."""

    def __init__(self, clock: Clock, *, monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._holds: dict[str, Hold] = {}
        self._told: dict[str, _Told] = {}
        self.changed: Callable[[], None] = lambda: None
        self.known = False
        """Whether governance has told of every hold there is."""

    def put(self, key: str, hold: Hold) -> None:
        """Keep a hold under the key that governance tells of it by."""
        self._holds[key] = hold
        self.changed()

    def delete(self, key: str) -> None:
        """Forget a hold that is released."""
        hold = self._holds.pop(key, None)
        if hold is not None and not self.on_persons(hold.workspace):
            self._told.pop(hold.workspace, None)
        self.changed()

    def tell_persons(self, workspace: str, legal_hold_ids: Collection[str], identifiers: Collection[str]) -> None:
        """Keep whom the holds on persons name, by every identifier of theirs."""
        texts = WholeTexts(identifiers) if identifiers else None
        self._told[workspace] = _Told(frozenset(legal_hold_ids), texts, self._monotonic())
        self.changed()

    def active(self, workspace: str) -> frozenset[str]:
        """Return the ids of the holds that keep something now."""
        return frozenset(each.legal_hold_id for each in self._active(workspace))

    def on_persons(self, workspace: str) -> frozenset[str]:
        """Return the ids of those on persons."""
        return frozenset(each.legal_hold_id for each in self._active(workspace) if not each.dataset)

    def on_dataset(self, workspace: str, dataset: str) -> list[str]:
        """Return the ids of those on a dataset."""
        return sorted(each.legal_hold_id for each in self._active(workspace) if each.dataset == dataset)

    def datasets(self, workspace: str) -> frozenset[str]:
        """Return the datasets that holds are on; raise HoldsUnknownError."""
        self._require_known()
        return frozenset(each.dataset for each in self._active(workspace) if each.dataset)

    def require_free(self, workspace: str, datasets: Collection[str]) -> None:
        """Raise DatasetHeldError when a hold is on one of some datasets, HoldsUnknownError."""
        self._require_known()
        held = {name: ids for name in sorted(datasets) if (ids := self.on_dataset(workspace, name))}
        if held:
            ids = sorted({each for some in held.values() for each in some})
            raise DatasetHeldError(
                f"A legal hold keeps {', '.join(held)}; nothing was erased. Release the hold first: {', '.join(ids)}.",
                metadata={"datasets": ",".join(held), "legal_hold_ids": ",".join(ids)},
            )

    def persons(self, workspace: str) -> WholeTexts | None:
        """Return what the identifiers of held persons are found by, None = nobody is held; raise HoldsUnknownError."""
        self._require_known()
        wanted = self.on_persons(workspace)
        if not wanted:
            return None
        told = self._told.get(workspace)
        if told is None or not wanted <= told.holds or self._monotonic() - told.at > _FRESH_SECONDS:
            raise HoldsUnknownError(
                "The graph has not said yet whom the legal holds on persons name. Try again in a moment.",
                retry_after=_RETRY,
            )
        return told.texts

    def _active(self, workspace: str) -> list[Hold]:
        now = to_micros(self._clock.now())
        here = [each for each in self._holds.values() if each.workspace == workspace]
        return [each for each in here if each.expires_us is None or now < each.expires_us]

    def _require_known(self) -> None:
        if not self.known:
            raise HoldsUnknownError(
                "Governance has not said yet what legal holds keep. Try again in a moment.", retry_after=_RETRY
            )
