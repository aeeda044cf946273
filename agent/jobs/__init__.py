"""Maintenance jobs on the device: each runs once, however often it is delivered (R-MNT-3)."""

from agent.jobs.runner import Runner
from agent.runtime import Agent

__all__ = ["Runner", "install"]


def install(agent: Agent) -> None:
    """Plug the runner into an agent; the part `streams` is installed before."""
    runner = Runner(agent)
    agent.provide(runner)
    runner.start()
