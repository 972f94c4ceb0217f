"""The Harbour Store's campaigns with what they truly cause."""

from dataclasses import dataclass
from typing import Final

MAILING: Final = "spring_mailing"
MAILING_EXTRA_ORDERS: Final = 0.5
"""Orders that the mailing causes, on average, per customer it was sent to; the same for everybody."""


@dataclass(frozen=True)
class AdCampaign:
    """One campaign on an ad platform."""

    platform: str
    source: str
    """The `utm_source` of its links."""
    campaign_id: int
    name: str
    cost_per_click: float
    clicks: float
    """Clicks per customer over its whole time, whoever they are."""
    clicks_by_habit: float
    """Clicks per order that habit lets expect: it finds those who buy anyway."""
    clicks_before_orders: float
    """Share of orders that are preceded by a click, although they would have come without it."""
    extra_orders: float
    """Orders that one click causes, on average."""


AD_CAMPAIGNS: Final = (
    AdCampaign("google_ads", "google", 9001, "brand_search", 0.40, 0.0, 0.0, 0.35, 0.0),
    AdCampaign("google_ads", "google", 9002, "generic_search", 1.10, 0.4, 0.0, 0.0, 0.10),
    AdCampaign("meta_ads", "facebook", 8001, "spring_prospecting", 0.60, 0.5, 0.0, 0.0, 0.05),
    AdCampaign("meta_ads", "facebook", 8002, "cart_retargeting", 0.50, 0.0, 0.2, 0.10, 0.01),
    AdCampaign("linkedin_ads", "linkedin", 7001, "crew_outfitters", 4.20, 0.12, 0.0, 0.0, 0.03),
    AdCampaign("tiktok_ads", "tiktok", 6001, "deck_life", 0.35, 0.3, 0.0, 0.0, 0.02),
)


def chance_of_mailing(orders_before: int) -> float:
    """Return how likely a customer is mailed: the more they bought before, the likelier, and the more they will buy."""
    return (0.08, 0.30, 0.55, 0.75, 0.88)[min(orders_before, 4)]
