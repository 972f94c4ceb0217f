"""Attribution as pure functions: windows, the six models, the chain, incremental counts."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from counterfoil_chassis.clock import to_micros
from counterfoil_models import windows
from counterfoil_models.attributing import attribute
from counterfoil_models.attribution import MODELS, Attributor, whole
from counterfoil_models.attribution_spec import (
    DAY_US,
    AttributionSpec,
    CostSource,
    Subject,
    Window,
    completed,
    period_of,
)
from counterfoil_models.entities import ConsentState, GraphState, JourneyReading
from counterfoil_models.errors import SeriesFieldError, SpecInvalidError, SubjectsTooManyError
from counterfoil_models.journeys import journeys_of
from counterfoil_models.markov import PathCounts, _dense, _sparse, chain_of, removal_effects
from counterfoil_models.paths import Paths
from counterfoil_models.windows import PathFinder
from hypothesis import given
from hypothesis import strategies as st

from tests.models.journey_rows import Event, at, table

JAN = completed(AttributionSpec("order", date(2025, 1, 1), date(2025, 1, 31), lookback_days=7))
FLIGHT = replace(JAN, window=Window.FLIGHT, lookback_days=0)
CLOSED = at(90)
READING = JourneyReading(
    GraphState("epoch-1", 9, "f" * 64), ConsentState(3, at(90)), CLOSED, 3, 0, "CONSENT", ("events",)
)


def made(events, spec=JAN, *, costs=(), reading=READING, timezone="UTC"):
    return attribute(spec, table(events), costs, reading=reading, timezone=timezone)


def credits_of(document, model, *, field="conversions"):
    return {
        row["subject"]: float(next(one[field] for one in row["credits"] if one["model"] == model))
        for row in document["rows"]
    }


def reasons(found):
    return {gap.reason: gap.records for gap in found.gaps}


def paths_of(*paths: str, conversions=None, nulls=None, values=None) -> tuple[Paths, list[str]]:
    """Write paths like `a>b>c`; each converts once unless said otherwise."""
    names = sorted({step for path in paths for step in path.split(">")})
    steps = [[names.index(step) for step in path.split(">")] for path in paths]
    ones = [1] * len(paths)
    arrays = [
        np.array(each, dtype=np.int64) for each in (conversions or ones, nulls or [0] * len(paths), values or ones)
    ]
    codes = np.array([code for path in steps for code in path], dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum([len(path) for path in steps]))).astype(np.int64)
    return Paths(codes, starts, *arrays, np.zeros_like(codes)), names


def test_each_model_gives_the_credit_computed_by_hand():
    # one conversion on day 15 after a (day 9), b (day 13), c (day 14); half-life 1 day: 2^-5 : 2^-1 : 1 from c on
    events = [Event("p", 9, "a"), Event("p", 13, "b"), Event("p", 14, "c"), Event("p", 15, value=10)]
    document = made(events, replace(JAN, half_life_days=1.0)).document
    assert credits_of(document, "first") == {"a": 1, "b": 0, "c": 0}
    assert credits_of(document, "last") == {"a": 0, "b": 0, "c": 1}
    assert credits_of(document, "linear") == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    total = 1 + 1 / 2 + 1 / 32
    assert credits_of(document, "time_decay") == pytest.approx({"a": 1 / 32 / total, "b": 0.5 / total, "c": 1 / total})
    assert credits_of(document, "position") == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.4})
    assert credits_of(document, "markov") == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert sum(credits_of(document, "linear", field="value_micros").values()) == 10_000_000


def test_position_gives_all_to_one_and_halves_to_two():
    events = [Event("p", 9, "a"), Event("p", 10), Event("q", 9, "a"), Event("q", 9.5, "b"), Event("q", 10)]
    assert credits_of(made(events).document, "position") == {"a": 1.5, "b": 0.5}


def test_a_small_chain_has_the_effects_computed_by_hand():
    # a>b converts, a ends in null, b converts: P(conversion) = 2/3; without a only b is left: 1/3, without b nothing
    paths, names = paths_of("a>b", "a", "b", conversions=[1, 0, 1], nulls=[0, 1, 0], values=[4, 0, 1])
    counts = PathCounts(2)
    counts.add(paths)
    effects = removal_effects(counts)
    assert names == ["a", "b"]
    assert effects.conversions == pytest.approx([0.5, 1.0])
    attributor = Attributor(2, half_life_us=DAY_US)
    attributor.add(paths)
    markov = attributor.credits()["markov"]
    assert markov.conversions == pytest.approx([2 / 3, 4 / 3])
    assert markov.values.tolist() == [2, 3]


def per_channel_solves(chain, worth):
    """Send each channel's visits to null and solve again: what the closed form has to equal."""
    size = len(chain.starts)
    total = chain.starts @ np.linalg.solve(np.eye(size) - chain.steps, worth)
    effects = []
    for gone in range(size):
        keep = np.arange(size) != gone
        steps, ends = chain.steps * keep[:, None], worth * keep
        effects.append(1 - chain.starts @ np.linalg.solve(np.eye(size) - steps, ends) / total)
    return np.array(effects)


