"""`python -m benchmarks`: all of them, one after the other."""

from __future__ import annotations

from benchmarks import burst, lateness

lateness.main()
burst.main()
