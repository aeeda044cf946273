"""The panel: who asks for access, Approve, Refuse, Stop (R-ACC-6, R-ACC-7, R-CON-9, R-ASR-3).

A full-screen program that talks to the agent over its control socket. It decides nothing: it shows
what the agent says and carries what a person answers; the network's doctor alone looks for itself.
Keys alone are enough. It survives the agent's restart, and a second panel beside it.
"""

from pathlib import Path


def run(state: Path) -> None:
    """Show the panel of an injector until the person leaves it."""
    from agent.panel.app import Panel  # Textual takes a while to import; other commands need none

    Panel(state).run()