def random_counts(subjects: int, *, seed: int, density: float = 1.0) -> PathCounts:
    random = np.random.default_rng(seed)
    counts = PathCounts(subjects)
    shape = (subjects, subjects)
    counts.steps[:] = random.integers(0, 50, shape) * (random.random(shape) < density)
    counts.starts[:] = random.integers(1, 90, subjects)
    counts.conversions[:] = random.integers(0, 9, subjects)
    counts.nulls[:] = random.integers(1, 99, subjects)
    counts.values[:] = counts.conversions * random.integers(1, 1_000, subjects)
    return counts


@pytest.mark.parametrize(("subjects", "density"), [(1, 1.0), (12, 1.0), (50, 0.3), (64, 1.0), (65, 0.1), (130, 0.5)])
def test_the_closed_form_equals_solving_without_each_channel(subjects, density):
    counts = random_counts(subjects, seed=subjects, density=density)
    counts.conversions[0], counts.values[0] = 3, 7
    chain, effects = chain_of(counts), removal_effects(counts)
    assert np.abs(effects.conversions - per_channel_solves(chain, chain.converts)).max() < 1e-12
    assert np.abs(effects.values - per_channel_solves(chain, chain.values)).max() < 1e-12


def test_the_sparse_and_the_dense_way_agree():
    chain = chain_of(random_counts(90, seed=1, density=0.2))
    for one, other in zip(_dense(chain), _sparse(chain), strict=True):
        assert np.abs(one - other).max() < 1e-12


def test_nothing_that_converts_gives_no_credit():
    paths, names = paths_of("a>b", "b", conversions=[0, 0], nulls=[2, 1], values=[0, 0])
    attributor = Attributor(len(names), half_life_us=DAY_US)
    attributor.add(paths)
    assert all(not credit.conversions.any() and not credit.values.any() for credit in attributor.credits().values())


STEPS = st.lists(st.integers(0, 4), min_size=1, max_size=7)
PATHS = st.lists(
    st.tuples(STEPS, st.integers(0, 3), st.integers(0, 3), st.integers(-(10**12), 10**12)), min_size=1, max_size=12
)


def arrays(drawn) -> Paths:
    codes = np.array([code for steps, *_ in drawn for code in steps], dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum([len(steps) for steps, *_ in drawn]))).astype(np.int64)
    ends = [np.array([one[place] for one in drawn], dtype=np.int64) for place in (1, 2, 3)]
    return Paths(codes, starts, *ends, np.zeros_like(codes))


@given(PATHS, PATHS, st.randoms())
def test_any_order_of_adding_and_taking_back_ends_with_the_counts_of_what_is_left(kept, gone, random):
    batch = PathCounts(5)
    batch.add(arrays(kept))
    deeds = [("add", one) for one in kept + gone]
    random.shuffle(deeds)
    for one in gone:  # taken back at any time after it was added
        first = deeds.index(("add", one))
        deeds.insert(random.randint(first + 1, len(deeds)), ("subtract", one))
    early, late = PathCounts(5), PathCounts(5)
    for place, (deed, one) in enumerate(deeds):
        getattr(early if place % 2 else late, deed)(arrays([one]))  # on two days, merged at the end
    early.merge(late)
    assert early == batch


