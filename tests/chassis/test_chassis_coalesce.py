"""The coalescer: shared calls, each caller with its own result, failure and deadline."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from counterfoil_chassis import coalesce
from counterfoil_chassis.coalesce import Coalescer, TooMuchWaitsError
from counterfoil_chassis.status import DETAILS_KEY, to_status
from hypothesis import given, settings
from hypothesis import strategies as st


class Line:
    """A method that answers each number with its double once it is let go, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.open = 0
        self.most_open = 0
        self.go = asyncio.Event()
        self.go.set()
        self.refused: dict[int, Exception] = {}

    async def send(self, items: Sequence[int], seconds: float) -> list[int]:
        assert seconds > 0
        self.calls.append(list(items))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self.go.wait()
        finally:
            self.open -= 1
        for item in items:
            if item in self.refused:
                raise self.refused[item]
        return [item * 2 for item in items]


def failure(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


def overloaded() -> grpc.aio.AioRpcError:
    details = to_status(TooMuchWaitsError("come again")).SerializeToString()
    return grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata((DETAILS_KEY, details))
    )


async def test_an_idle_coalescer_sends_at_once() -> None:
    line = Line()
    assert await Coalescer(line.send, size_of=lambda _: 1).ask(21, timeout=30) == 42
    assert line.calls == [[21]]


async def under_way(line: Line, coalescer: Coalescer[int, int]) -> "asyncio.Future[int]":
    """Return what is asked by a call that runs until the line is let go."""
    line.go.clear()
    running = asyncio.ensure_future(coalescer.ask(1, timeout=30))
    while not line.open:
        await asyncio.sleep(0)
    return running


async def test_what_is_asked_while_a_call_runs_rides_in_the_next() -> None:
    line = Line()
    coalescer = Coalescer(line.send, size_of=lambda _: 1)
    first = await under_way(line, coalescer)
    rest = []
    for number in range(2, coalesce.MANY_ITEMS):
        rest.append(asyncio.ensure_future(coalescer.ask(number, timeout=30)))
        await asyncio.sleep(0)
    line.go.set()
    assert await asyncio.gather(first, *rest) == [number * 2 for number in range(1, coalesce.MANY_ITEMS)]
    assert line.calls == [[1], list(range(2, coalesce.MANY_ITEMS))]
    assert line.most_open == 1


@pytest.mark.parametrize(("items", "size"), [(5, 1), (2, coalesce.MANY_BYTES // 2)])
async def test_a_second_call_sets_off_beside_the_first_once_it_has_much_to_carry(items: int, size: int) -> None:
    line = Line()
    coalescer = Coalescer(line.send, size_of=lambda _: size, many=5)
    first = await under_way(line, coalescer)
    rest = [asyncio.ensure_future(coalescer.ask(number, timeout=30)) for number in range(2, items + 3)]
    while line.open < 2:
        await asyncio.sleep(0)
    line.go.set()
    await asyncio.gather(first, *rest)
    assert line.calls == [[1], list(range(2, items + 3))]


async def test_what_comes_as_an_answer_is_told_rides_in_the_next_call() -> None:
    line = Line()
    coalescer = Coalescer(line.send, size_of=lambda _: 1)

    async def twice(number: int) -> None:
        await coalescer.ask(number, timeout=30)
        await asyncio.sleep(0)  # as one who was answered, and whose next request is read in the turn after
        await coalescer.ask(number + 10, timeout=30)

    first = await under_way(line, coalescer)
    waiting = [asyncio.ensure_future(each) for each in (twice(2), twice(3), coalescer.ask(4, timeout=30))]
    await asyncio.sleep(0)
    first.add_done_callback(lambda _: waiting.append(asyncio.ensure_future(twice(5))))
    line.go.set()
    await first
    await asyncio.gather(*waiting)
    assert line.calls == [[1], [2, 3, 4, 5], [12, 13, 15]]


async def test_calls_keep_to_their_caps_of_items_and_bytes() -> None:
    line = Line()
    coalescer = Coalescer(line.send, size_of=lambda item: coalesce.MAX_BYTES // 2 if item < 10 else 1)
    asked = [coalescer.ask(number, timeout=30) for number in (*range(5), *range(10, 1000))]
    await asyncio.gather(*asked)
    assert [call for call in line.calls if len(call) > coalesce.MAX_ITEMS] == []
    assert [call for call in line.calls if sum(item < 10 for item in call) > 2] == []


async def test_an_item_larger_than_the_cap_goes_alone() -> None:
    line = Line()
    coalescer = Coalescer(line.send, size_of=lambda _: coalesce.MAX_BYTES + 1)
    assert await asyncio.gather(*(coalescer.ask(number, timeout=30) for number in (1, 2))) == [2, 4]
    assert line.calls == [[1], [2]]


async def test_a_poisoned_item_costs_its_neighbours_nothing() -> None:
    line = Line()
    line.refused[7] = failure(grpc.StatusCode.INVALID_ARGUMENT)
    coalescer = Coalescer(line.send, size_of=lambda _: 1)
    found = await asyncio.gather(*(coalescer.ask(number, timeout=30) for number in range(10)), return_exceptions=True)
    assert [each for each in found if isinstance(each, int)] == [n * 2 for n in range(10) if n != 7]
    assert isinstance(found[7], grpc.aio.AioRpcError)


async def test_one_poisoned_item_among_many_takes_few_calls_more() -> None:
    line = Line()
    line.refused[200] = failure(grpc.StatusCode.RESOURCE_EXHAUSTED)
    coalescer = Coalescer(line.send, size_of=lambda _: 1)
    found = await asyncio.gather(*(coalescer.ask(number, timeout=30) for number in range(256)), return_exceptions=True)
    assert [each for each in found if isinstance(each, int)] == [n * 2 for n in range(256) if n != 200]
    assert len(line.calls) == 1 + 2 * 8


async def test_a_callee_that_has_too_much_to_do_is_not_asked_again() -> None:
    line = Line()
    line.refused[3] = overloaded()
    coalescer = Coalescer(line.send, size_of=lambda _: 1)
    found = await asyncio.gather(*(coalescer.ask(number, timeout=30) for number in range(5)), return_exceptions=True)
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in found)
    assert len(line.calls) == 1


async def test_calls_that_take_long_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "SLOW_SECONDS", 0.01)
    monkeypatch.setattr(coalesce, "LONG_SECONDS", 0.02)
    line = Line()
    line.go.clear()
    coalescer = Coalescer(line.send, size_of=lambda _: 1)
    stuck = []
    for number in (1, 2):
        stuck.append(asyncio.ensure_future(coalescer.ask(number, timeout=30)))
        while line.open < number:
            await asyncio.sleep(0.001)
    later = [asyncio.ensure_future(coalescer.ask(number, timeout=30)) for number in (3, 4)]
    async with asyncio.timeout(30):
        while line.calls != [[1], [2], [3, 4]]:  # while the first two are still under way
            await asyncio.sleep(0.001)
    line.go.set()
    assert await asyncio.gather(*stuck, *later) == [2, 4, 6, 8]


async def test_a_callee_that_hangs_gets_a_bounded_number_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "LONG_SECONDS", 0.001)
    line = Line()
    line.go.clear()
    coalescer = Coalescer(line.send, size_of=lambda _: coalesce.MAX_BYTES)
    most = coalesce.IN_FLIGHT + coalesce.MOST_LONG
    asked = [asyncio.ensure_future(coalescer.ask(number, timeout=30)) for number in range(most + 3)]
    async with asyncio.timeout(30):
        while line.open < most:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)  # twenty times what makes a call a long one
    assert line.open == most
    line.go.set()
    assert await asyncio.gather(*asked) == [number * 2 for number in range(most + 3)]


