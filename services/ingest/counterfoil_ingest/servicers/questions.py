"""What ingest asks of the policies before it shows classified fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from counterfoil_chassis.identity import Caller
from counterfoil_chassis.policy import Answer, PolicyChecker, Question

from counterfoil_ingest.masking import Mask, MaskedField

SCOPE: Final = "ingest.read"
"""The scope of every method that asks."""

READ: Final = "read"
READ_PSEUDONYM: Final = "read_pseudonym"


class FieldPolicies:
    """Asks once per dataset and classification whether a caller reads such fields as they are, or as pseudonyms."""

    def __init__(self, policies: PolicyChecker, caller: Caller) -> None:
        self._policies = policies
        self._caller = caller
        self.answers: list[Answer] = []
        """What the policies answered, for the receipt."""

    async def masks(self, dataset: str, classified: Mapping[str, str]) -> Sequence[MaskedField]:
        """Return which classified fields (by JSON path) of a dataset the caller does not see; see `masking.Masks`.

        Raises PolicyUnavailableError.
        """
        masked: list[MaskedField] = []
        for classification in sorted(set(classified.values())):
            plain = await self._ask(READ, dataset, classification)
            if plain.allowed:
                continue
            pseudonym = await self._ask(READ_PSEUDONYM, dataset, classification)
            mask = Mask.PSEUDONYM if pseudonym.allowed else Mask.NULL
            paths = sorted(path for path, of in classified.items() if of == classification)
            masked += [MaskedField(dataset, path, classification, mask, plain.policy_ids) for path in paths]
        return masked

    async def _ask(self, action: str, dataset: str, classification: str) -> Answer:
        context = {"scope": SCOPE, "classification": classification}
        answer = await self._policies.ask(self._caller, Question(action, "Dataset", dataset, context=context))
        self.answers.append(answer)
        return answer
