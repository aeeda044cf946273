"""Runs a program that ends when its parent does, however the parent ended: `child.py PPID CMD…`.

The parent may be killed and have no time to end its children. Linux tells a process of its
parent's death when asked to (prctl(2), PR_SET_PDEATHSIG), and the request outlives execve.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        return
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
