"""Hypothesis strategies for values: heads, deliveries, outcomes, delivery options, loads, headcount views."""

import datetime as dt
import uuid
from decimal import Decimal

from hypothesis import strategies as st

from hybridpool._ipc.codec import JSON, PICKLE, encode
from hybridpool._message import Delivery, Head
from hybridpool._outcome import Cancelled, Lost, Outcome, Raised, Refused, Returned, TimedOut
from hybridpool._policy.autoscale import ScaleLimits
from hybridpool._policy.reconcile import LaneView
from hybridpool._policy.settlement import DeliveryOptions

#: a fixed "now" for what needs one
NOON = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)

names = st.text("abcxyz._", min_size=1, max_size=12)
ids = st.uuids().map(str)
counts = st.integers(0, 5)
moments = st.datetimes(
    dt.datetime(2029, 12, 31),  # noqa: DTZ001  # the zone is `timezones`
    dt.datetime(2030, 1, 2),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)
#: seconds that floats add and subtract without rounding
quarters = st.integers(0, 40).map(lambda number: number / 4)
#: seconds of a time limit
limits = quarters.map(lambda seconds: seconds + 0.25)

heads = st.builds(
    Head,
    name=names,
    id=ids,
    root_id=st.none() | ids,
    parent_id=st.none() | ids,
    group=st.none() | ids,
    retries=counts,
    time_limit=st.none() | limits,
    soft_time_limit=st.none() | limits,
    eta=st.none() | moments,
    expires=st.none() | moments,
    ignore_result=st.booleans(),
    lost_before=counts,
)

deliveries = st.builds(
    Delivery,
    queue=names,
    tag=st.integers(1, 1000),
    channel=st.integers(1, 5),
    redelivered=st.booleans(),
    headers=st.just({}),
    content_type=st.sampled_from([JSON, PICKLE, "text/plain", None]),
    content_encoding=st.sampled_from(["utf-8", "binary", None]),
    correlation_id=st.none() | ids,
    reply_to=st.none() | ids,
    priority=st.none() | st.integers(0, 9),
    exchange=st.just(""),
    routing_key=names,
    body=st.binary(max_size=64),
)

_arguments = st.lists(st.integers() | st.text(max_size=5), max_size=3).map(encode)
returned = st.builds(Returned, value=st.integers().map(encode), text=st.text(max_size=10))
raised = st.builds(
    Raised, kind=names, module=names, arguments=_arguments, text=st.text(max_size=10), traceback=st.text(max_size=10)
)
refused = st.builds(Refused, reason=st.text(max_size=10), kind=names, module=names, arguments=_arguments)
lost = st.builds(Lost, cause=st.sampled_from(["signal 9 (SIGKILL)", "exit code 3"]), child=names)
timed_out = st.builds(TimedOut, limit=limits, child=names)
cancelled = st.builds(Cancelled, child=names)
outcomes: st.SearchStrategy[Outcome] = returned | raised | refused | lost | timed_out | cancelled

delivery_options = st.builds(
    DeliveryOptions, wants_result=st.booleans(), acks_late=st.booleans(), max_deliveries=st.integers(1, 5)
)

loads = st.integers(0, 30)


@st.composite
def scale_limits(draw: st.DrawFn) -> ScaleLimits:
    """Return a floor and a ceiling with some patience."""
    floor = draw(st.integers(1, 8))
    return ScaleLimits(floor=floor, ceiling=draw(st.integers(floor, 16)), idle=draw(quarters))


@st.composite
def lane_views(draw: st.DrawFn) -> LaneView:
    """Return a headcount at any moment of its life."""
    now = draw(quarters) + 100
    ages = sorted(draw(st.lists(quarters, max_size=5)), reverse=True)
    return LaneView(
        target=draw(st.integers(0, 8)),
        spares=draw(st.integers(0, 2)),
        now=now,
        idle=[f"idle-{number}" for number in range(draw(st.integers(0, 6)))],
        busy=draw(st.integers(0, 6)),
        replaceable=[f"replaceable-{number}" for number in range(draw(st.integers(0, 3)))],
        starting=[(f"starting-{number}", now - age) for number, age in enumerate(ages)],
        failed_starts=draw(counts),
        fork_after=now + draw(quarters) - 5,
        start_timeout=draw(quarters) + 0.25,
    )


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))

#: values that JSON has only as `__type__`
typed = (
    st.datetimes(timezones=st.none() | offsets)
    | st.dates()
    | st.times(timezones=st.none() | offsets)
    | st.decimals(allow_nan=False)
    | st.uuids(version=4)
    | st.binary(max_size=10)
)

keys = st.text(max_size=5).filter(lambda key: not key.startswith("__"))

#: everything that may stand in arguments and results, and comes back equal
values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10) | typed,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)

#: like those, for tests that show one of each
SPECIAL: tuple[object, ...] = (
    dt.datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    dt.datetime(2030, 1, 2, 3, 4, 5),  # noqa: DTZ001  # without a zone it must stay so
    dt.date(2030, 1, 2),
    dt.time(3, 4, 5, 6),
    Decimal("1.10"),
    uuid.UUID("12345678-1234-4678-9234-567812345678"),
    b"text",
    b"\xff\x00",
)