@given(PATHS)
def test_every_model_gives_away_exactly_what_was_attributed(drawn):
    attributor = Attributor(5, half_life_us=DAY_US)
    drawn = [(steps, conversions, nulls, value if conversions else 0) for steps, conversions, nulls, value in drawn]
    attributor.add(arrays(drawn))
    for credit in attributor.credits().values():
        assert credit.conversions.sum() == pytest.approx(sum(one[1] for one in drawn), rel=1e-9)
        assert int(credit.values.sum()) == (sum(one[3] for one in drawn))


def test_amounts_are_rounded_to_their_total():
    assert whole(np.array([1 / 3, 1 / 3, 1 / 3]) * 100, 100).tolist() == [34, 33, 33]
    assert whole(np.array([-0.5, 1.5]), 1).tolist() == [0, 1]
    assert whole(np.array([]), 0).tolist() == []


def brute_force(events, spec, *, end, data_end):
    """Find paths by the definition, event by event."""
    begin = 0.0
    last = min(end, data_end)
    paths, on_path = [], set()
    touches = defaultdict(list)
    for place, one in enumerate(events):
        if not one.converts:
            touches[one.person].append((one.day, place, one))
    for one in events:
        if one.converts and begin <= one.day < end:
            path = []
            for day, place, touch in sorted(touches[one.person], key=lambda each: each[:2]):
                if spec.window is Window.LOOKBACK:
                    counts = one.day - spec.lookback_days < day <= one.day
                else:
                    counts = day <= one.day and touch.campaign_end is not None and touch.campaign_end >= one.day
                if counts:
                    path.append(touch.channel)
                    on_path.add(place)
            paths.append((one.person, one.day, tuple(path[-windows.MAX_TOUCHPOINTS :])))
    nulls, opens = [], set()
    for person, own in sorted(touches.items()):
        path = []
        for day, place, touch in sorted(own, key=lambda each: each[:2]):
            closes = day + spec.lookback_days if spec.window is Window.LOOKBACK else touch.campaign_end
            if place in on_path or not begin <= day < end or closes is None:
                continue
            if closes > last:
                opens.add(person)
            else:
                path.append(touch.channel)
        if path:
            nulls.append(tuple(path[-windows.MAX_TOUCHPOINTS :]))
    return sorted(path for _, _, path in paths if path), sorted(nulls), len(opens), sum(not p for *_, p in paths)


def words(paths, names):
    return [
        tuple(names[code] for code in paths.codes[begin:end])
        for begin, end in zip(paths.starts[:-1], paths.starts[1:], strict=True)
    ]


HALF_DAYS = st.integers(-20, 90).map(lambda half: half / 2)
EVENTS = st.lists(
    st.builds(
        Event,
        person=st.sampled_from("pqr"),
        day=HALF_DAYS,
        channel=st.sampled_from(["", "a", "b", "c"]),
        campaign=st.sampled_from(["x", "y"]),
        campaign_end=st.none() | HALF_DAYS,
    ),
    max_size=25,
)


@given(EVENTS, st.sampled_from([JAN, FLIGHT]), st.sampled_from([20.0, 31.0, 60.0]), st.integers(1, 40))
def test_paths_are_those_of_the_definition(events, spec, data_end, chunk):
    events = [replace(one, event_id=f"{place:03d}") for place, one in enumerate(events)]
    period = period_of(spec, "UTC")
    journeys = journeys_of(table(events), subject=Subject.CHANNEL, period=period)
    finder = PathFinder(
        journeys, lookback_us=spec.lookback_days * DAY_US, period=period, data_end=to_micros(at(data_end))
    )
    before, windows.CHUNK = windows.CHUNK, chunk
    try:
        chunks = list(finder.converting())
    finally:
        windows.CHUNK = before
    found = finder.left()
    converting = sorted(path for paths in chunks for path in words(paths, journeys.subjects))
    expected = brute_force(events, spec, end=31.0, data_end=data_end)
    assert (converting, sorted(words(found.nulls, journeys.subjects)), found.open_paths, finder.without) == expected


