"""The texts of the browser client, as its sources have them: every `_("…")` of its JavaScript."""

import json
import re
from pathlib import Path

WEB = Path(__file__).resolve().parents[2] / "fleet" / "client" / "web"
FRENCH = WEB / "locale" / "fr-CA.json"
_CALL = re.compile(r'(?<![\w.])_\(\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
_ANY = re.compile(r"(?<![\w.])_\(")


def texts() -> set[str]:
    """Raises ValueError for a text that is no plain string: it could not be translated."""
    found: set[str] = set()
    for path in sorted((WEB / "js").glob("*.js")):
        source = path.read_text("utf-8")
        calls = _CALL.findall(source)
        expected = len(_ANY.findall(source)) - source.count("export function _(")
        if len(calls) != expected:
            raise ValueError(f"{path.name}: a text to translate is a plain string")
        found.update(json.loads(call) for call in calls)
    return found
