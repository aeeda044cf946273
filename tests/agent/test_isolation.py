"""The agent stands alone (issue, done when 8): neither Django nor amqtt, nothing of the others."""

import subprocess
import sys

CHECK = """
import importlib, importlib.abc, pkgutil, sys

FORBIDDEN = ("django", "amqtt", "rest_framework", "channels", "uvicorn", "broker", "fleet", "tests")

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is not for the agent")

sys.meta_path.insert(0, Blocker())
import agent

names = [found.name for found in pkgutil.walk_packages(agent.__path__, "agent.")]
for name in names:
    importlib.import_module(name)
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & set(FORBIDDEN), loaded & set(FORBIDDEN)
print(len(names))
"""


def test_every_module_of_the_agent_imports_without_the_portal() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
