"""What the demo prints: what to open, how to sign in, three things to try."""

import shlex
from pathlib import Path

from fleet.accounts.models import Role
from fleet.demo.injectors import Injector
from fleet.demo.people import Person, command
from fleet.demo.plan import Plan

_ROLES = {
    Role.ADMINISTRATOR: "administrator",
    Role.SPECIALIST: "support specialist",
    Role.HOSPITAL: "hospital IT",
}


def starting(data: Path) -> str:
    return f"Patency demo: starting. Its data: {_short(data)}"


def welcome(
    *, url: str, plan: Plan, everybody: list[Person], injectors: list[Injector], data: Path
) -> str:
    manage = f"{_typed(command('python'))} manage.py"
    agent, patency = _typed(command("patency-agent")), _typed(command("patency"))
    shown = injectors[1]
    state, serial = _typed(shown.state_dir), shown.plan.serial
    profile = f"PATENCY_PROFILE={_typed(data / plan.profile)}"
    users = "\n".join(
        f"    {person.user.username:14} {_ROLES[Role(person.user.role)]}, "
        f"{person.user.organisation.name}{' (code)' if person.plan.totp else ''}"
        for person in everybody
    )
    return f"""
Twelve simulated injectors of three product lines are on line, in two hospitals.

  Open      {url}
  Sign in   with the password {plan.password}, as
{users}
            Those of the vendor are asked for six digits as well. Their telephones are here:
              {manage} code

  Three things to try
    1. Watch an injector, then break it. Open {serial} in the browser, then type:
         {agent} simulate --state {state} --fault occlusion
       The faults are occlusion, stall, heater (CT), battery (MR) and armed; idle clears all.
    2. Get in, with somebody's consent. In one terminal, be the specialist:
         {profile} {patency} request {serial} \\
           --level os --service console --reason repair --for 30m --wait
       In another, be the technologist at the injector; the PIN is {plan.pin}:
         {agent} panel --state {state}
       Once it is active, the specialist types:
         {profile} {patency} shell {serial} --service console
       Or in the browser, with a passkey: docs/browser.md, “In the demonstration”.
    3. Collect diagnostics. In the browser, as maya: Jobs, New job, then download the bundle.

  Stop with Ctrl-C; the next start goes on from here. Start afresh: rm -r {_typed(data)}
"""


def another(data: Path) -> str:
    beside = _typed(data.with_name(f"{data.name}-2"))
    return (
        f"Another demo runs in {data}. Stop it with Ctrl-C where it runs, or start one beside it:\n"
        f"  PATENCY_DATA={beside} PATENCY_HTTP=127.0.0.1:0 PATENCY_MQTT=127.0.0.1:0 "
        "PATENCY_ACCESS=127.0.0.1:0 make demo"
    )


def unusable(path: object, why: str) -> str:
    return (
        f"{path}: {why}. Make it readable and writable for you, or choose another directory: "
        "PATENCY_DATA=var/demo-2 make demo"
    )


def waiting(missing: dict[str, str], data: Path) -> str:
    """`missing`: why each injector that is not online is not."""
    why = "\n".join(f"  {serial}: {reason}" for serial, reason in missing.items())
    return (
        f"demo: still waiting for {len(missing)} of its injectors:\n{why}\n"
        f"  Their logs are in {_short(data / 'logs')}. If one cannot be put right, stop with "
        f"Ctrl-C and start afresh: rm -r {_typed(data)}"
    )


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _typed(path: Path) -> str:
    """As it goes into a command line."""
    return shlex.quote(_short(path))