def test_every_conversion_has_its_own_path():
    events = [Event("p", 1, "a"), Event("p", 2, value=1), Event("p", 3, "b"), Event("p", 4, value=1)]
    document = made(events).document
    assert (document["conversions"], document["attributed_conversions"], document["null_paths"]) == (2, 2, 0)
    assert credits_of(document, "first") == {"a": 2, "b": 0}
    assert credits_of(document, "last") == {"a": 1, "b": 1}


def test_a_lookback_is_exclusive_at_its_beginning_and_inclusive_at_the_conversion():
    events = [Event("p", 3, "old"), Event("p", 3.001, "new"), Event("p", 10, "now"), Event("p", 10, value=1)]
    assert credits_of(made(events).document, "linear") == {"new": 0.5, "now": 0.5, "old": 0}


def test_touchpoints_before_the_period_count_for_its_conversions_but_are_no_null_paths():
    events = [Event("p", -3, "a"), Event("p", 1, value=1), Event("q", -3, "b")]
    document = made(events).document
    assert [(row["subject"], row["touchpoints"]) for row in document["rows"]] == [("a", 0)]
    assert document["null_paths"] == 0


def test_conversions_outside_the_period_do_not_count_and_days_are_the_workspaces():
    events = [Event("p", -0.1, "a"), Event("p", 0.1, value=1), Event("p", 31.1, value=1)]
    utc = made(events).document
    assert (utc["conversions"], utc["attributed_conversions"]) == (1, 1)
    new_york = made(events, timezone="America/New_York").document  # its January begins and ends five hours later
    assert (new_york["conversions"], new_york["attributed_conversions"]) == (1, 0)


def test_a_flight_counts_assignments_while_the_campaign_runs_in_the_order_of_their_ids():
    assigned = {"channel": "mailing", "day": 2.0}
    events = [
        Event("p", campaign="y", campaign_end=20, event_id="1", **assigned),
        Event("p", campaign="x", campaign_end=9, event_id="2", **assigned),
        Event("p", campaign="z", event_id="3", **assigned),
        Event("p", 5, value=1),
        Event("p", 9.5, value=1),
        Event("p", 30, value=1),
    ]
    spec = replace(FLIGHT, subject=Subject.CAMPAIGN)
    found = made(list(reversed(events)), spec)
    assert credits_of(found.document, "first") == {"x": 0, "y": 2, "z": 0}
    assert credits_of(found.document, "last") == {"x": 1, "y": 1, "z": 0}
    assert reasons(found) == {"CONVERSIONS_WITHOUT_TOUCHPOINT": 1, "FLIGHT_UNKNOWN": 1}


def test_a_journey_of_ten_thousand_touchpoints_keeps_its_latest_two_hundred_and_says_so():
    events = [Event("p", 1 + place / 10_000, "old" if place < 9_800 else "new") for place in range(10_000)]
    found = made([*events, Event("p", 3, value=1)])
    assert credits_of(found.document, "first") == {"new": 1, "old": 0}
    assert reasons(found) == {"JOURNEY_TRUNCATED": 1}
    assert found.document["null_paths"] == 0
    ended = made(events)
    assert (ended.document["null_paths"], reasons(ended)) == (1, {"JOURNEY_TRUNCATED": 1})


def test_paths_that_may_yet_convert_are_not_null():
    events = [Event("p", 2, "a"), Event("p", 28, "a"), Event("q", 1, "b"), Event("q", 2, value=1)]
    found = made(events)
    assert (found.document["null_paths"], found.document["open_paths"]) == (1, 1)
    assert reasons(found) == {"OPEN_PATHS": 1}
    early = made(events, reading=replace(READING, known_at=at(8)))  # the data ends before day 2's window does
    assert (early.document["null_paths"], early.document["open_paths"]) == (0, 1)


def test_persons_without_consent_are_told():
    found = made([Event("p", 1, "a")], reading=replace(READING, persons_without_consent=7))
    assert reasons(found)["NO_CONSENT"] == 7


def test_values_in_another_currency_count_without_value():
    events = [
        Event("p", 1, "a"),
        *(Event("p", 2 + n, value=5) for n in range(3)),
        Event("p", 6, value=9, currency="EUR"),
    ]
    found = made(events)
    assert (found.document["currency"], found.document["value_micros"]) == ("USD", "15000000")
    assert reasons(found) == {"OTHER_CURRENCY": 1}


