"""The demo as a newcomer starts it: twelve injectors on line, stopped cleanly, going on later."""

import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.demo import Demo

pytestmark = pytest.mark.timeout(400)
LINES = {"ct-multi", "ct-dual", "mr-dual"}
KEYS = {
    "serial", "device", "product_line", "organisation", "site", "online", "state",
    "software_version", "last_seen_at",
}  # fmt: skip


def test_twelve_injectors_of_three_product_lines(demo: Demo) -> None:
    """R-CON-1, R-CON-2: enrolled by themselves, on line."""
    listed = demo.cli_json("devices")
    assert len(listed) == 12
    assert all(row["online"] for row in listed)
    assert {row["product_line"] for row in listed} == LINES
    assert set(listed[0]) >= KEYS
    assert len({row["organisation"] for row in listed}) == 2


def test_what_demo_json_promises(demo: Demo) -> None:
    info = demo.info
    assert {user["role"] for user in info["users"]} == {"administrator", "specialist", "hospital"}
    assert sum(user["role"] == "specialist" for user in info["users"]) == 2
    assert len({u["organisation"] for u in info["users"] if u["role"] == "hospital"}) == 2
    for device in info["devices"]:
        assert Path(device["state_dir"]).is_dir()
        assert device["services"]["ssh"] > 0
    for path in ("/-/live", "/-/ready", "/metrics", "/api/v1/schema/"):
        answer = httpx.get(f"http://127.0.0.1:{demo.http_port}{path}", trust_env=False)
        assert answer.status_code == 200, path


def test_no_agent_listens(demo: Demo) -> None:
    """R-CON-3: the agents' processes have no listening network socket."""
    assert demo.process is not None
    agents = [
        child
        for child in psutil.Process(demo.process.pid).children(recursive=True)
        if "run" in child.cmdline() and any("patency-agent" in part for part in child.cmdline())
    ]
    assert len(agents) >= 4
    for agent in agents:
        listening = [c for c in agent.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening == []


def test_a_session_at_service_level_and_its_end(demo: Demo) -> None:
    """R-ACC-3, R-ACC-4, R-ACC-10: a status page through the tunnel, audited on both sides."""
    device = demo.device("ct-multi", 1)
    session = demo.open_session(device["serial"], level="service", service="web")
    with demo.forward(device["serial"], "web") as port:
        page = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
        assert page.status_code == 200
        assert device["serial"] in page.text
    demo.cli("end", session)
    assert demo.wait_state(session, "ended")
    entries = demo.cli_json("audit", "--session", session)
    assert {entry["side"] for entry in entries} == {"device", "server"}


def test_armed_refuses(demo: Demo) -> None:
    """R-ACC-7: nobody gets in while a patient may be connected."""
    device = demo.device("mr-dual", 1)
    demo.agent(device["state_dir"], "simulate", "--fault", "armed")
    try:
        done = demo.cli(
            "request", device["serial"], "--level", "service", "--service", "web",
            "--reason", "repair", "--for", "30m", "--wait", "-o", "json", check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert '"refused"' in done.stdout
    finally:
        demo.agent(device["state_dir"], "simulate", "--fault", "idle")


def test_stops_cleanly_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C leaves no process within 5 s; a second start finds the same devices (R-CON-8)."""
    demo = Demo(tmp_path / "data")
    demo.start()
    assert demo.process is not None
    before = {d["serial"]: d["device"] for d in demo.info["devices"]}
    children = psutil.Process(demo.process.pid).children(recursive=True)
    demo.stop(signal.SIGINT, within_s=5)
    gone, alive = psutil.wait_procs(children, timeout=1)
    assert alive == []
    demo.start()
    try:
        assert {d["serial"]: d["device"] for d in demo.info["devices"]} == before
        children = psutil.Process(demo.process.pid).children(recursive=True)
        demo.stop(signal.SIGKILL, within_s=5)
        gone, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
    finally:
        if demo.process is not None:
            demo.stop()
