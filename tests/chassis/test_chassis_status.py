from __future__ import annotations

from datetime import timedelta

import grpc
from counterfoil_chassis.errors import (
    Code,
    CounterfoilError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from counterfoil_chassis.status import DETAILS_KEY, failure_of, to_status
from hypothesis import given
from hypothesis import strategies as st


def received(error: CounterfoilError) -> grpc.aio.AioRpcError:
    status = to_status(error)
    trailers = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, status.message)


short = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)


@given(
    short,
    st.dictionaries(short, short, max_size=3),
    st.lists(st.builds(FieldViolation, field=short, reason=short, description=short), max_size=5),
    st.none() | st.integers(0, 10**6).map(lambda ms: timedelta(milliseconds=ms)),
)
def test_an_error_travels_whole(
    message: str, metadata: dict[str, str], violations: list[FieldViolation], retry: timedelta | None
) -> None:
    error = InvalidArgumentError(message, metadata=metadata, violations=violations, retry_after=retry)
    failure = failure_of(received(error))
    assert (failure.code, failure.reason, failure.detail) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", message)
    assert (failure.metadata, failure.violations, failure.retry_after) == (metadata, tuple(violations), retry)


def test_details_stay_below_what_a_plain_client_takes() -> None:
    violations = [FieldViolation(f"items[{n}].name", "STRING_MIN_LEN", "é" * 1000) for n in range(500)]
    status = to_status(InvalidArgumentError("x" * 5000, metadata={"key": "v" * 5000}, violations=violations))
    assert status.ByteSize() < 5000
    assert failure_of(received(InvalidArgumentError("x", violations=violations))).violations


def test_a_status_without_our_details_takes_its_codes_name_as_reason() -> None:
    bare = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
    assert (failure_of(bare).reason, failure_of(bare).detail) == ("NOT_FOUND", "gone")
    broken = grpc.aio.Metadata((DETAILS_KEY, b"\xff\xff"))
    damaged = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), broken, "gone")
    assert failure_of(damaged).reason == "NOT_FOUND"


def test_every_error_class_has_a_reason_that_is_its_own_or_its_codes() -> None:
    def below(error: type[CounterfoilError]) -> list[type[CounterfoilError]]:
        return [error, *(each for sub in error.__subclasses__() for each in below(sub))]

    for error in below(CounterfoilError):
        assert error.reason == error.reason.upper()
        assert " " not in error.reason
    assert NotFoundError("x").code is Code.NOT_FOUND
    assert ResourceExhaustedError("x", retry_after=timedelta(seconds=1)).retry_after == timedelta(seconds=1)
