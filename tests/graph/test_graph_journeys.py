"""Journeys: taken from the log, filtered by consent, read in any state."""

from __future__ import annotations

from counterfoil_chassis.clock import to_timestamp

from tests.graph.world import SHOP, Client, day


async def shop(client: Client) -> int:
    """Two campaigns, one household in the first, three that buy; return the last offset."""
    await client.mapped(SHOP)
    await client.append(
        "campaigns",
        {"campaign": 18, "name": "Type A", "start": "2017-02-01", "end": "2017-03-01", "kind": "A"},
        {"campaign": 19, "name": "Type B", "start": "2017-05-01", "kind": "B"},
    )
    await client.append("members", {"household": 1, "campaign": 18})
    return await client.append(
        "sales",
        {"household": 1, "basket": 70, "amount": 1.5, "sold_at": "2017-02-10T10:00:00Z"},
        {"household": 1, "basket": 70, "amount": 0.25, "sold_at": "2017-02-10T09:59:00Z"},
        {"household": 2, "basket": 71, "amount": 3, "sold_at": "2017-02-11 10:00:00"},
        {"household": 3, "basket": 72, "amount": "9.99", "sold_at": "2016-02-11T10:00:00+01:00"},
    )


async def test_journeys_are_read_by_person_and_time_and_only_with_consent(client: Client) -> None:
    last = await shop(client)
    reading, rows = await client.read(since=day(0), until=day(365))
    assert (reading.persons, reading.persons_without_consent, rows) == (0, 2, [])
    await client.allowed("measurement", ("household_id", "1"), ("household_id", "3"))
    reading, rows = await client.read(since=day(0), until=day(365))
    assert (reading.persons, reading.persons_without_consent, reading.next_offset) == (1, 1, last + 1)
    assert (reading.bases, list(reading.datasets)) == ("consent", ["members", "sales"])
    touch, bought = rows
    assert (touch["conversion"], touch["type"], touch["channel"], touch["campaign"]) == (
        False,
        "assigned",
        "mail",
        "18",
    )
    assert (touch["time_us"], touch["campaign_end_us"]) == (
        int(day(31).timestamp() * 1e6),
        int(day(59).timestamp() * 1e6),
    )
    assert (bought["conversion"], bought["type"], bought["value_micros"], bought["currency"]) == (
        True, "basket", 1_750_000, "USD",
    )  # fmt: skip
    assert bought["time_us"] == int(day(40).timestamp() * 1e6) + (9 * 60 + 59) * 60_000_000
    assert bought["person_id"] == touch["person_id"]


async def test_an_earlier_state_is_read_exactly(client: Client) -> None:
    await shop(client)
    await client.allowed("measurement", *(("household_id", str(number)) for number in range(9)))
    before = await client.read()
    revision = before[0].ledger_revision
    # later lines of an old basket, a new description of a campaign, another household, and a withdrawal
    await client.append("sales", {"household": 1, "basket": 70, "amount": 5, "sold_at": "2017-01-01T00:00:00Z"})
    await client.append("campaigns", {"campaign": 18, "name": "Type A", "start": "2017-04-01"})
    await client.append("sales", {"household": 4, "basket": 99, "amount": 5, "sold_at": "2017-01-01T00:00:00Z"})
    await client.allowed("measurement", ("household_id", "2"), state="WITHDRAWN")
    now = await client.read()
    assert len({row["person_id"] for row in now[1]}) == 3
    assert {row["value_micros"] for row in now[1] if row["conversion"]} == {6_750_000, 9_990_000, 5_000_000}
    state = {name: getattr(before[0], name) for name in ("log_epoch", "next_offset", "mappings_sha256", "consent_at")}
    again = await client.read(**state, ledger_revision=revision)
    assert again == before


async def test_only_conversions_of_one_type_are_read(client: Client) -> None:
    await shop(client)
    await client.allowed("measurement", *(("household_id", str(number)) for number in range(9)))
    _, rows = await client.read(conversion_type="order", consent_at=to_timestamp(day(3650)))
    assert [row["type"] for row in rows] == ["assigned"]
