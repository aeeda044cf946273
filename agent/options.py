"""What the commands of `patency-agent` have in common: options, and how each begins and ends."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agent import answers, i18n
from agent.errors import AgentError

state = click.option(
    "--state",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The injector's state directory.",
)
output = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print the answer.",
)
session = click.option("--session", help="The session, if more than one could be meant.")


def speak(state: Path) -> None:
    """The language of `--language`, of the injector, or of the environment."""
    wanted = click.get_current_context().find_root().params.get("language")
    i18n.use(i18n.chosen(state, wanted))


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Speak the injector's language, print what `function` gives, turn errors into statuses."""

    @functools.wraps(function)
    def run(**options: Any) -> None:
        form = options.pop("output", "text")
        speak(options["state"])
        try:
            answer = function(**options)
        except AgentError as error:
            answers.fail(error, form)
        else:
            answers.show(answer, form)

    return run
