"""The database: archive of runs and output, catalogue of jobs, users, audit (SQLite, MySQL or MariaDB).

Nothing that dispatches or executes reads it. `Database` is the way in; every write is a function
given to `Database.transaction`, which may run it again.
"""

from crony.store.db import Database

__all__ = ["Database"]