async def test_an_outage_is_told_to_everybody_once_and_not_multiplied() -> None:
    line = Line()
    line.refused[3] = failure(grpc.StatusCode.UNAVAILABLE)
    coalescer = Coalescer(line.send, size_of=lambda _: 1)
    found = await asyncio.gather(*(coalescer.ask(number, timeout=30) for number in range(5)), return_exceptions=True)
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in found)
    assert len(line.calls) == 1


async def test_an_impatient_caller_stops_waiting_and_its_neighbour_does_not() -> None:
    line = Line()
    line.go.clear()
    coalescer = Coalescer(line.send, size_of=lambda _: 1)
    patient = asyncio.ensure_future(coalescer.ask(1, timeout=30))
    with pytest.raises(TimeoutError):
        await coalescer.ask(2, timeout=0.01)
    line.go.set()
    assert await patient == 2


async def test_a_caller_who_leaves_takes_an_unsent_item_along() -> None:
    line = Line()
    coalescer = Coalescer(line.send, size_of=lambda _: 1)
    running = await under_way(line, coalescer)
    leaving = asyncio.ensure_future(coalescer.ask(3, timeout=30))
    staying = asyncio.ensure_future(coalescer.ask(4, timeout=30))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    line.go.set()
    assert [await running, await staying] == [2, 8]
    assert line.calls == [[1], [4]]


async def test_more_than_memory_should_hold_is_refused() -> None:
    line = Line()
    line.go.clear()
    coalescer = Coalescer(line.send, size_of=lambda _: coalesce.MAX_BYTES)
    most = coalesce.MAX_WAITING_BYTES // coalesce.MAX_BYTES + coalesce.IN_FLIGHT
    asked = []
    for number in range(most):
        asked.append(asyncio.ensure_future(coalescer.ask(number, timeout=30)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with pytest.raises(TooMuchWaitsError):
        await coalescer.ask(99, timeout=30)
    line.go.set()
    assert await asyncio.gather(*asked) == [number * 2 for number in range(most)]


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 3)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_every_caller_gets_its_own_answer(asked: list[tuple[int, int]]) -> None:
    async def run() -> None:
        line = Line()
        coalescer = Coalescer(line.send, size_of=lambda item: item * 1_000)

        async def one(number: int, turns: int) -> int:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await coalescer.ask(number, timeout=30)

        assert await asyncio.gather(*(one(*each) for each in asked)) == [number * 2 for number, _ in asked]
        assert sorted(item for call in line.calls for item in call) == sorted(number for number, _ in asked)
        assert line.most_open <= coalesce.IN_FLIGHT

    asyncio.run(run())
