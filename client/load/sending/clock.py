"""Waking an event loop at an instant, to microseconds.

Timers of asyncio and uvloop round to milliseconds, which an open loop would measure as latency.
The kernel's timerfd does not; Python offers it from 3.13 on. Knows no load.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from types import TracebackType
from typing import Self

_CLOCK_MONOTONIC = 1  # that of time.perf_counter() on Linux
_TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = 0o4000, 0o2000000, 1

WAKING_S = 70e-6  # what an idle process needs to wake up at the least, on a virtual machine


class _Spec(ctypes.Structure):
    """struct itimerspec"""

    _fields_ = (("interval", ctypes.c_long * 2), ("value", ctypes.c_long * 2))


class Alarm:
    """One of one event loop; one waits at a time."""

    def __enter__(self) -> Self:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._file, self._rung)
        self._waiter: asyncio.Future[None] | None = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.remove_reader(self._file)
        os.close(self._file)

    async def until(self, instant: float) -> None:
        """Until time.perf_counter() is `instant`; at once where it has passed."""
        early = instant - WAKING_S
        if early > time.perf_counter():
            await self._ring(early)
        while time.perf_counter() < instant:
            pass

    async def _ring(self, instant: float) -> None:
        seconds = int(instant)
        value = (ctypes.c_long * 2)(seconds, max(int((instant - seconds) * 1e9), 1))
        spec = _Spec(value=value)
        self._waiter = self._loop.create_future()
        if self._libc.timerfd_settime(self._file, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._waiter

    def _rung(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
