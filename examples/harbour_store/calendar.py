"""When what happens in the Harbour Store: four months, the last 80 days of them with campaigns."""

from datetime import UTC, datetime, timedelta
from typing import Final

OPENED: Final = datetime(2024, 3, 1, tzinfo=UTC)
BEGIN: Final = datetime(2025, 3, 1, tzinfo=UTC)
CAMPAIGNS_BEGIN: Final = datetime(2025, 4, 10, tzinfo=UTC)
END: Final = datetime(2025, 6, 29, tzinfo=UTC)
MAILED_AT: Final = CAMPAIGNS_BEGIN + timedelta(hours=8)

GAP_BEGIN: Final = datetime(2025, 5, 12, tzinfo=UTC)
GAP_END: Final = datetime(2025, 5, 15, tzinfo=UTC)
GAP_SOURCE: Final = "facebook"
"""On these days a broken tag loses every visit that comes from this source."""

DAYS_BEFORE: Final = (CAMPAIGNS_BEGIN - BEGIN).days
DAYS_OF_CAMPAIGNS: Final = (END - CAMPAIGNS_BEGIN).days


def days_of_campaigns() -> list[datetime]:
    """Return the beginning of every day with campaigns."""
    return [CAMPAIGNS_BEGIN + timedelta(days=number) for number in range(DAYS_OF_CAMPAIGNS)]
