"""The access origin: its files are the published ones, and travel under strict rules (R-ACC-4)."""

import base64
import hashlib
import http.client
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from fleet.client import origin
from fleet.client.errors import ClientError, Exit
from tests.client.conftest import Command
from tests.client.web_texts import FRENCH, texts

PORTAL = "https://portal.example"


@pytest.fixture
def root(command: Command) -> Path:
    return command.folder / "device-root.pem"


@pytest.fixture
def served(root: Path) -> Iterator[http.client.HTTPConnection]:
    server = origin.server(("127.0.0.1", 0), origin.Site(PORTAL, root))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def get(served: http.client.HTTPConnection, path: str, method: str = "GET") -> tuple[int, bytes]:
    served.request(method, path)
    answer = served.getresponse()
    body = answer.read()
    served.close()
    return answer.status, body


# --- hashes -------------------------------------------------------------------------------------


def test_the_list_of_hashes_is_that_of_the_files() -> None:
    """After a change: `patency access-origin hashes -o json`, into fleet/client/web/hashes.json."""
    assert origin.published() == origin.hashes()


def test_hashes_are_printed_as_sums_and_as_browsers_write_them(command: Command) -> None:
    lines = command("access-origin", "hashes").stdout.decode().splitlines()
    assert len(lines) == len(origin.names())
    for line in lines:
        digest, integrity, name = line.split("  ")
        data = (origin.WEB / name).read_bytes()
        assert digest == hashlib.sha256(data).hexdigest()
        assert integrity == "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert command.json("access-origin", "hashes") == origin.published()


def test_an_altered_client_is_not_served(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(origin.WEB, tmp_path / "web"))
    with (copy / "js" / "seal.js").open("a") as file:
        file.write("// and your keys to us\n")
    (copy / "js" / "extra.js").write_text("alert(1)")
    (copy / "js" / "mux.js").unlink()
    with pytest.raises(ClientError, match=r"js/extra\.js, js/mux\.js, js/seal\.js"):
        origin.check(copy)


# --- what is served -----------------------------------------------------------------------------


def test_every_file_and_nothing_else(served: http.client.HTTPConnection, root: Path) -> None:
    for name in origin.names():
        assert get(served, f"/{name}") == (200, (origin.WEB / name).read_bytes())
    assert get(served, "/")[1] == get(served, "/index.html")[1]
    assert get(served, "/register")[1] == get(served, "/register/")[1]
    assert json.loads(get(served, "/hashes.json")[1]) == origin.hashes()
    assert get(served, "/", "HEAD") == (200, b"")
    for path in ("/js/package.json", "/vendor/manifest.json", "/js", "/nothing", "/../origin.py",
                 "/%2e%2e/origin.py", "//etc/passwd", "/" + "a" * 5000):  # fmt: skip
        assert get(served, path)[0] == 404
    assert get(served, "/", "POST")[0] == 501


def test_the_configuration_holds_the_portal_and_the_root(
    served: http.client.HTTPConnection, root: Path
) -> None:
    made = json.loads(get(served, "/config.json")[1])
    [der] = made.pop("device_roots")
    assert made == {"portal": PORTAL}
    anchored = x509.load_pem_x509_certificate(root.read_bytes())
    assert x509.load_der_x509_certificate(base64.b64decode(der)) == anchored


def test_nothing_inline_and_nobody_else(served: http.client.HTTPConnection) -> None:
    """The policy lets code and styles come from the origin's own files alone, and calls go to the
    portal alone."""
    served.request("GET", "/")
    headers = served.getresponse().headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self' https://portal.example wss://portal.example"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_no_page_has_anything_inline_or_foreign() -> None:
    for name in origin.names():
        text = (origin.WEB / name).read_text("utf-8")
        if name.endswith(".html"):
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text), name
            assert not re.search(r'(?:src|href)="(?!/|#)', text), name
        if name.startswith("js/"):
            assert "innerHTML" not in text, name
            assert not re.search(r'(?:from|import\()\s*"(?!\.{1,2}/)', text), name


# --- a static host ------------------------------------------------------------------------------


def test_export_writes_all_that_a_static_host_serves(
    command: Command, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "www"
    made = ("access-origin", "export", folder, "--portal", PORTAL, "--device-root", root)
    shown = command(*made).stdout.decode()
    assert shown.startswith("Content-Security-Policy: default-src 'none'")
    assert origin.hashes(folder) == origin.published()
    assert json.loads((folder / "config.json").read_bytes())["portal"] == PORTAL
    again = command(*made, expect=int(Exit.USAGE))
    assert b"is not empty" in again.stderr


@pytest.mark.parametrize(
    ("portal", "said"),
    [("http://portal.example", b"not encrypted"), ("portal.example", b"no address of a portal")],
)
def test_a_portal_that_cannot_be_used_is_told(
    command: Command, root: Path, tmp_path: Path, portal: str, said: bytes
) -> None:
    done = command(
        "access-origin", "export", tmp_path / "w", "--portal", portal, "--device-root", root,
        expect=int(Exit.USAGE),
    )  # fmt: skip
    assert said in done.stderr


def test_a_root_that_cannot_be_read_is_told(command: Command, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text("no certificate")
    done = command(
        "access-origin", "export", tmp_path / "w", "--portal", PORTAL, "--device-root",
        tmp_path / "root.pem", expect=int(Exit.USAGE),
    )  # fmt: skip
    assert b"not from the portal" in done.stderr


def test_the_command_serves_until_it_is_told_to_stop(command: Command, root: Path) -> None:
    with command.started(
        "access-origin", "serve", "--listen", "127.0.0.1:0", "--portal", PORTAL, "--device-root",
        root,
    ) as process:  # fmt: skip
        line = process.stderr.readline().decode()
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/", line)[0])
        served = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        assert get(served, "/register")[0] == 200
        process.terminate()
        assert process.wait(5) == 0


def test_an_address_that_is_taken_is_told(command: Command, root: Path) -> None:
    server = origin.server(("127.0.0.1", 0), origin.Site(PORTAL, root))
    with server:
        done = command(
            "access-origin", "serve", "--listen", f"127.0.0.1:{server.server_address[1]}",
            "--portal", PORTAL, "--device-root", root, expect=int(Exit.FAILED),
        )  # fmt: skip
    assert b"--listen" in done.stderr
    done = command(
        "access-origin", "serve", "--listen", "nowhere", "--portal", PORTAL, "--device-root", root,
        expect=int(Exit.USAGE),
    )  # fmt: skip
    assert b"127.0.0.1:8001" in done.stderr


# --- its words ----------------------------------------------------------------------------------


def test_every_text_is_in_french_and_none_is_left_over() -> None:
    """R-ASR-4."""
    french = json.loads(FRENCH.read_text("utf-8"))
    assert set(french) == texts()
    for english, said in french.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", said))
        assert said.strip()
        assert not re.search(r"[^\u00a0][:;?!»](?=\s|$)", said), said  # a no-break space before it
