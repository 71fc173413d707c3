"""The tables. Ids and names compare byte by byte (case and accents differ); instants are milliseconds, floats here.

The migrations are the truth of an installed database; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Index, Integer, MetaData, String, UniqueConstraint, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from crony.domain.alert import ID_LIMIT
from crony.store.types import Instant, Json, Words, long_bytes, long_text

ID = 40
"""Most characters of ids we make ourselves (job, user, token)."""
RUN = 128
"""Most characters of a run id."""
ALERT = ID_LIMIT
"""Most characters of an alert id."""
NAME = 255
"""Most characters of a name of a job, node or user."""
DIGEST = 64
"""Characters of a SHA-256 in hex."""
SENTENCE = 1000
"""Most characters of a reason or an explanation; longer ones are cut."""

MYSQL = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}


def serial() -> Any:
    """A number that the database counts up."""
    return BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Root of the models."""

    metadata = MetaData()
    type_annotation_map = {float: Instant(), str: String(NAME), int: BigInteger(), bool: Boolean()}  # noqa: RUF012


class JobRow(Base):
    """A job as last saved. `live_name` is the name while the job is not deleted: that is what must be unique."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    name: Mapped[str]
    live_name: Mapped[str | None]
    generation: Mapped[int]
    revision: Mapped[int]
    enabled: Mapped[bool]
    document: Mapped[Any] = mapped_column(Json)
    search: Mapped[str | None] = mapped_column(long_text())
    """What a search looks at (see `store.search`), set with each save; None: saved by a version before it."""
    created_at: Mapped[float]
    updated_at: Mapped[float]
    updated_by: Mapped[str]
    deleted_at: Mapped[float | None]
    __table_args__ = (
        UniqueConstraint("live_name", name="uq_jobs_live_name"),
        Index("ix_jobs_name", "name", "generation"),
        Index("ix_jobs_deleted", "deleted_at"),
        MYSQL,
    )


class JobVersionRow(Base):
    """One save of a job. `save` names the request that made it, so that a repeated save finds itself."""

    __tablename__ = "job_versions"
    job_id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    save: Mapped[str] = mapped_column(String(ID))
    action: Mapped[str] = mapped_column(String(20))
    name: Mapped[str]
    document: Mapped[Any] = mapped_column(Json)
    actor: Mapped[str]
    at: Mapped[float]
    __table_args__ = (MYSQL,)


class ObjectRow(Base):
    """What jobs name (a calendar, a pool, …) as last saved; `kind` says what it is."""

    __tablename__ = "objects"
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(ID * 2), primary_key=True)
    revision: Mapped[int]
    document: Mapped[Any] = mapped_column(Json)
    updated_at: Mapped[float]
    updated_by: Mapped[str]
    __table_args__ = (MYSQL,)


class ObjectVersionRow(Base):
    """One save or the deletion of an object; revisions go on rising when a deleted name is used again."""

    __tablename__ = "object_versions"
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(ID * 2), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    save: Mapped[str] = mapped_column(String(ID))
    action: Mapped[str] = mapped_column(String(20))
    document: Mapped[Any] = mapped_column(Json)
    actor: Mapped[str]
    at: Mapped[float]
    __table_args__ = (MYSQL,)


class JobObjectRow(Base):
    """That a job, as last saved, names an object."""

    __tablename__ = "job_objects"
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(ID * 2), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    __table_args__ = (Index("ix_job_objects_job", "job_id"), MYSQL)


class JobParentRow(Base):
    """That a job, as last saved, runs after another."""

    __tablename__ = "job_parents"
    parent_id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    __table_args__ = (Index("ix_job_parents_job", "job_id"), MYSQL)


class ChainLockRow(Base):
    """One row, which every save locks that changes who runs after whom: two at once could close a circle."""

    __tablename__ = "chain_lock"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    __table_args__ = (MYSQL,)


class RunRow(Base):
    """A run as far as the archive knows it. Once `state` is ended nothing in the row changes."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(String(RUN), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(ID))
    job_name: Mapped[str] = mapped_column(Words(NAME))
    generation: Mapped[int]
    revision: Mapped[int]
    trigger: Mapped[str] = mapped_column("trigger_kind", String(20))
    state: Mapped[str] = mapped_column(String(20))
    outcome: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Words(SENTENCE))
    attempt: Mapped[int]
    code: Mapped[int | None]
    node: Mapped[str] = mapped_column(Words(NAME))
    fire_at: Mapped[float | None]
    requested_at: Mapped[float | None]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    sort_at: Mapped[float]
    result: Mapped[Any] = mapped_column(Json, nullable=True)
    params: Mapped[Any] = mapped_column(Json, nullable=True)
    why: Mapped[str] = mapped_column(Words(SENTENCE))
    idem: Mapped[str] = mapped_column(Words(NAME))
    parent_id: Mapped[str | None] = mapped_column(String(RUN))
    """The run that it is a part of."""
    part: Mapped[int | None] = mapped_column(Integer)
    """Which part, from 0."""
    parts: Mapped[int | None] = mapped_column(Integer)
    """How many parts its run has; None: it is not split."""
    chain_id: Mapped[str | None] = mapped_column(String(RUN))
    """The run that its chain began with; None: it began one itself."""
    cause_id: Mapped[str | None] = mapped_column(String(RUN))
    """The run whose end it follows."""
    no_chain: Mapped[bool | None]
    """Nothing was to follow it. None: not known."""
    __table_args__ = (
        Index("ix_runs_parent", "parent_id", "part"),
        Index("ix_runs_chain", "chain_id"),
        Index("ix_runs_sort", "sort_at", "id"),
        Index("ix_runs_job", "job_id", "sort_at", "id"),
        Index("ix_runs_outcome", "outcome", "sort_at", "id"),
        Index("ix_runs_node", "node", "sort_at", "id"),
        MYSQL,
    )


