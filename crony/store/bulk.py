"""Many rows in one statement, with a rule for those that are there already.

Written as SQL text: SQLAlchemy compiles a multi-row insert anew each time, which costs more than
the database does. Values still pass through the column types, so text is clean and instants are
milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session

Rows = Sequence[Mapping[str, Any]]


def first_wins(session: Session, model: Any, rows: Rows) -> None:
    """Insert the rows whose primary key is new; others stay as they are. Rows have every column of the table."""
    table: Table = model.__table__
    key = next(iter(table.primary_key.columns)).name
    put(session, model, rows, {key: f"{table.name}.{key}"})


def put(session: Session, model: Any, rows: Rows, changes: Mapping[str, str]) -> None:
    """Insert rows; where the primary key is there, set each column in `changes` (in order) to its SQL expression.

    In an expression `{column}` stands for the new value and `table.column` for the stored one. On
    MySQL later expressions see what earlier ones have set.
    """
    if not rows:
        return
    table: Table = model.__table__
    connection = session.connection()
    dialect = connection.dialect
    columns = tuple(column.name for column in table.columns)
    process = _processors(table, dialect)
    values = [tuple([convert(row[name]) for name, convert in zip(columns, process, strict=True)]) for row in rows]
    names = ", ".join(dialect.identifier_preparer.quote(name) for name in columns)
    insert = f"INSERT INTO {table.name} ({names}) VALUES "
    if dialect.name == "sqlite":
        keys = ", ".join(column.name for column in table.primary_key.columns)
        update = _assign(changes, columns, lambda name: f"excluded.{name}")
        one = "(" + ", ".join("?" * len(columns)) + ")"
        connection.exec_driver_sql(f"{insert}{one} ON CONFLICT ({keys}) DO UPDATE SET {update}", values)
        return
    maria = bool(getattr(dialect, "is_mariadb", False))
    update = _assign(changes, columns, (lambda name: f"VALUES({name})") if maria else (lambda name: f"new.{name}"))
    one = "(" + ", ".join(["%s"] * len(columns)) + ")"
    text = f"{insert}{', '.join([one] * len(rows))}{'' if maria else ' AS new'} ON DUPLICATE KEY UPDATE {update}"
    connection.exec_driver_sql(text, tuple([value for row in values for value in row]))


def _assign(changes: Mapping[str, str], columns: Sequence[str], new: Callable[[str], str]) -> str:
    fresh = {name: new(name) for name in columns}
    return ", ".join(f"{name} = {expression.format_map(fresh)}" for name, expression in changes.items())


@lru_cache(maxsize=64)
def _processors(table: Table, dialect: Dialect) -> tuple[Callable[[Any], Any], ...]:
    """One converter for each column: what the type would do to a bound value."""
    return tuple(column.type.dialect_impl(dialect).bind_processor(dialect) or _same for column in table.columns)


def _same(value: Any) -> Any:
    return value
