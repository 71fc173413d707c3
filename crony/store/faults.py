"""What a database error means for the caller: passing (try the transaction again), lost, away, or about the data."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_LOCKS = frozenset({1205, 1213})
_CONNECTION = frozenset(
    {1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 2006, 2013, 2014, 2055, 4031}
)
_BUSY_SERVER = frozenset({1040, 1203, 1226, 1290, 1792, 1836, 2002, 2003, 2012, 2026})
_DATA = frozenset({1048, 1153, 1264, 1265, 1267, 1292, 1300, 1366, 1367, 1406, 1690, 3140, 3854})
_ADVICE = {
    1044: "grant the user rights on this database",
    1045: "check user and password in CRONY_DATABASE_URL",
    1049: "create the database first",
    1054: "upgrade the schema: `crony upgrade`",
    1142: "grant the user the missing right",
    1146: "upgrade the schema: `crony upgrade`",
    1021: "the disk of the database is full",
    1114: "the disk of the database is full",
    1290: "the server is read-only: point CRONY_DATABASE_URL at the primary",
    1836: "the server is read-only: point CRONY_DATABASE_URL at the primary",
}


def code(error: BaseException) -> int:
    """The server's error number (MySQL) or SQLite's primary code; 0 when there is none."""
    orig = getattr(error, "orig", None)
    if isinstance(orig, sqlite3.Error):
        return int(getattr(orig, "sqlite_errorcode", 0)) & 0xFF
    args = getattr(orig, "args", ())
    return int(args[0]) if args and isinstance(args[0], int) else 0


def passing(error: SQLAlchemyError) -> bool:
    """Whether trying the whole transaction again can help: deadlock, lock time-out, lost or refused connection."""
    if isinstance(getattr(error, "orig", None), sqlite3.Error):
        return code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return code(error) in _LOCKS | _CONNECTION | _BUSY_SERVER or lost(error)


def lost(error: SQLAlchemyError) -> bool:
    """Whether the connection broke, so that a commit under way may or may not have happened."""
    return isinstance(error, DBAPIError) and (error.connection_invalidated or code(error) in _CONNECTION)


def away(error: SQLAlchemyError) -> bool:
    """Whether no connection was to be had."""
    return isinstance(error, PoolTimeout)


def about_data(error: Exception) -> bool:
    """Whether one of the rows is what the database refuses: splitting the batch will find it."""
    if isinstance(error, DataError | IntegrityError):
        return True
    if isinstance(error, DBAPIError):
        if isinstance(error.orig, sqlite3.Error):
            return code(error) in (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT)
        return code(error) in _DATA
    if isinstance(error, StatementError):
        return isinstance(error.orig, ValueError | TypeError | OverflowError)
    return isinstance(error, ValueError | TypeError | OverflowError | RecursionError)


def sentence(error: Exception) -> str:
    """The error in one line, without the statement and its parameters (they may hold what people typed)."""
    orig = getattr(error, "orig", None) or error
    args: tuple[object, ...] = getattr(orig, "args", ())
    words = args[1] if len(args) > 1 and isinstance(args[0], int) else (args[0] if args else orig)
    number = code(error)
    return f"{words} ({number})" if number else str(words)


def advice(error: Exception) -> str:
    """What a person can try."""
    return _ADVICE.get(code(error), "Crony tries again by itself; check that the database runs and is reachable")
