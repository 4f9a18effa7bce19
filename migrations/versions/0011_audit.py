"""audit: the chain of audit messages, which events it has; what is told to people and programs

Revision: 0011, after: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_KEPT = ("number", "at", "event", "outcome", "user", "node", "message", "previous", "digest")
_REFUSED = "audit records are never changed or removed"


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit_record",
        sa.Column("number", _id(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_record")),
    )
    op.create_index("ix_audit_record_at", "audit_record", ["at"])
    where = sa.text("sent_at IS NULL")
    op.create_index("ix_audit_record_unsent", "audit_record", ["number"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "notice",
        sa.Column("id", _id(), nullable=False),
        sa.Column("target", sa.String(32), nullable=False),
        sa.Column("event_id", _id(), nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name=op.f("fk_notice_event_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
        sa.UniqueConstraint("target", "event_id", name=op.f("uq_notice_target")),
    )
    op.create_index("ix_notice_next_at", "notice", ["next_at"])
    # What happened before there was an audit trail is not told as if it happened now.
    op.add_column("event", sa.Column("audited", sa.Boolean(), nullable=False, server_default=sa.true()))
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("event", "audited", server_default=sa.false())
    else:
        with op.batch_alter_table("event", schema=None) as batch_op:
            batch_op.alter_column("audited", server_default=sa.false())
    where = sa.text("NOT audited")
    op.create_index("ix_event_not_audited", "event", ["id"], sqlite_where=where, postgresql_where=where)
    _guard()


def _guard() -> None:
    """The database itself refuses to change or remove an audit record; only the time of its sending may be set."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"""CREATE FUNCTION audit_record_stays() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION '{_REFUSED}'; END$$"""
        )
        columns = ", ".join(f'"{name}"' for name in _KEPT)
        op.execute(
            f"""CREATE TRIGGER audit_record_changed BEFORE UPDATE OF {columns} ON audit_record
            FOR EACH ROW EXECUTE FUNCTION audit_record_stays()"""
        )
        for what in ("DELETE", "TRUNCATE"):
            op.execute(
                f"""CREATE TRIGGER audit_record_{what.lower()} BEFORE {what} ON audit_record
                FOR EACH STATEMENT EXECUTE FUNCTION audit_record_stays()"""
            )
    else:
        columns = ", ".join(f'"{name}"' for name in _KEPT)
        for name, what in (("changed", f"UPDATE OF {columns}"), ("removed", "DELETE")):
            op.execute(
                f"""CREATE TRIGGER audit_record_{name} BEFORE {what} ON audit_record
                BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"""
            )


def downgrade() -> None:
    where = sa.text("NOT audited")
    op.drop_index("ix_event_not_audited", "event", sqlite_where=where, postgresql_where=where)
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.drop_column("audited")
    op.drop_table("notice")
    op.drop_table("audit_record")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_record_stays()")
