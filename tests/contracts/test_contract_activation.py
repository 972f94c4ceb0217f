"""Whatever is submitted and activated in whatever order, what governs each dataset is what a model says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import grpc
from counterfoil_chassis.status import failure_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contracts.calls import Contracts, document

DATASETS = ("orders", "refunds", "visits")
OPERATIONS = st.tuples(
    st.sampled_from(["submit", "submit and activate", "activate", "activate for a reason"]),
    st.sampled_from(["shop", "web"]),
    st.integers(0, 3),
)
_numbers = itertools.count()


def datasets_of(contract_id: str, version: int) -> tuple[str, ...]:
    """Return what a version governs: the contracts overlap in every way there is."""
    offset = version + (contract_id == "web")
    return tuple(sorted({DATASETS[offset % 3], DATASETS[(offset * 2) % 3]}))


def is_too_low(version: int, in_force: int) -> bool:
    """Tell whether `<version>.0.0` is too low a number beside the version in force: only the datasets differ."""
    return version <= in_force


@dataclass
class Model:
    """The versions with their states, and who governs what."""

    states: dict[tuple[str, int], str] = field(default_factory=dict)
    governed: dict[str, tuple[str, int]] = field(default_factory=dict)
    been_in_force: set[tuple[str, int]] = field(default_factory=set)

    def activate(self, contract_id: str, version: int, *, reason: bool) -> str:
        key = (contract_id, version)
        if key not in self.states:
            known = any(contract == contract_id for contract, _ in self.states)
            return "VERSION_NOT_FOUND" if known else "CONTRACT_NOT_FOUND"
        if self.states[key] == "active":
            return ""
        if key in self.been_in_force and not reason:
            return "REASON_REQUIRED"
        before = {by for by in self.governed.values() if by[0] == contract_id}
        if key not in self.been_in_force and any(is_too_low(version, in_force) for _, in_force in before):
            return "VERSION_TOO_LOW"
        wanted = datasets_of(contract_id, version)
        if any(self.governed.get(dataset, key)[0] != contract_id for dataset in wanted):
            return "DATASET_TAKEN"
        for other, state in self.states.items():
            if other[0] == contract_id and state == "active":
                self.states[other] = "deprecated"
        self.governed = {name: by for name, by in self.governed.items() if by[0] != contract_id}
        self.governed |= dict.fromkeys(wanted, key)
        self.states[key] = "active"
        self.been_in_force.add(key)
        return ""

    def submit(self, contract_id: str, version: int, *, activate: bool) -> str:
        before = self.states.copy()
        self.states.setdefault((contract_id, version), "draft")
        outcome = self.activate(contract_id, version, reason=False) if activate else ""
        if outcome:
            self.states = before
        return outcome


async def perform(contracts: Contracts, workspace: str, operation: tuple[str, str, int]) -> str:
    name, contract_id, version = operation
    number = f"{version}.0.0"
    try:
        if name.startswith("submit"):
            text = document(contract_id, number, datasets=datasets_of(contract_id, version))
            await contracts.submit(text, activate=name != "submit", workspace=workspace)
        else:
            reason = "because" if name != "activate" else ""
            await contracts.activate(contract_id, number, reason=reason, workspace=workspace)
    except grpc.aio.AioRpcError as error:
        return failure_of(error).reason
    return ""


def expect(model: Model, operation: tuple[str, str, int]) -> str:
    name, contract_id, version = operation
    if name.startswith("submit"):
        return model.submit(contract_id, version, activate=name != "submit")
    return model.activate(contract_id, version, reason=name != "activate")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, max_size=14))
async def test_governed_datasets_follow_the_model(contracts: Contracts, operations: list[Any]) -> None:
    workspace, model = f"w{next(_numbers)}", Model()
    for operation in operations:
        assert await perform(contracts, workspace, operation) == expect(model, operation), operation
    watched = {
        key.removeprefix(f"{workspace}/"): (compiled.contract_id, compiled.version)
        for key, compiled in (await contracts.in_force()).items()
        if key.startswith(f"{workspace}/") and compiled.contract_id not in ("events", "identity_decisions")
    }
    assert watched == {name: (contract, f"{version}.0.0") for name, (contract, version) in model.governed.items()}
    names = {"draft": 1, "active": 2, "deprecated": 3}
    for (contract_id, version), state in model.states.items():
        kept = await contracts.get(contract_id, f"{version}.0.0", workspace=workspace)
        assert kept.state == names[state]
