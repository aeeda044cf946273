"""Identity from a certificate, and the grant: own up/ to publish, own dn/ to subscribe."""

import random
from typing import Any

import pytest

from broker import acl
from broker.errors import PeerError, Reason
from tests.broker.test_filters import granted
from tests.scale import scaled

A = "device-aaaa"
B = "device-bbbb"


def certificate(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "subject": ((("commonName", A),),),
        "subjectAltName": (("URI", f"spiffe://patency/device/{A}"),),
        "serialNumber": "0A",
        "notAfter": "Jan  5 09:34:43 2030 GMT",
    }
    return found | changes


def test_identity() -> None:
    found = acl.identity(certificate())
    assert (found.device, found.serial) == (A, "0A")
    assert found.not_after == 1893836083.0


@pytest.mark.parametrize(
    "found",
    [
        None,
        {},
        certificate(subject=()),
        certificate(subject=((("commonName", A),), (("commonName", B),))),
        certificate(subject=((("commonName", B),),)),
        certificate(subject=((("commonName", "short"),),)),
        certificate(subject=((("commonName", A + "\n"),),)),
        certificate(subjectAltName=()),
        certificate(subjectAltName=(("DNS", A),)),
        certificate(subjectAltName=(("URI", f"spiffe://other/device/{A}"),)),
        certificate(
            subjectAltName=(
                ("URI", f"spiffe://patency/device/{A}"),
                ("URI", f"spiffe://patency/device/{B}"),
            )
        ),
    ],
)
def test_no_identity(found: dict[str, Any] | None) -> None:
    with pytest.raises(PeerError) as caught:
        acl.identity(found)
    assert caught.value.reason is Reason.NO_IDENTITY


def test_generated_filters_and_topics() -> None:
    """THREATS: 10^6 generated filters, none accepted outside the grant."""
    random_ = random.Random(311)
    pieces = ["pat", "1", "2", A, B, "up", "dn", "s", "job", "event", "#", "+", "$share", "g", ""]
    accepted = {"dn": 0, "up": 0}
    for _ in range(scaled(1_000_000)):
        if random_.random() < 0.5:
            levels = ["pat", "1", A, random_.choice(("up", "dn"))]
            levels += random_.choices(pieces, k=random_.randrange(3))
            if random_.random() < 0.3:
                levels[random_.randrange(len(levels))] = random_.choice(pieces)
        else:
            levels = random_.choices(pieces, k=random_.randrange(1, 8))
        text = "/".join(levels)
        assert acl.may_subscribe(A, text) is granted(text), text
        assert bool(acl.publication(A, text.encode())) is granted(text, "up"), text
        accepted["dn"] += granted(text)
        accepted["up"] += granted(text, "up")
    assert all(accepted.values())


@pytest.mark.parametrize("name", [b"pat/1/\xff", "pat/1/é".encode(), b"", b"\0"])
def test_a_topic_of_other_bytes(name: bytes) -> None:
    assert acl.publication(A, name) is None


def test_publication() -> None:
    topic = acl.publication(A, f"pat/1/{A}/up/event/12".encode())
    assert topic is not None
    assert (topic.type, topic.version) == ("event", 12)
    frames = acl.publication(A, f"pat/1/{A}/up/s".encode())
    assert frames is not None
    assert (frames.type, frames.version) == ("s", 0)
    assert acl.publication(B, f"pat/1/{A}/up/s".encode()) is None


def test_receiving() -> None:
    assert acl.may_receive(A, f"pat/1/{A}/dn/job/1")
    assert not acl.may_receive(A, f"pat/1/{A}/up/event/1")
    assert not acl.may_receive(A, f"pat/1/{B}/dn/job/1")
    assert not acl.may_receive(A, f"pat/1/{A}/dn/#")
