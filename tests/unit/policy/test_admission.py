"""Whether a message is run."""

import datetime as dt
from typing import Any

import attrs
import pytest
from hypothesis import given

from hybridpool._ipc.codec import JSON, PICKLE
from hybridpool._message import Delivery, Head
from hybridpool._policy.admission import AdmissionRules, Admitted, Denied, TooEarly, TooLate, admit, is_expired
from tests.strategies import NOON, deliveries, heads, moments

GATE = AdmissionRules(tasks={"shop.add"}, accepts={JSON}, max_size=10)
HOUR = dt.timedelta(hours=1)


def head(**changes: Any) -> Head:
    """Return a head that is admitted, with changes."""
    plain = Head("shop.add", "id-1", None, None, None, 0, None, None, None, None, False, 0)
    return attrs.evolve(plain, **changes)


def delivery(body: bytes = b"[]", content_type: str | None = JSON) -> Delivery:
    """Return a delivery that is admitted, with changes."""
    return Delivery(
        queue="celery",
        tag=1,
        channel=1,
        redelivered=False,
        headers={},
        content_type=content_type,
        content_encoding="utf-8",
        correlation_id=None,
        reply_to=None,
        priority=None,
        exchange="",
        routing_key="celery",
        body=body,
    )


def test_a_plain_call_is_run() -> None:
    """An ordinary call is admitted."""
    assert admit(GATE, head(), delivery(), NOON) == Admitted()


def test_size() -> None:
    """A message over worker_max_message_size is denied."""
    assert admit(GATE, head(), delivery(b"x" * 10), NOON) == Admitted()
    denied = admit(GATE, head(), delivery(b"x" * 11), NOON)
    assert isinstance(denied, Denied)
    assert denied.reason == "message of 11 bytes is over worker_max_message_size (10)"


@pytest.mark.parametrize("content_type", [PICKLE, "text/plain", "", None])
def test_content_type(content_type: str | None) -> None:
    """A content type that is not in accept_content is denied."""
    denied = admit(GATE, head(), delivery(content_type=content_type), NOON)
    assert isinstance(denied, Denied)
    assert (denied.kind, denied.module) == ("ContentDisallowed", "kombu.exceptions")
    assert denied.reason == f"content type {content_type!r} is not in accept_content"


def test_unknown_task() -> None:
    """An unknown task is denied."""
    denied = admit(GATE, head(name="shop.ad"), delivery(), NOON)
    assert denied == Denied("unknown task 'shop.ad'", "NotRegistered", "celery.exceptions", "shop.ad")


@pytest.mark.parametrize(("expires", "late"), [(NOON - HOUR, True), (NOON, True), (NOON + HOUR, False), (None, False)])
def test_expired(expires: dt.datetime | None, late: bool) -> None:
    """A call is too late from the moment of its expiry on."""
    assert admit(GATE, head(expires=expires), delivery(), NOON) == (TooLate() if late else Admitted())


@pytest.mark.parametrize(("returned", "is_admitted"), [(0, True), (19, True), (20, False), (99, False)])
def test_what_brings_down_workers(returned: int, is_admitted: bool) -> None:
    """A message that came back too often is denied."""
    found = admit(GATE, head(returned_before=returned), delivery(), NOON)
    assert (found == Admitted()) == is_admitted
    if not is_admitted:
        assert isinstance(found, Denied)
        assert f"came back {returned} times" in found.reason


def test_eta_ahead() -> None:
    """A call whose ETA is ahead is too early, by the seconds that are left."""
    assert admit(GATE, head(eta=NOON + HOUR), delivery(), NOON) == TooEarly(3600.0)


@pytest.mark.parametrize("eta", [NOON, NOON - HOUR])
def test_eta_reached(eta: dt.datetime) -> None:
    """A call whose ETA is reached is admitted."""
    assert admit(GATE, head(eta=eta), delivery(), NOON) == Admitted()


def test_expired_before_early() -> None:
    """A call that is both expired and early counts as expired."""
    assert admit(GATE, head(eta=NOON + HOUR, expires=NOON - HOUR), delivery(), NOON) == TooLate()


@given(head=heads, delivery=deliveries, now=moments)
def test_what_is_run_may_be_run(head: Head, delivery: Delivery, now: dt.datetime) -> None:
    """A call is admitted exactly if nothing is wrong with it, and a denial has a reason and a kind."""
    gate = AdmissionRules(tasks={head.name} if head.retries else {"other"}, accepts={JSON}, max_size=32)
    admission = admit(gate, head, delivery, now)
    faults = [
        len(delivery.body) > 32,
        delivery.content_type != JSON,
        head.name not in gate.tasks,
        head.expires is not None and head.expires <= now,
        head.eta is not None and head.eta > now,
    ]
    assert (admission == Admitted()) == (not any(faults))
    if isinstance(admission, Denied):
        assert admission.reason
        assert admission.kind


@given(head=heads, earlier=moments, later=moments)
def test_expired_stays_expired(head: Head, earlier: dt.datetime, later: dt.datetime) -> None:
    """A call that is expired stays expired."""
    if earlier <= later and is_expired(head, earlier):
        assert is_expired(head, later)


def test_bodies_of_guests() -> None:
    """Of a message for another library's app only content type, size and task are checked: it decodes the body."""
    rules = attrs.evolve(GATE, accepts={"application/x-yaml"}, are_bodies_opaque=True)
    odd = attrs.evolve(
        delivery(content_type="application/x-yaml"), content_encoding="koi8", headers={"compression": "of its own"}
    )
    assert admit(rules, head(), odd, NOON) == Admitted()
    assert isinstance(admit(rules, head(), delivery(content_type=JSON), NOON), Denied)
    assert isinstance(admit(rules, head(), attrs.evolve(odd, body=b"x" * 11), NOON), Denied)
    assert isinstance(admit(rules, head(name="shop.ad"), odd, NOON), Denied)
    assert isinstance(admit(rules, head(eta=NOON + HOUR), odd, NOON), TooEarly)
