"""Writers of one process take turns (R-CON-4: a request does not lose to a flood of events)."""

import threading
import time

import pytest
from django.db import OperationalError, connection, transaction

from fleet.core.sqlite import base
from fleet.core.sqlite.turnstile import Turnstile
from fleet.mqtt.models import Decision


def test_turns_come_in_order() -> None:
    turnstile = Turnstile()
    assert turnstile.enter(0)
    order: list[int] = []

    def wait(number: int) -> None:
        assert turnstile.enter(5)
        order.append(number)
        turnstile.leave()

    threads = []
    for number in range(5):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        threads.append(thread)
        while len(turnstile._waiting) <= number:
            time.sleep(0.001)
    assert not turnstile.enter(0.01)  # gives up, and is not called later
    turnstile.leave()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert turnstile.enter(0)


@pytest.mark.django_db(transaction=True)
def test_a_writer_that_never_pauses_keeps_nobody_out() -> None:
    stop = threading.Event()
    rounds = [0]

    def flood() -> None:
        while not stop.is_set():
            with transaction.atomic():
                Decision.objects.filter(pk=0).update(length=1)
                time.sleep(0.02)
            rounds[0] += 1
        connection.close()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        waits = []
        for _ in range(10):
            started = time.monotonic()
            with transaction.atomic():
                waits.append(time.monotonic() - started)
            time.sleep(0.005)  # the flood begins its next transaction
    finally:
        stop.set()
        thread.join()
    assert max(waits) < 0.5
    assert rounds[0] >= 5


@pytest.mark.django_db(transaction=True)
def test_a_turn_ends_with_its_transaction_however_that_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def free() -> bool:
        if base._turnstile.enter(0):
            base._turnstile.leave()
            return True
        return False

    with transaction.atomic():
        assert not free()
        with transaction.atomic():
            assert not free()
        assert not free()
    assert free()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        _ = 1 / 0
    assert free()
    with pytest.raises(OperationalError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELEC")
    assert free()
    with transaction.atomic():
        assert connection.connection is not None
    connection.close()
    assert free()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.01)
        assert base._turnstile.enter(0)
        with pytest.raises(OperationalError, match="no turn"), transaction.atomic():
            pass
        base._turnstile.leave()
    with transaction.atomic():
        pass
    assert free()