class AttemptRow(Base):
    """How one attempt ended; the first outcome wins."""

    __tablename__ = "attempts"
    run_id: Mapped[str] = mapped_column(String(RUN), primary_key=True)
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    outcome: Mapped[str] = mapped_column(String(20))
    final: Mapped[bool]
    reason: Mapped[str] = mapped_column(Words(SENTENCE))
    detail: Mapped[str] = mapped_column(Words(SENTENCE))
    code: Mapped[int | None]
    node: Mapped[str] = mapped_column(Words(NAME))
    incarnation: Mapped[str] = mapped_column(Words(ID))
    fence: Mapped[int]
    started_at: Mapped[float | None]
    ended_at: Mapped[float]
    result: Mapped[Any] = mapped_column(Json, nullable=True)
    why: Mapped[str] = mapped_column(Words(SENTENCE))
    secret: Mapped[str] = mapped_column(Words(DIGEST), server_default="")
    """Of an asynchronous attempt: hash of its callee's secret."""
    report: Mapped[str] = mapped_column(Words(DIGEST), server_default="")
    """Hash of the report that ended it, where one did."""
    __table_args__ = (MYSQL,)


class SkipRow(Base):
    """A due fire, or a range of them, that became no run. `run_id` bears the first skipped instant."""

    __tablename__ = "skips"
    run_id: Mapped[str] = mapped_column(String(RUN), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(ID))
    job_name: Mapped[str] = mapped_column(Words(NAME))
    generation: Mapped[int]
    revision: Mapped[int]
    trigger: Mapped[str] = mapped_column("trigger_kind", String(20))
    reason: Mapped[str] = mapped_column(Words(40))
    detail: Mapped[str] = mapped_column(Words(SENTENCE))
    fire_at: Mapped[float | None]
    to_at: Mapped[float | None]
    count: Mapped[int] = mapped_column("fires", BigInteger)
    decided_at: Mapped[float]
    chain_id: Mapped[str | None] = mapped_column(String(RUN))
    """As of a run: its chain, and the run whose end let it not run."""
    cause_id: Mapped[str | None] = mapped_column(String(RUN))
    __table_args__ = (
        Index("ix_skips_chain", "chain_id"),
        Index("ix_skips_sort", "decided_at", "run_id"),
        Index("ix_skips_job", "job_id", "decided_at", "run_id"),
        MYSQL,
    )


