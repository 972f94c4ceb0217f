"""The ad platforms' daily cost reports, each in the shape in which that platform exports it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from harbour_store.behaviour import Behaviour
from harbour_store.calendar import days_of_campaigns
from harbour_store.campaigns import AD_CAMPAIGNS, AdCampaign
from harbour_store.draws import Draws
from harbour_store.events import CURRENCY, strangers

_VIEWS_PER_CLICK: Final = 40
_CLAIMED: Final = 0.12
_CENT: Final = Decimal("0.01")


@dataclass(frozen=True)
class Day:
    """One campaign on one day, as its platform counted it."""

    campaign: AdCampaign
    day: datetime
    clicks: int
    impressions: int
    cost: Decimal
    claimed: int
    """Conversions that the platform claims for itself."""


def days_of(seed: int, people: int, behaviour: Behaviour) -> list[Day]:
    """Return what every platform counted, also the clicks that the shop's broken tag did not see."""
    clicks = Counter((click.campaign.name, click.clicked_at.date()) for click in behaviour.clicks)
    clicks.update((campaign.name, at.date()) for _, found in strangers(seed, people) for at, campaign in found)
    draws = Draws(seed, "spend")
    found = []
    for campaign in AD_CAMPAIGNS:
        for day in days_of_campaigns():
            count = clicks[campaign.name, day.date()]
            price = campaign.cost_per_click * (0.9 + 0.2 * draws.uniform())
            found.append(
                Day(
                    campaign=campaign,
                    day=day,
                    clicks=count,
                    impressions=count * _VIEWS_PER_CLICK + draws.below(100),
                    cost=Decimal(round(count * price * 100)) * _CENT,
                    claimed=draws.poisson(count * _CLAIMED),
                )
            )
    return found


def google_ads(days: list[Day]) -> Iterator[dict[str, Any]]:
    """Yield Google Ads' campaign report: cost in millionths, a plain date of the account's timezone."""
    for each in days:
        yield {
            "customer_id": 5550001,
            "date": f"{each.day:%Y-%m-%d}",
            "campaign_id": each.campaign.campaign_id,
            "campaign_name": each.campaign.name,
            "ad_network_type": "SEARCH",
            "impressions": each.impressions,
            "clicks": each.clicks,
            "cost_micros": int(each.cost * 1_000_000),
            "conversions": float(each.claimed),
        }


def meta_ads(days: list[Day]) -> Iterator[dict[str, Any]]:
    """Yield Meta's insights: figures as text, conversions as a list of actions."""
    for each in days:
        yield {
            "date_start": f"{each.day:%Y-%m-%d}",
            "date_stop": f"{each.day:%Y-%m-%d}",
            "account_id": "act_440001",
            "account_currency": CURRENCY,
            "campaign_id": str(each.campaign.campaign_id),
            "campaign_name": each.campaign.name,
            "impressions": str(each.impressions),
            "clicks": str(each.clicks),
            "spend": str(each.cost),
            "actions": [{"action_type": "purchase", "value": str(each.claimed)}],
        }


def linkedin_ads(days: list[Day]) -> Iterator[dict[str, Any]]:
    """Yield LinkedIn's ad analytics by campaign group, which is what others call a campaign."""
    for each in days:
        yield {
            "day": f"{each.day:%Y-%m-%d}",
            "campaignGroupId": each.campaign.campaign_id,
            "campaignGroupName": each.campaign.name,
            "impressions": each.impressions,
            "clicks": each.clicks,
            "landingPageClicks": each.clicks,
            "costInLocalCurrency": str(each.cost),
            "externalWebsiteConversions": each.claimed,
        }


def tiktok_ads(days: list[Day]) -> Iterator[dict[str, Any]]:
    """Yield TikTok's basic report by campaign and day, in UTC."""
    for each in days:
        yield {
            "stat_time_day": f"{each.day:%Y-%m-%d %H:%M:%S}",
            "campaign_id": str(each.campaign.campaign_id),
            "campaign_name": each.campaign.name,
            "spend": str(each.cost),
            "impressions": str(each.impressions),
            "clicks": str(each.clicks),
            "conversion": str(each.claimed),
        }


REPORTS: Final[dict[str, Callable[[list[Day]], Iterator[dict[str, Any]]]]] = {
    "google_ads": google_ads,
    "meta_ads": meta_ads,
    "linkedin_ads": linkedin_ads,
    "tiktok_ads": tiktok_ads,
}


def reports(days: list[Day]) -> dict[str, list[dict[str, Any]]]:
    """Return each platform's rows, by the platform's name."""
    return {
        platform: list(report([each for each in days if each.campaign.platform == platform]))
        for platform, report in REPORTS.items()
    }
