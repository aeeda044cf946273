"""What may leave in a bundle, and what is refused whole (R-PRV-1)."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import privacy
from agent.privacy import PrivacyError
from agent.wire import bundle
from agent.wire.bundle import Contents
from agent.wire.catalogue import EventPriority
from tests.agent.wire.test_bundle import contents

CANARY = "DOE^JANE 1961-02-03"
replace = msgspec.structs.replace


def with_event(**changes: Any) -> Contents:
    good = contents()
    return replace(good, events=[replace(good.events[0], **changes)])


def with_sample(**changes: Any) -> Contents:
    good = contents()
    return replace(good, samples=[*good.samples[:-1], replace(good.samples[-1], **changes)])


def with_entry(**changes: Any) -> Contents:
    good = contents()
    return replace(good, audit=[replace(good.audit[0], **changes)])


def with_manifest(**changes: Any) -> Contents:
    good = contents()
    return replace(good, manifest=replace(good.manifest, **changes))


def test_coded_content_passes() -> None:
    assert bundle.unpack(privacy.seal_off(contents())) == contents()


@pytest.mark.parametrize("place", [with_event, with_sample, with_entry, with_manifest])
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_text_in_any_field_is_refused_and_not_quoted(
    place: Callable[..., Contents], data: st.DataObject
) -> None:
    fields = {
        with_event: contents().events[0],
        with_sample: contents().samples[0],
        with_entry: contents().audit[0],
        with_manifest: contents().manifest,
    }[place].__struct_fields__
    name = data.draw(st.sampled_from(fields))
    with pytest.raises(PrivacyError) as refused:
        privacy.seal_off(place(**{name: CANARY}))
    assert "DOE" not in str(refused.value)
    assert "DOE" not in str(refused.value.__cause__)


def test_a_metric_that_there_is_not_is_refused() -> None:
    with pytest.raises(PrivacyError):
        privacy.seal_off(with_sample(values={CANARY: 1.0}))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e13, "1"])
def test_a_value_that_is_no_bounded_number_is_refused(number: Any) -> None:
    metric = next(iter(contents().samples[0].values))
    with pytest.raises(PrivacyError):
        privacy.seal_off(with_sample(values={metric: number}))


@pytest.mark.parametrize("place", [with_event, with_sample, with_entry])
def test_what_is_not_of_the_bundles_time_is_refused(place: Callable[..., Contents]) -> None:
    with pytest.raises(PrivacyError, match="not of its time"):
        privacy.seal_off(place(at=10_000_000))


def test_an_event_with_a_priority_of_its_own_is_refused() -> None:
    with pytest.raises(PrivacyError, match="another priority"):
        privacy.seal_off(with_event(priority=EventPriority.INFO))
