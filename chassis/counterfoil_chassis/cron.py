"""Schedules in the five fields of cron: minute, hour, day of the month, month, day of the week, all in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SUNDAY: Final = 7  # as good as 0
_DAYS_AHEAD: Final = 8 * 366 + 1  # from a 29 February to the next one there are at most eight years
_LONGEST: Final = 200


@dataclass(frozen=True)
class Cron:
    """A schedule; `parse` makes one.

    When both the day of the month and the day of the week are restricted, a day that fits either is meant (crontab(5)).
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Read five fields, e.g. `0 20 * * mon-fri`; raise ValueError, which says what is wrong, for anything else."""
        fields = text.lower().split()
        if len(fields) != 5 or len(text) > _LONGEST:
            raise ValueError("a schedule has five fields: minute, hour, day of the month, month, day of the week")
        minutes, hours, days, months, weekdays = fields
        made = cls(
            minutes=tuple(sorted(_values(minutes, 0, 59))),
            hours=tuple(sorted(_values(hours, 0, 23))),
            days=_values(days, 1, 31),
            months=_values(months, 1, 12, names=_MONTHS),
            weekdays=frozenset(each % _SUNDAY for each in _values(weekdays, 0, _SUNDAY, names=_WEEKDAYS)),
            either_day=not (days.startswith("*") or weekdays.startswith("*")),
        )
        if made._next_day(date(2000, 1, 1)) is None:
            raise ValueError("there is no such day")
        return made

    def next_after(self, moment: datetime) -> datetime:
        """Return the first time of the schedule after a moment; both aware, in the moment's zone."""
        begin = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        day = self._next_day(begin.date())
        if day == begin.date():
            for each in self._times():
                if each >= begin.time():
                    return datetime.combine(day, each, begin.tzinfo)
            day = self._next_day(day + timedelta(days=1))
        assert day is not None  # noqa: S101 - `parse` refuses a schedule without a day
        return datetime.combine(day, self._times()[0], begin.tzinfo)

    def _times(self) -> list[time]:
        return [time(hour, minute) for hour in self.hours for minute in self.minutes]

    def _next_day(self, begin: date) -> date | None:
        days = (begin + timedelta(days=ahead) for ahead in range(_DAYS_AHEAD))
        return next((day for day in days if self._is_meant(day)), None)

    def _is_meant(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % _SUNDAY in self.weekdays
        return in_month or in_week if self.either_day else in_month and in_week


def _values(field: str, least: int, most: int, *, names: tuple[str, ...] = ()) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = least, most
        else:
            low = _number(first, least, names)
            high = _number(last, least, names) if dash else (most if step else low)
        every = _number(step, least, ()) if "/" in part else 1
        if not (least <= low <= high <= most and every > 0):
            raise ValueError(f"`{part}` is not within {least} and {most}")
        found.update(range(low, high + 1, every))
    return frozenset(found)


def _number(text: str, least: int, names: tuple[str, ...]) -> int:
    if text in names:
        return names.index(text) + least
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"`{text}` is no number")
    return int(text)