def test_touchpoints_that_name_nothing_are_a_row_of_their_own():
    found = made([Event("p", 1, "a"), Event("p", 2, value=1)], replace(JAN, subject=Subject.CAMPAIGN))
    assert credits_of(found.document, "last") == {"unknown": 1}
    assert reasons(found) == {"SUBJECT_UNKNOWN": 1}


def test_days_without_touchpoints_of_a_daily_channel_are_named():
    daily = [Event("p", day + 0.5, "email") for day in range(31) if day not in (9, 10, 11, 20)]
    rare = [Event("q", day + 0.5, "fair") for day in range(0, 31, 3)]
    found = made([*daily, *rare])
    (gap,) = [gap for gap in found.gaps if gap.reason == "TOUCHPOINT_GAP"]
    assert gap.detail == "email usually has touchpoints daily, and none on 3 days: 2025-01-10 to 2025-01-12."
    ends = [Event("p", day + 0.5, "email") for day in range(26)]
    (gap,) = [gap for gap in made(ends).gaps if gap.reason == "TOUCHPOINT_GAP"]
    assert "2025-01-27 to 2025-01-31" in gap.detail
    still = replace(READING, known_at=at(26.1))
    assert "TOUCHPOINT_GAP" not in reasons(made(ends, reading=still))


ADS = CostSource("google_ads", "day", "cost_micros", micros=True, currency="USD", channel="a")
META = CostSource("meta_ads", "day", "spend", micros=False, currency="USD", campaign_field="campaign")


def test_cost_stands_beside_the_credit_and_an_unknown_one_is_not_zero():
    days = pa.array([date(2024, 12, 31), date(2025, 1, 1), date(2025, 1, 31), date(2025, 2, 1), None])
    spent = pa.table({"day": days, "cost_micros": pa.array([7, 1_500_000, 500_000, 9, 1])})
    events = [Event("p", 1, "a"), Event("p", 2, "b"), Event("p", 3, value=10)]
    found = made(events, replace(JAN, costs=(ADS,)), costs=[spent])
    a, b = found.document["rows"]
    assert (a["cost_micros"], a["cost_currency"], b["cost_micros"], b["cost_currency"]) == ("2000000", "USD", None, "")
    per = {one["model"]: one["cost_per_conversion_micros"] for one in a["credits"]}
    assert (per["first"], per["linear"], per["last"]) == ("2000000", "4000000", None)
    assert {one["cost_per_conversion_micros"] for one in b["credits"]} == {None}
    assert reasons(found) == {"COST_UNKNOWN": 1, "COST_MISSING": 1}


def test_spend_by_campaign_is_read_from_texts_and_a_campaign_without_touchpoints_is_shown():
    spent = pa.table(
        {
            "day": ["2025-01-02", "2025-01-02", "2025-01-03", "2025-01-03"],
            "spend": ["0.10", "0.20", "5", "1"],
            "campaign": ["x", "x", "silent", None],
        }
    )
    events = [Event("p", 1, "a", campaign="x"), Event("p", 3, value=10)]
    found = made(events, replace(JAN, subject=Subject.CAMPAIGN, costs=(META,)), costs=[spent])
    rows = {row["subject"]: (row["touchpoints"], row["cost_micros"]) for row in found.document["rows"]}
    assert rows == {"silent": (0, "5000000"), "x": (1, "300000")}
    assert reasons(found) == {"COST_WITHOUT_CAMPAIGN": 1}
    euros = replace(META, currency="EUR")
    mixed = made(events, replace(JAN, subject=Subject.CAMPAIGN, costs=(META, euros)), costs=[spent, spent])
    assert {row["cost_micros"] for row in mixed.document["rows"]} == {None}
    assert reasons(mixed)["COST_CURRENCIES"] == 0


