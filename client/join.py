"""Single requests -> batches -> one call of Triton each (group commit).

While fewer than `calls` calls are under way a request leaves at once; those that
come meanwhile wait, and leave together, as rows of one batch, when a call ends.
No timer: an idle server answers as fast as without joining, a busy one calls
less often and with fuller batches. Only rows of one model and one shape (one history
length) join, since Triton closes a batch at the first other shape.

Knows nothing of what the arrays mean: row i of every input belongs to request i. Nor of
tracing: where traces are wanted, `traced` says where a request stands and what a call carries.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from client.tensors import Triton
from client.triton_errors import too_late
from client.wire_types import Headers
from recommender.contract import Array
from recommender.errors import RecserveError, Unavailable

Key = tuple[str, int, tuple[tuple[int, ...], ...]]  # model, version, shapes of the row's inputs

UNTRACED: AbstractContextManager[Headers] = nullcontext(())


class Traced(Protocol):
    """Who traces the calls (`bento/tracing.py`)."""

    def here(self) -> object:
        """Where the request that comes stands in its trace."""

    def call(
        self, model: str, version: int, requests: Sequence[object]
    ) -> AbstractContextManager[Headers]:
        """Around one call for all of `requests` (what `here` gave); the headers it carries."""


@dataclass(slots=True, eq=False)
class _Row:
    inputs: Mapping[str, Array]  # each [1, ...]
    until: float  # the loop's clock; nobody waits for the answer after it
    since: int  # order of arrival
    answer: asyncio.Future[dict[str, Array]]
    origin: object  # where its request stands in its trace


class Paced(Protocol):
    """Who wants to know how fast calls end (`bento/pace.py`); times are the loop's."""

    def answered(self, rows: int, began: float, ended: float, *, waiting: bool) -> None:
        """A call for `rows` requests; `waiting`: others wait for a call to leave in."""


class Joiner:
    """Joins the requests of one event loop; one per connection to Triton."""

    def __init__(
        self,
        triton: Triton,
        *,
        max_rows: int,
        calls: int = 2,
        traced: Traced | None = None,
        paced: Paced | None = None,
    ) -> None:
        self._triton = triton
        self._traced, self._paced = traced, paced
        self._max_rows = max_rows
        self._calls = calls
        self._under_way: set[asyncio.Task[None]] = set()
        self._waiting: dict[Key, deque[_Row]] = {}
        self._arrivals = 0
        self.answered_at = 0.0  # the loop's clock at the end of the last call that was answered

    @property
    def waiting(self) -> int:
        """Rows that wait for a call to leave in, those nobody waits for any more among them."""
        return sum(map(len, self._waiting.values()))

    @property
    def under_way(self) -> int:
        """Calls."""
        return len(self._under_way)

    async def infer(
        self, model: str, version: int, inputs: Mapping[str, Array], *, timeout_s: float
    ) -> dict[str, Array]:
        """The outputs, each [1, ...], of one request; `inputs` are [1, ...] arrays.

        Raises what Triton's client raises, and Unavailable when `timeout_s` passes first.
        """
        loop = asyncio.get_running_loop()
        self._arrivals += 1
        origin = None if self._traced is None else self._traced.here()
        until = loop.time() + timeout_s
        row = _Row(inputs, until, self._arrivals, loop.create_future(), origin)
        key = (model, version, tuple(array.shape for array in inputs.values()))
        self._waiting.setdefault(key, deque()).append(row)
        self._start_calls()
        # A bare timer: asyncio.timeout cancels the task, and costs several times as much.
        timer = loop.call_at(until, self._give_up, row, timeout_s)
        try:
            return await row.answer
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Ends the calls under way; whoever still waits gets Unavailable at its deadline."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _give_up(self, row: _Row, timeout_s: float) -> None:
        _fail([row], too_late(self._triton.address, timeout_s))

    def _start_calls(self) -> None:
        while self._waiting and len(self._under_way) < self._calls:
            key = min(self._waiting, key=lambda k: self._waiting[k][0].since)
            if rows := self._take(key):
                task = asyncio.create_task(self._call(key, rows))
                self._under_way.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start_calls()

    def _take(self, key: Key) -> list[_Row]:
        """The oldest rows of `key` that somebody still waits for, at most one batch."""
        queue, rows = self._waiting[key], list[_Row]()
        while queue and len(rows) < self._max_rows:
            if not (row := queue.popleft()).answer.done():
                rows.append(row)
        if not queue:
            del self._waiting[key]
        return rows

    async def _call(self, key: Key, rows: list[_Row]) -> None:
        """One call; the answers, or the failure, go to the rows."""
        try:
            outputs = await self._asked(key, rows)
        except Unavailable as error:
            _fail(rows, error)
        except RecserveError as error:
            # One row may be at fault: alone, it fails alone.
            if len(rows) == 1:
                _fail(rows, error)
            else:
                await self._one_by_one(key, rows)
        except Exception as error:  # a defect: those who wait must hear of it, not hang
            _fail(rows, error)
        else:
            # The next call leaves first: to make something of these answers takes milliseconds.
            task = asyncio.current_task()
            assert task is not None
            self._ended(task)
            _answer(rows, outputs)

    async def _one_by_one(self, key: Key, rows: list[_Row]) -> None:
        for row in rows:
            try:
                outputs = await self._asked(key, [row])
            except Exception as error:
                _fail([row], error)
            else:
                _answer([row], outputs)

    async def _asked(self, key: Key, rows: list[_Row]) -> dict[str, Array]:
        model, version, _ = key
        loop = asyncio.get_running_loop()
        began = loop.time()
        left = max(row.until for row in rows) - began
        inputs = rows[0].inputs if len(rows) == 1 else _concatenated(rows)
        with self._span(model, version, rows) as headers:
            outputs = await self._triton.infer(
                model, version, inputs, timeout_s=max(left, 0.001), headers=headers
            )
        self.answered_at = loop.time()
        if self._paced is not None:
            waiting = bool(self._waiting)
            self._paced.answered(len(rows), began, self.answered_at, waiting=waiting)
        return outputs

    def _span(self, model: str, version: int, rows: list[_Row]) -> AbstractContextManager[Headers]:
        if self._traced is None:
            return UNTRACED
        return self._traced.call(model, version, [row.origin for row in rows])


def _concatenated(rows: list[_Row]) -> dict[str, Array]:
    return {name: np.concatenate([row.inputs[name] for row in rows]) for name in rows[0].inputs}


def _answer(rows: list[_Row], outputs: Mapping[str, Array]) -> None:
    for i, row in enumerate(rows):
        if not row.answer.done():
            row.answer.set_result({name: a[i : i + 1] for name, a in outputs.items()})


def _fail(rows: list[_Row], error: Exception) -> None:
    for row in rows:
        if not row.answer.done():
            row.answer.set_exception(error)