class RejectRow(Base):
    """An outcome that the database refused, kept as text for a person. `id` is the SHA-256 of the record."""

    __tablename__ = "archive_rejects"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    run_id: Mapped[str] = mapped_column(Words(RUN))
    error: Mapped[str] = mapped_column(Words(SENTENCE))
    record: Mapped[str] = mapped_column(long_text())
    at: Mapped[float]
    __table_args__ = (MYSQL,)


class OutputRow(Base):
    """The output of one attempt: how much is stored without a gap, and whether more will come."""

    __tablename__ = "outputs"
    run_id: Mapped[str] = mapped_column(String(RUN), primary_key=True)
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    size: Mapped[int]
    told: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Bytes of it that the callee of an asynchronous run sent; the rest is what the node brought."""
    final: Mapped[bool]
    """The node brings no more."""
    truncated: Mapped[bool]
    removed: Mapped[bool] = mapped_column(server_default=false())
    """Its chunks were deleted, because its job wants them no longer."""
    updated_at: Mapped[float]
    __table_args__ = (Index("ix_outputs_updated", "updated_at"), MYSQL)


class OutputChunkRow(Base):
    """A piece of output, zlib-compressed. `length` counts bytes before compression."""

    __tablename__ = "output_chunks"
    run_id: Mapped[str] = mapped_column(String(RUN), primary_key=True)
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column("start", BigInteger, primary_key=True, autoincrement=False)
    length: Mapped[int] = mapped_column(Integer)
    data: Mapped[bytes] = mapped_column(long_bytes())
    stamps: Mapped[bytes | None] = mapped_column(long_bytes())
    """Streams and times of it (`domain.stamps`), zlib-compressed; None: nobody knows them."""
    __table_args__ = (MYSQL,)


class MarkRow(Base):
    """How far etcd was seen, for each namespace: a restored etcd is noticed on a machine that never saw it, too."""

    __tablename__ = "etcd_marks"
    namespace: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    epoch: Mapped[int]
    nonce: Mapped[str] = mapped_column(String(40))
    mod: Mapped[int] = mapped_column("mark_revision", BigInteger)
    revision: Mapped[int]
    cluster: Mapped[str] = mapped_column(String(40))
    at: Mapped[float]
    __table_args__ = (MYSQL,)


class NodeRow(Base):
    """A node as last seen, for pages about nodes that are gone."""

    __tablename__ = "nodes"
    name: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    incarnation: Mapped[str] = mapped_column(Words(ID))
    hostname: Mapped[str] = mapped_column(Words(NAME))
    version: Mapped[str] = mapped_column(Words(40))
    capacity: Mapped[int]
    labels: Mapped[Any] = mapped_column(Json)
    kinds: Mapped[Any] = mapped_column(Json)
    started_at: Mapped[float]
    seen_at: Mapped[float]
    __table_args__ = (MYSQL,)


class AlertRow(Base):
    """Something a person must know. `id` follows from what happened: delivered twice, it is one row."""

    __tablename__ = "alerts"
    id: Mapped[str] = mapped_column(String(ALERT), primary_key=True)
    kind: Mapped[str] = mapped_column(Words(20))
    at: Mapped[float]
    job_id: Mapped[str] = mapped_column(Words(ID))
    job_name: Mapped[str] = mapped_column(Words(NAME))
    run_id: Mapped[str] = mapped_column(Words(RUN))
    attempt: Mapped[int]
    outcome: Mapped[str] = mapped_column(Words(20))
    node: Mapped[str] = mapped_column(Words(NAME))
    reason: Mapped[str] = mapped_column(Words(SENTENCE))
    times: Mapped[int]
    told: Mapped[Any] = mapped_column(Json, nullable=True)
    """To whom it was sent, or why not; None: that is not over, or it went to nobody."""
    __table_args__ = (
        Index("ix_alerts_sort", "at", "id"),
        Index("ix_alerts_kind", "kind", "at", "id"),
        Index("ix_alerts_job", "job_id", "at", "id"),
        Index("ix_alerts_node", "node", "at", "id"),
        MYSQL,
    )
