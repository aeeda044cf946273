"""`python -m tests.bench [module …]` prints every figure, or those of the modules named."""

import importlib
import pkgutil
import sys

import tests.bench


def main(wanted: list[str]) -> None:
    for module in pkgutil.iter_modules(tests.bench.__path__):
        if module.name.startswith("_") or (wanted and module.name not in wanted):
            continue
        run = getattr(importlib.import_module(f"tests.bench.{module.name}"), "run", None)
        if run is None:
            continue
        print(f"\n{module.name}")
        for row in run():
            print(f"  {row}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
