"""`make demo` from outside: the contract for scripts, and what a newcomer meets (docs/cli.md)."""

import json
import shutil
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.demo import STOP_S, Demo, free_port, until


def test_demo_json_keeps_its_contract(demo: Demo) -> None:
    info = demo.info
    assert set(info) == {"url", "users", "devices", "cli", "profile", "access_origin"}
    assert info["url"] == f"http://localhost:{demo.http}"
    for user in info["users"]:
        assert set(user) == {"username", "password", "role", "organisation", "token", "totp"}
    roles = Counter(user["role"] for user in info["users"])
    assert roles == {"specialist": 2, "administrator": 1, "hospital": 2}
    hospitals = {u["organisation"] for u in info["users"] if u["role"] == "hospital"}
    assert len(hospitals) == 2
    for device in info["devices"]:
        assert set(device) == {
            "serial", "device", "product_line", "organisation", "site", "state_dir", "pin",
            "services",
        }  # fmt: skip
        assert set(device["services"]) == {"ssh", "console", "web"}
        assert Path(device["state_dir"]).stat().st_mode & 0o077 == 0
    assert len(info["devices"]) == 12
    assert {d["organisation"] for d in info["devices"]} == hospitals
    assert Path(info["cli"]).name == "patency"
    assert (Path(info["profile"]) / "profile.json").exists()
    client = httpx.get(info["access_origin"])
    assert client.status_code == 200
    assert "Patency" in client.text
    assert httpx.get(f"{info['access_origin']}/config.json").json()["portal"] == info["url"]
    ports = [port for device in info["devices"] for port in device["services"].values()]
    assert len(set(ports)) == 36
    assert (demo.data / "demo.json").stat().st_mode & 0o077 == 0


def test_twelve_injectors_of_three_lines_are_online_in_the_api(demo: Demo) -> None:
    """R-CON-1, R-CON-2: they enrolled by themselves."""
    with demo.api() as api:
        shown = api.get("devices/", params={"online": "true"}).json()["results"]
    assert {d["device"] for d in shown} == {d["device"] for d in demo.devices}
    assert Counter(d["product_line"] for d in shown) == {"ct-multi": 4, "ct-dual": 4, "mr-dual": 4}
    assert all(d["online"] for d in shown)


def test_each_hospital_sees_its_own_alone(demo: Demo) -> None:
    for which in range(2):
        with demo.api("hospital", which=which) as api:
            shown = api.get("devices/").json()["results"]
        mine = demo.user("hospital", which=which)["organisation"]
        assert {d["device"] for d in shown} == {
            d["device"] for d in demo.devices if d["organisation"] == mine
        }


def test_the_command_line_lists_them(demo: Demo) -> None:
    listed = json.loads(demo.patency("devices", "-o", "json").stdout)
    assert {d["serial"] for d in listed} == {d["serial"] for d in demo.devices}
    assert all(d["online"] for d in listed)


@pytest.mark.parametrize("path", ["/-/live", "/-/ready", "/metrics", "/api/v1/schema/"])
def test_the_servers_own_pages_answer(demo: Demo, path: str) -> None:
    assert httpx.get(f"{demo.url}{path}", trust_env=False).status_code == 200


def test_a_fault_reaches_the_portal_and_goes_again(demo: Demo) -> None:
    """R-MNT-5."""
    device = demo.device("mr-dual")
    with demo.api() as api:

        def codes(phase: str) -> set[int]:
            shown = api.get(f"devices/{device['device']}/events/").json()["results"]
            return {event["code"] for event in shown if event["phase"] == phase}

        demo.simulate(device, "battery")
        until(lambda: 501 in codes("raised"))
        demo.simulate(device, "idle")
        until(lambda: 501 in codes("cleared"))
    lacking = demo.agent(device, "simulate", "--fault", "heater")
    assert lacking.returncode == 1
    assert "occlusion, stall, battery, armed, idle" in lacking.stderr


def test_diagnostics_come_home(demo: Demo) -> None:
    """R-MNT-3: pushed, run at the injector, its bundle fetched through the sealed stream."""
    device = demo.device("ct-multi")
    with demo.api() as api:
        made = api.post(
            "jobs/",
            json={"kind": "collect-diagnostics", "hours": 1, "devices": [device["device"]]},
        )
        assert made.status_code == 201, made.text
        (execution,) = made.json()["executions"]

        def state() -> str:
            return str(api.get(f"executions/{execution['execution']}/").json()["state"])

        until(lambda: state() == "succeeded", 20)
        bundle = api.get(f"executions/{execution['execution']}/bundle/")
    assert bundle.status_code == 200
    assert bundle.content.startswith(b"PK")


def test_agents_listen_on_nothing_and_the_rest_on_this_machine_alone(demo: Demo) -> None:
    """R-CON-3: the agent opens no listening network port."""
    seen: Counter[str] = Counter()
    assert demo.process is not None
    for process in [psutil.Process(demo.process.pid), *demo.children()]:
        command = process.cmdline()
        listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert all(c.laddr.ip == "127.0.0.1" for c in listening), command
        if "run" in command:
            assert not listening, command
            seen["agents"] += command.count("--state")
            seen["processes"] += 1
        elif "console" in command:
            assert {c.laddr.port for c in listening} == {
                d["services"][name] for d in demo.devices for name in ("console", "web")
            }
    assert seen == {"agents": 12, "processes": 4}


