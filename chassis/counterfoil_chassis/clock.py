"""Time and ids, passed in so that tests and replays decide them."""

from __future__ import annotations

import secrets
import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the present moment, aware and in UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present moment, aware and in UTC."""
        return datetime.now(UTC)


class Ids(Protocol):
    """Makes ids that sort by the time they were made."""

    def new(self) -> str:
        """Return a fresh UUIDv7 as text."""


class SystemIds:
    """UUIDv7 (RFC 9562 section 5.7), strictly ascending within a process even when the clock stands or steps back.

    The 12 bits after the milliseconds count on from the last id (section 6.2, method 1); 62 bits are random.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._lock = threading.Lock()

    def new(self) -> str:
        """Return a fresh UUIDv7 as text."""
        milliseconds = to_micros(self._clock.now()) // 1000
        with self._lock:
            self._last = max(self._last + 1, milliseconds << 12)
            instant, counter = self._last >> 12, self._last & 0xFFF
        number = instant << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | secrets.randbits(62)
        return str(uuid.UUID(int=number))


def to_micros(t: datetime) -> int:
    """Return microseconds since 1970 in UTC, exact; raise ValueError for a time without a zone."""
    if t.tzinfo is None:
        raise ValueError("the time has no zone")
    return (t - EPOCH) // _MICROSECOND


def from_micros(us: int) -> datetime:
    """Return the aware UTC time of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=us)


def to_timestamp(t: datetime) -> Timestamp:
    """Return the protobuf form, to the microsecond."""
    seconds, micros = divmod(to_micros(t), 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def from_timestamp(t: Timestamp) -> datetime:
    """Return the aware UTC time; nanoseconds below a microsecond are cut off."""
    return from_micros(t.seconds * 1_000_000 + t.nanos // 1000)