@pytest.mark.parametrize(
    "spent",
    [
        {"day": ["soon"], "cost_micros": [1]},
        {"day": [date(2025, 1, 1)], "cost_micros": ["much"]},
        {"day": [date(2025, 1, 1)]},
    ],
)
def test_a_cost_that_cannot_be_read_is_refused(spent):
    with pytest.raises(SeriesFieldError):
        made([Event("p", 1, "a")], replace(JAN, costs=(ADS,)), costs=[pa.table(spent)])


def test_nothing_at_all_is_an_attribution_of_nothing():
    found = made([], reading=replace(READING, known_at=None))
    assert found.document["rows"] == []
    assert found.document["conversions"] == 0


def test_more_subjects_than_fit_are_refused():
    events = [Event("p", 1 + n / 5_000, "a", campaign=f"c{n}") for n in range(2_001)]
    with pytest.raises(SubjectsTooManyError):
        made(events, replace(JAN, subject=Subject.CAMPAIGN))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"last_day": date(2024, 12, 31)}, "spec.last_day"),
        ({"last_day": date(2045, 1, 1)}, "spec.last_day"),
        ({"first_day": date(9999, 12, 31), "last_day": date(9999, 12, 31)}, "spec.first_day"),
        ({"costs": (replace(ADS, channel=""),)}, "spec.costs[0].channel"),
        ({"costs": (ADS,), "subject": Subject.CAMPAIGN}, "spec.costs[0].campaign_field"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes, field):
    with pytest.raises(SpecInvalidError) as refused:
        completed(replace(JAN, **changes))
    assert refused.value.violations[0].field == field


GOLDEN = {
    "eta": 3340.847, "iota": 3884.615, "alpha": 5344.948, "beta": 2527.352, "theta": 1971.913, "lambda": 1282.847,
    "kappa": 274.363, "zeta": 381.063, "epsilon": 599.571, "gamma": 171.145, "delta": 4.614, "mi": 1.722,
}  # fmt: skip


@pytest.fixture
def shipped_data(pytestconfig) -> pa.Table:
    """The Data.csv that ChannelAttribution (GPL) ships: fetched for the test, never kept in the repository."""
    folder = Path(pytestconfig.cache.mkdir("channelattribution"))
    if not list(folder.glob("*.tar.gz")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
        got = subprocess.run(
            [*command, "channelattribution==2.2.5"], capture_output=True, text=True, timeout=120, check=False
        )
        if got.returncode:
            pytest.skip(f"the package index gives no channelattribution: {got.stderr.strip()[-200:]}")
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        (name,) = [each for each in archive.getnames() if each.endswith("/Data.csv")]
        file = archive.extractfile(name)
        assert file is not None
        data = file.read()
    return pa.csv.read_csv(io.BytesIO(data), parse_options=pa.csv.ParseOptions(delimiter=";"))


def test_the_shipped_data_of_channelattribution_gives_the_golden_values(shipped_data):
    lists = pc.split_pattern(shipped_data["path"].combine_chunks(), " > ")
    encoded = lists.flatten().dictionary_encode()
    numbers = [shipped_data[name].to_numpy().astype(np.int64) for name in ("total_conversions", "total_null")]
    values = np.rint(shipped_data["total_conversion_value"].to_numpy() * 1e6).astype(np.int64)
    codes = encoded.indices.to_numpy().astype(np.int64)
    paths = Paths(codes, lists.offsets.to_numpy().astype(np.int64), *numbers, values, np.zeros_like(codes))
    names = encoded.dictionary.to_pylist()
    attributor = Attributor(len(names), half_life_us=DAY_US)
    attributor.add(paths)
    found = attributor.credits()
    assert (attributor.conversions, attributor.value) == (19_785, 74_802_971_582)
    assert dict(zip(names, found["markov"].conversions, strict=True)) == pytest.approx(GOLDEN, abs=1e-3)
    for model in MODELS:
        assert found[model].conversions.sum() == pytest.approx(19_785, rel=1e-12)
        assert int(found[model].values.sum()) == 74_802_971_582


def test_a_period_is_cut_at_midnights_of_the_timezone():
    period = period_of(replace(JAN, last_day=date(2025, 1, 1)), "America/New_York")
    assert period.begin == to_micros(datetime(2025, 1, 1, 5, tzinfo=UTC))
    assert period.end - period.begin == timedelta(days=1) // timedelta(microseconds=1)
