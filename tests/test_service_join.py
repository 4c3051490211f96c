"""Joining requests into batches, over a transport inside the process that answers on command."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest

from client.join import Joiner
from client.wire_types import Headers
from recommender.contract import Array
from recommender.errors import BadInput, Unavailable


class Transport:
    """Doubles `history`, refuses a batch with a negative number, waits while `gate` is closed."""

    address = "memory"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[int] = []
        self.under_way = self.most_under_way = 0

    async def infer(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,
        headers: Headers = (),
    ) -> dict[str, Array]:
        self.batches.append(len(inputs["history"]))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            async with asyncio.timeout(timeout_s):
                await self.gate.wait()
        except TimeoutError as error:
            raise Unavailable("too late", remedy="") from error
        finally:
            self.under_way -= 1
        if (inputs["history"] < 0).any():
            raise BadInput("a negative number", remedy="")
        return {"item": inputs["history"] * 2}

    async def ready(self, model: str, version: int) -> bool:
        return True

    async def live(self) -> bool:
        return True

    async def close(self) -> None: ...


def row(value: int, length: int = 4) -> dict[str, Array]:
    return {"history": np.full((1, length), value, np.int64)}


async def opened(joiner: Joiner, transport: Transport, *calls: asyncio.Task) -> list:
    """The results, or errors, of `calls` once they all wait and the gate opens."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    transport.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    await joiner.close()
    return results


def ask(joiner: Joiner, value: int, *, length: int = 4, timeout_s: float = 5) -> asyncio.Task:
    return asyncio.create_task(joiner.infer("m", 1, row(value, length), timeout_s=timeout_s))


def run(scenario, *, max_rows: int = 8):
    """`await scenario(joiner, transport)` in a loop of its own."""

    async def body():
        transport = Transport()
        return await scenario(Joiner(transport, max_rows=max_rows), transport)

    return asyncio.run(body())


def test_two_calls_leave_at_once_and_the_rest_follow_as_one_batch() -> None:
    async def scenario(joiner, transport):
        answers = await opened(joiner, transport, *(ask(joiner, i) for i in range(7)))
        return answers, transport

    answers, transport = run(scenario)
    assert [int(a["item"][0, 0]) for a in answers] == [0, 2, 4, 6, 8, 10, 12]
    assert all(a["item"].shape == (1, 4) for a in answers)
    assert transport.batches == [1, 1, 5]
    assert transport.most_under_way == 2


def test_a_batch_holds_no_more_rows_than_the_model_takes() -> None:
    async def scenario(joiner, transport):
        await opened(joiner, transport, *(ask(joiner, i) for i in range(9)))
        return transport.batches

    assert run(scenario, max_rows=3) == [1, 1, 3, 3, 1]


def test_only_histories_of_one_length_join() -> None:
    async def scenario(joiner, transport):
        lengths = [4, 4, 4, 16, 4, 16]
        calls = [ask(joiner, i, length=n) for i, n in enumerate(lengths)]
        answers = await opened(joiner, transport, *calls)
        return [a["item"].shape[1] for a in answers], transport.batches

    assert run(scenario) == ([4, 4, 4, 16, 4, 16], [1, 1, 2, 2])


def test_the_next_call_leaves_before_answers_are_looked_at() -> None:
    """The one is milliseconds of everybody's, the other of those who were answered."""

    async def scenario(joiner, transport):
        seen = []

        async def look(value: int) -> None:
            await joiner.infer("m", 1, row(value), timeout_s=5)
            seen.append(len(transport.batches))

        await opened(joiner, transport, *(asyncio.create_task(look(i)) for i in range(7)))
        return seen

    assert run(scenario) == [3] * 7


def test_a_row_that_is_refused_fails_alone() -> None:
    async def scenario(joiner, transport):
        return await opened(joiner, transport, *(ask(joiner, i) for i in (1, 2, 3, -4, 5)))

    *_, third, fourth, fifth = run(scenario)
    assert int(third["item"][0, 0]) == 6 and int(fifth["item"][0, 0]) == 10
    assert isinstance(fourth, BadInput)


def test_a_row_of_another_shape_does_not_spoil_the_batch() -> None:
    async def scenario(joiner, transport):
        calls = [ask(joiner, i) for i in range(4)]
        odd = {"history": row(9)["history"], "exclude": np.zeros((1, 3), np.int64)}
        calls.append(asyncio.create_task(joiner.infer("m", 1, odd, timeout_s=5)))
        return await opened(joiner, transport, *calls)

    assert [int(a["item"][0, 0]) for a in run(scenario)] == [0, 2, 4, 6, 18]


def test_a_caller_that_gives_up_leaves_the_others_their_answers() -> None:
    async def scenario(joiner, transport):
        calls = [ask(joiner, i) for i in range(5)]
        await asyncio.sleep(0)
        calls[0].cancel()  # under way
        calls[3].cancel()  # waiting
        return await opened(joiner, transport, *calls), transport.batches

    answers, batches = run(scenario)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert isinstance(answers[3], asyncio.CancelledError)
    assert [int(answers[i]["item"][0, 0]) for i in (1, 2, 4)] == [2, 4, 8]
    assert batches == [1, 1, 2]


def test_a_deadline_ends_the_wait_of_its_own_row_only() -> None:
    async def scenario(joiner, transport):
        calls = [ask(joiner, i) for i in range(3)]
        hasty = ask(joiner, 9, timeout_s=0.01)
        with pytest.raises(Unavailable, match=r"0\.01 s"):
            await hasty
        return await opened(joiner, transport, *calls), transport.batches

    answers, batches = run(scenario)
    assert [int(a["item"][0, 0]) for a in answers] == [0, 2, 4]
    assert batches == [1, 1, 1]


def test_calls_that_run_out_of_time_make_room_for_the_next() -> None:
    async def scenario(joiner, transport):
        late = await asyncio.gather(
            *(ask(joiner, i, timeout_s=0.02) for i in range(2)), return_exceptions=True
        )
        (answer,) = await opened(joiner, transport, ask(joiner, 4))
        return late, answer

    late, answer = run(scenario)
    assert all(isinstance(error, Unavailable) for error in late)
    assert int(answer["item"][0, 0]) == 8


def test_a_defect_of_the_transport_reaches_every_waiting_row() -> None:
    async def scenario(joiner, transport):
        transport.infer = None
        calls = [ask(joiner, i) for i in range(4)]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(error, TypeError) for error in run(scenario))
