"""What the demo prints can be typed as it stands, wherever the data are."""

import shlex
from pathlib import Path

import pytest

from fleet.demo import people, words
from fleet.demo.injectors import Injector
from fleet.demo.plan import plan

ODD = Path("/tmp/a b; 'c' $HOME")


@pytest.mark.django_db
def test_every_command_survives_an_odd_directory() -> None:
    people.organisations(plan())
    everybody = people.people(plan(), {})
    injectors = [Injector(d, ODD / "devices" / d.serial, {}) for d in plan().devices]
    text = words.welcome(
        url="http://localhost:1", plan=plan(), everybody=everybody, injectors=injectors, data=ODD
    )
    commands = [
        shlex.split(line)
        for line in text.replace("\\\n", " ").splitlines()
        if " --state " in line or line.strip().startswith("PATENCY_PROFILE=")
    ]
    states = [typed[typed.index("--state") + 1] for typed in commands if "--state" in typed]
    assert states == [str(injectors[1].state_dir)] * 2
    profiles = [typed[0] for typed in commands if "--state" not in typed]
    assert profiles == [f"PATENCY_PROFILE={ODD / str(plan().profile)}"] * 2
    assert shlex.split(text.rpartition("Start afresh: ")[2]) == ["rm", "-r", str(ODD)]


def test_a_second_demo_is_told_how_to_stand_beside_the_first() -> None:
    said = words.another(ODD)
    assert said.startswith(f"Another demo runs in {ODD}.")
    command = shlex.split(said.splitlines()[1])
    assert command == [
        f"PATENCY_DATA={ODD}-2", "PATENCY_HTTP=127.0.0.1:0", "PATENCY_MQTT=127.0.0.1:0",
        "PATENCY_ACCESS=127.0.0.1:0", "make", "demo",
    ]  # fmt: skip
