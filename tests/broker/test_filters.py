"""Generated filters at the running gate, beside an access rule written a second time.

THREATS, "The gate and the broker": none accepted outside the grant; 10^6 of them meet the rule
itself in test_acl.py.

Requirements: R-CON-6, R-PRV-1.
"""

import random
import string

from tests.broker import raw
from tests.broker.conftest import A, B, Start
from tests.scale import scaled

VERSIONS = frozenset(str(number) for number in range(1, 10_000))
FRAGMENTS = (
    *("pat", "1", "0", A, B, A[:-1], A + "a", "dn", "up", "s", "job", "hello", "event", "10000"),
    *("#", "+", "$share", "g", "$SYS", "broker", "", " ", "\u2028", "é", "pat/1", "//", "DN"),
)


def generated(random_: random.Random) -> str:
    """A filter that is nearly right, or made of pieces."""
    if random_.random() < 0.5:
        levels = [random_.choice(FRAGMENTS) for _ in range(random_.randrange(1, 8))]
    else:
        levels = ["pat", "1", A, "dn", *random_.choice((["#"], ["s"], ["job", "7"]))]
        for _ in range(random_.randrange(3)):
            at = random_.randrange(len(levels) + 1)
            levels[at : at + random_.randrange(2)] = [random_.choice(FRAGMENTS)]
    return "/".join(levels)


def granted(text: str, way: str = "dn") -> bool:
    """The two lines of docs/protocol.md, said once more in other words."""
    levels = text.split("/")
    if levels[:4] != ["pat", "1", A, way]:
        return False
    if levels[4:] == ["s"] or (levels[4:] == ["#"] and way == "dn"):
        return True
    kind, version = levels[4:] if len(levels) == 6 else ("", "")
    return (
        2 <= len(kind) <= 32
        and kind[0] in string.ascii_lowercase
        and not set(kind) - set(string.ascii_lowercase + string.digits + "-")
        and version in VERSIONS
    )


async def test_generated_filters_at_the_gate(start: Start) -> None:
    """The answer to each, and nothing is delivered outside the grant."""
    running = await start(limits={"messages_burst": 10**9, "filters": 10**6})
    random_ = random.Random(4)
    async with await running.live(A, subscribed=False) as attacker:
        for number in range(1, scaled(1000)):
            texts = [text for text in (generated(random_) for _ in range(20)) if text]
            attacker.send(raw.subscribe(*texts, id=number))
            codes = b"".join(b"\0" if granted(text) else b"\x80" for text in texts)
            assert await attacker.packet() == (0x90, number.to_bytes(2) + codes)
        assert not running.gate.publish(f"pat/1/{B}/dn/job/7", b"x")
        registry = running.gate._registry
        assert registry is not None
        assert all(granted(text) for text in registry.filters(A))
