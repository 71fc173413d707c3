"""Alembic's entry: runs on the connection that `crony.store.upgrade` hands in."""

from alembic import context

from crony.store import account_models  # noqa: F401  (its tables, too)
from crony.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