def test_a_newcomer_is_told_what_to_do(demo: Demo) -> None:
    shown = demo.output
    assert demo.url in shown
    for user in demo.info["users"]:
        assert user["username"] in shown
        assert user["password"] in shown
    for word in ("simulate", "request", "panel", "Ctrl-C"):
        assert word in shown
    assert "Traceback" not in shown


# --- starts and ends: a demo of their own -------------------------------------------------------


@pytest.fixture
def own() -> Iterator[Demo]:
    with tempfile.TemporaryDirectory(prefix="patency-") as folder:
        made = Demo(Path(folder) / "demo")
        try:
            yield made
        finally:
            made.kill()


def test_it_stops_without_a_trace_and_goes_on_where_it_stopped(own: Demo) -> None:
    own.start()
    first = own.info
    assert own.stop(signal.SIGINT) == 0
    own.mqtt = free_port()  # the gate may move
    own.start()
    assert own.info == first
    with own.api() as api:
        assert len(api.get("devices/", params={"online": "true"}).json()["results"]) == 12
    # Killed, it has no time to end its children: they end by themselves.
    children = own.children()
    assert len(children) == 6  # and the access origin
    assert own.process is not None
    own.process.kill()
    _gone, alive = psutil.wait_procs(children, timeout=STOP_S)
    assert not alive


def test_a_second_demo_on_the_same_data_says_so(demo: Demo) -> None:
    """On the same ports as well: that another demo runs is the cause, and the port is not."""
    with tempfile.TemporaryDirectory(prefix="patency-") as folder:
        second = Demo(Path(folder) / "demo", http=demo.http, mqtt=demo.mqtt)
        status = second.begin(PATENCY_DATA=str(demo.data)).wait(60)
        assert status == 1
        assert f"Another demo runs in {demo.data}" in second.output
        assert "Traceback" not in second.output


def test_any_free_port_is_named_everywhere(own: Demo) -> None:
    own.environment |= {"PATENCY_HTTP": "127.0.0.1:0", "PATENCY_MQTT": "127.0.0.1:0"}
    own.start()
    port = int(own.url.rpartition(":")[2])
    assert port > 0
    assert own.url in own.output
    page = httpx.get(f"{own.url}/sign-in/", trust_env=False)
    assert page.status_code == 200
    profile = json.loads((Path(own.info["profile"]) / "profile.json").read_bytes())
    assert profile["url"] == own.url
    assert (own.data / "portal.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("portal.db", "portal.db cannot be used"),
        ("ca/server.key", "server.key is missing or damaged"),
        ("ca/audit.key", "audit.key is missing or damaged"),
        ("trust/trust.pub", "trust.pub"),
        ("trust/trust.key", "trust.key"),
        ("demo.json", "demo.json: it is damaged"),
        ("demo.lock/x", "demo.lock: Is a directory"),
    ],
)
def test_a_damaged_file_is_named(seeded: Path, own: Demo, name: str, said: str) -> None:
    shutil.copytree(seeded, own.data)
    path = own.data / name
    if path.parent.name == "demo.lock":
        path.parent.unlink()
        path.parent.mkdir()
    path.write_bytes(b"garbage" * 600)
    status = own.begin().wait(60)
    assert status == 1, own.output
    assert said in own.output
    assert "Traceback" not in own.output


@pytest.fixture(scope="module")
def seeded(demo: Demo) -> Iterator[Path]:
    """A copy of what the running demo has on disk."""
    with tempfile.TemporaryDirectory(prefix="patency-") as folder:
        copy = Path(folder) / "demo"
        shutil.copytree(demo.data, copy, ignore=shutil.ignore_patterns("*.sock", "logs"))
        yield copy


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PATENCY_DATA": "/etc/passwd"}, "The data directory /etc/passwd cannot be used"),
        ({"PATENCY_DATA": "/proc/x"}, "The data directory /proc/x cannot be used"),
        ({"PATENCY_HTTP": "127.0.0.1:{taken}"}, "PATENCY_HTTP=127.0.0.1:"),
        ({"PATENCY_MQTT": "127.0.0.1:{taken}"}, "PATENCY_MQTT=127.0.0.1:"),
        ({"PATENCY_ACCESS": "127.0.0.1:{taken}"}, "PATENCY_ACCESS=127.0.0.1:"),
        ({"PATENCY_HTTP": "0.0.0.0:{taken}"}, "this machine only"),
        ({"PATENCY_DEMO_PACE": "fast"}, "Give a number"),
    ],
)
def test_what_cannot_be_is_said_with_the_remedy(
    own: Demo, environment: dict[str, str], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = own.begin(**{k: v.format(taken=port) for k, v in environment.items()})
        try:
            status = process.wait(60)
        except subprocess.TimeoutExpired:
            status = None
    assert status == 1, own.output
    assert said in own.output
    assert "Traceback" not in own.output
