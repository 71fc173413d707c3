"""Start a command that dies with its parent, also when the parent is killed: `python leash.py PARENT COMMAND…`.

Run as a file with `-I -S`, so that it costs milliseconds; it becomes the command (exec), no process stays between.
Linux keeps the promise (PR_SET_PDEATHSIG); elsewhere the next `crony dev` ends what was left over.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, AttributeError):
        pass
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
    os.execvp(sys.argv[2], sys.argv[2:])
