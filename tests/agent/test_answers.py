"""What `patency-agent` prints for people: no digits beyond what matters, moments as dates."""

import pytest

from agent import answers, i18n


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        (
            "en",
            ["roster expires at  2026-12-01T12:34:46+00:00", "rtt ms             0.5",
             "online             yes", "trouble", "lost               event 2"],
        ),
        ("fr", ["online             oui"]),
    ],
)  # fmt: skip
def test_an_answer_for_people(
    capsys: pytest.CaptureFixture[str], language: str, lines: list[str]
) -> None:
    i18n.use(language)
    answers.show(
        {
            "roster_expires_at_ms": 1796128486420, "rtt_ms": 0.5, "online": True, "trouble": None,
            "lost": {"event": 2},
        },
        "text",
    )  # fmt: skip
    i18n.use("en")
    assert set(lines) <= set(capsys.readouterr().out.splitlines())
