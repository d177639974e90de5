"""``python -m retrain.child PID COMMAND…`` becomes COMMAND, in a process that the kernel kills when its parent PID ends.

So no job outlives the trainer that would look after it, however the trainer ended, and no rank its launcher. A thread
that waits for the parent's end would not do: TensorFlow, waiting for a rank that never comes, lets no other thread run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h; it outlives exec


def bound(command: Sequence[str]) -> tuple[str, ...]:
    """``command`` as it is to be started by this process so that it ends with it.

    To the kernel the parent is the thread that starts it: that one has to live as long as the child is to.
    """
    return (sys.executable, "-m", "retrain.child", str(os.getpid()), *command)


def main(parent: int, command: Sequence[str]) -> None:
    """Become ``command``, bound to ``parent``, who is to be this process's parent still."""
    if sys.platform == "linux":  # elsewhere it goes on alone, and its generation keeps it from publishing
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        sys.exit(f"retrain.child: the process {parent} that started this has ended")
    os.execvp(command[0], list(command))  # noqa: S606  # a shell would come between


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
