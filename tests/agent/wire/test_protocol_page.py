"""docs/protocol.md says what the code does (R-ASR-1): its tables are made from the schemas."""

from agent.wire import bundle, frames, messages
from tests.agent.wire import protocol_tables


def test_the_tables_are_those_of_the_code() -> None:
    page = protocol_tables.PAGE.read_text(encoding="utf-8")
    assert protocol_tables.render(page) == page, "run python -m tests.agent.wire.protocol_tables"


def test_the_bounds_are_those_of_the_code() -> None:
    page = protocol_tables.PAGE.read_text(encoding="utf-8")
    assert messages.MAX_PAYLOAD == 512 * 1024
    assert frames.MAX_FRAME == 40 + 32_768 + 16
    assert bundle.MAX_BUNDLE == 16 * 1024 * 1024
    for row in ("512 KiB", "40 + 32 768 + 16 bytes", "| bundle | 16 MiB |"):
        assert row in page
