"""How soon a certificate ends, and how often that is said. Requirements: R-CON-5, R-CON-6."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker import endings
from broker.access_server import remind
from broker.endings import Reminder, Urgency
from broker.link.wire import Certificates
from tests.tls import Files

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("left", "how"),
    [
        (endings.SOON + A_SECOND, Urgency.NONE),
        (endings.SOON, Urgency.SOON),
        (endings.URGENT + A_SECOND, Urgency.SOON),
        (endings.URGENT, Urgency.URGENT),
        (A_SECOND, Urgency.URGENT),
        (timedelta(0), Urgency.OVER),
        (-endings.SOON, Urgency.OVER),
    ],
)
def test_sixty_days_then_fourteen(left: timedelta, how: Urgency) -> None:
    assert endings.urgency(NOW + left, NOW) is how


def test_days_are_whole() -> None:
    assert endings.days_left(NOW + timedelta(days=3, hours=23), NOW) == 3
    assert endings.days_left(NOW - timedelta(days=3), NOW) == 0


def test_it_is_said_once_a_day_and_when_it_becomes_urgent() -> None:
    reminder, end = Reminder(), NOW + timedelta(days=14, hours=6)
    hours = range(72)
    said = [reminder.due("east", end, NOW + timedelta(hours=hour)) for hour in hours]
    assert [(hour, how) for hour, how in zip(hours, said, strict=True) if how] == [
        (0, Urgency.SOON), (6, Urgency.URGENT), (12, Urgency.URGENT), (36, Urgency.URGENT),
        (60, Urgency.URGENT),
    ]  # fmt: skip
    assert reminder.due("west", end, NOW) is Urgency.SOON  # another is another
    assert reminder.due("east", NOW + timedelta(days=390), NOW) is None  # renewed
    assert reminder.due("east", end, NOW + timedelta(hours=71)) is Urgency.URGENT


def test_the_end_is_read_from_the_file(files: Files, tmp_path: Path) -> None:
    end = endings.of_file(files.server_chain)
    assert end > datetime.now(UTC)
    (tmp_path / "none.pem").write_text("?")
    with pytest.raises(ValueError):
        endings.of_file(tmp_path / "none.pem")


def test_an_access_server_says_it_with_the_command(caplog: pytest.LogCaptureFixture) -> None:
    """Whichever of the two ends first."""
    far, near = (NOW + timedelta(days=300)).timestamp(), (NOW + timedelta(days=20)).timestamp()
    remind("east", Certificates(server=far, link=far), Reminder(), NOW)
    assert not caplog.records
    reminder = Reminder()
    for ends in (Certificates(server=near, link=far), Certificates(server=far, link=near)):
        remind("east", ends, reminder, NOW)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "end on 2027-03-21 (20 days left)" in record.getMessage()
    assert "manage.py access-server bundle east --out east;" in record.getMessage()
    remind("east", Certificates(server=near, link=far), reminder, NOW + timedelta(days=21))
    assert caplog.records[-1].levelno == logging.ERROR
