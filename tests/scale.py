"""How much of the full numbers of the threat table a run does; assertions never scale.

PATENCY_SCALE=1 is the full count, the default a tenth of it.
"""

import os

SCALE = float(os.environ.get("PATENCY_SCALE", "0.1"))


def scaled(full: int, *, at_least: int = 1) -> int:
    return max(at_least, int(full * SCALE))
