"""Front-end files of others, held by exact version, hash and licence: the portal's in
fleet/static/vendor, the browser client's in fleet/client/web/vendor.

`manifest.json` in each is a list of {file, package, version, licence, sha256, source}. `source` is
the path inside the npm package; a licence that a package does not ship has none, and the icon
sprite lists the icons it is made of. Nothing here runs when the portal does: no node at run time.
"""

import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TypedDict

VENDOR = Path(__file__).resolve().parent.parent / "static" / "vendor"
CLIENT_VENDOR = VENDOR.parents[1] / "client" / "web" / "vendor"
ROOTS = (VENDOR, CLIENT_VENDOR)
MANIFEST = VENDOR / "manifest.json"
_NPM_DEADLINE_S = 120


class Entry(TypedDict):
    file: str
    package: str
    version: str
    licence: str
    sha256: str
    source: str | list[str] | None


def entries(manifest: Path = MANIFEST) -> list[Entry]:
    loaded: list[Entry] = json.loads(manifest.read_text("utf-8"))
    return loaded


def check(root: Path = VENDOR) -> list[str]:
    """What is wrong under `root`, one sentence each; empty when every file is as listed."""
    listed = {entry["file"]: entry for entry in entries(root / "manifest.json")}
    problems = []
    for name, entry in listed.items():
        path = root / name
        if not path.is_file():
            problems.append(f"{name}: listed but missing; run `manage.py vendor`")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            problems.append(f"{name}: differs from its listed SHA-256; run `manage.py vendor`")
        if not re.fullmatch(r"\d+\.\d+\.\d+", entry["version"]):
            problems.append(f"{name}: version {entry['version']!r} is not exact")
    for folder in {name.split("/")[0] for name in listed}:
        if not any(name.startswith(f"{folder}/LICENSE") for name in listed):
            problems.append(f"{folder}: holds no licence")
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name not in listed and name != "manifest.json":
            problems.append(f"{name}: not listed in manifest.json; list it or remove it")
    return problems


def refresh(root: Path = VENDOR) -> None:
    """Fetch every listed file again from its npm package, and write the hashes that result."""
    listed = entries(root / "manifest.json")
    with tempfile.TemporaryDirectory() as scratch:
        packages: dict[str, Path] = {}
        for entry in listed:
            pin = f"{entry['package']}@{entry['version']}"
            if entry["source"] is not None:
                if pin not in packages:
                    packages[pin] = _unpack(pin, Path(scratch))
                target = root / entry["file"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_contents(packages[pin], entry["source"]))
            entry["sha256"] = hashlib.sha256((root / entry["file"]).read_bytes()).hexdigest()
    text = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
    (root / "manifest.json").write_text(text, "utf-8")


def _unpack(pin: str, scratch: Path) -> Path:
    packed = subprocess.run(
        ["npm", "pack", "--silent", pin],
        cwd=scratch,
        check=True,
        capture_output=True,
        text=True,
        timeout=_NPM_DEADLINE_S,
    )
    archive = scratch / packed.stdout.strip().splitlines()[-1]
    target = scratch / archive.stem
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / "package"


def _contents(package: Path, source: str | list[str]) -> bytes:
    if isinstance(source, str):
        return (package / source).read_bytes()
    return sprite({Path(name).stem: (package / name).read_text("utf-8") for name in source})


def sprite(icons: dict[str, str]) -> bytes:
    """One SVG holding each icon as a symbol; line style is left to our own style sheet."""
    symbols = []
    for name, svg in sorted(icons.items()):
        body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
        body = re.sub(r"\s*\n\s*", "", body)
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{body}</symbol>')
    head = '<svg xmlns="http://www.w3.org/2000/svg">'
    return "\n".join([head, *symbols, "</svg>", ""]).encode()
