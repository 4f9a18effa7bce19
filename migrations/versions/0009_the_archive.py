"""the archive: pools, schedules, holds, checks, recalls, watched places; what discs are for and where they are

Revision: 0009, after: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_COUNTS = "state = 'VERIFIED' AND (checked_result IS NULL OR checked_result <> 'DAMAGED')"


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "hold",
        sa.Column("id", _id(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("hold", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hold_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "pool",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("required_copies", sa.Integer(), nullable=False),
        sa.Column("min_fill", sa.Double(), nullable=False),
        sa.Column("latest_days", sa.Integer(), nullable=True),
        sa.Column("keep_days", sa.Integer(), nullable=False),
        sa.Column("shelves", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pool")),
    )
    op.create_table(
        "recall",
        sa.Column("id", _id(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("selection", sa.JSON(), nullable=False),
        sa.Column("destination", sa.String(length=32), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("node", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recall")),
        sa.UniqueConstraint("key", name=op.f("uq_recall_key")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("recall", schema=None) as batch_op:
        batch_op.create_index("ix_recall_state", ["state"], unique=False)

    op.create_table(
        "watch_seen",
        sa.Column("id", _id(), nullable=False),
        sa.Column("watch", sa.String(length=32), nullable=False),
        sa.Column("identity", sa.String(length=255), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watch_seen")),
        sa.UniqueConstraint("watch", "identity", name=op.f("uq_watch_seen_watch")),
    )
    op.create_table(
        "schedule",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("trigger", sa.JSON(), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("blackouts", sa.JSON(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("pool", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_fire", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["pool"], ["pool.name"], name=op.f("fk_schedule_pool")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedule")),
    )
    op.create_table(
        "schedule_run",
        sa.Column("id", _id(), nullable=False),
        sa.Column("schedule", sa.String(length=32), nullable=False),
        sa.Column("fire_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["schedule"], ["schedule.name"], name=op.f("fk_schedule_run_schedule"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_run")),
        sa.UniqueConstraint("schedule", "fire_at", name=op.f("uq_schedule_run_schedule")),
    )
    op.create_table(
        "disc_check",
        sa.Column("id", _id(), nullable=False),
        sa.Column("disc_id", _id(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("how", sa.String(length=255), nullable=False),
        sa.Column("sectors", sa.BigInteger(), nullable=True),
        sa.Column("unreadable", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["disc_id"], ["disc.id"], name=op.f("fk_disc_check_disc_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disc_check")),
    )
    with op.batch_alter_table("disc_check", schema=None) as batch_op:
        batch_op.create_index("ix_disc_check_disc", ["disc_id", "at"], unique=False)

    op.create_table(
        "pool_instance",
        sa.Column("pool", sa.String(length=32), nullable=False),
        sa.Column("instance_id", _id(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("schedule", sa.String(length=32), nullable=True),
        sa.Column("request_id", _id(), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instance.id"], name=op.f("fk_pool_instance_instance_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["pool"], ["pool.name"], name=op.f("fk_pool_instance_pool"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_pool_instance_request_id")),
        sa.PrimaryKeyConstraint("pool", "instance_id", name=op.f("pk_pool_instance")),
    )
    with op.batch_alter_table("pool_instance", schema=None) as batch_op:
        batch_op.create_index("ix_pool_instance_instance", ["instance_id"], unique=False)
        batch_op.create_index("ix_pool_instance_request", ["request_id"], unique=False)

    op.create_table(
        "recall_instance",
        sa.Column("recall_id", _id(), nullable=False),
        sa.Column("instance_id", _id(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("volume_id", _id(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instance.id"], name=op.f("fk_recall_instance_instance_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["recall_id"], ["recall.id"], name=op.f("fk_recall_instance_recall_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["volume_id"], ["volume.id"], name=op.f("fk_recall_instance_volume_id")),
        sa.PrimaryKeyConstraint("recall_id", "instance_id", name=op.f("pk_recall_instance")),
    )
    with op.batch_alter_table("recall_instance", schema=None) as batch_op:
        batch_op.create_index("ix_recall_instance_instance", ["instance_id", "state"], unique=False)

    op.create_table(
        "recall_volume",
        sa.Column("recall_id", _id(), nullable=False),
        sa.Column("volume_id", _id(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("disc_id", _id(), nullable=True),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["disc_id"], ["disc.id"], name=op.f("fk_recall_volume_disc_id")),
        sa.ForeignKeyConstraint(
            ["recall_id"], ["recall.id"], name=op.f("fk_recall_volume_recall_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["volume_id"], ["volume.id"], name=op.f("fk_recall_volume_volume_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("recall_id", "volume_id", name=op.f("pk_recall_volume")),
    )
    with op.batch_alter_table("recall_volume", schema=None) as batch_op:
        batch_op.create_index("ix_recall_volume_volume", ["volume_id", "state"], unique=False)

    with op.batch_alter_table("derived", schema=None) as batch_op:
        batch_op.add_column(sa.Column("restored_at", sa.DateTime(timezone=True), nullable=True))

    with op.batch_alter_table("disc", schema=None) as batch_op:
        batch_op.add_column(sa.Column("purpose", sa.String(length=8), nullable=False, server_default="archive"))
        batch_op.add_column(sa.Column("pool", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("shelf", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("checked_out_to", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("checked_out_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("marked", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("marked_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("marked_reason", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("times_read", sa.Integer(), nullable=False, server_default="0"))
        batch_op.create_index(batch_op.f("ix_disc_pool"), ["pool"], unique=False)

    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index(
            "ix_instance_in_spool",
            ["id"],
            unique=False,
            sqlite_where=sa.text("spool_path IS NOT NULL"),
            postgresql_where=sa.text("spool_path IS NOT NULL"),
        )

    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pool", sa.String(length=32), nullable=True))
        batch_op.create_index(batch_op.f("ix_request_pool"), ["pool"], unique=False)

    with op.batch_alter_table("volume", schema=None) as batch_op:
        batch_op.add_column(sa.Column("set_catalogue", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("site", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("origin", sa.String(length=8), nullable=False, server_default="own"))
        batch_op.add_column(sa.Column("good_copies", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("wanted_copies", sa.Integer(), nullable=False, server_default="0"))
        batch_op.create_index(
            "ix_volume_short",
            ["id"],
            unique=False,
            sqlite_where=sa.text("good_copies < wanted_copies"),
            postgresql_where=sa.text("good_copies < wanted_copies"),
        )

    # Every disc until now was made to be found again.
    good = f"(SELECT count(*) FROM disc WHERE disc.volume_id = volume.id AND {_COUNTS})"
    wanted = "EXISTS (SELECT 1 FROM disc WHERE disc.volume_id = volume.id AND disc.state = 'VERIFIED')"
    op.execute(f"UPDATE volume SET good_copies = {good}, wanted_copies = 1 WHERE {wanted}")


def downgrade() -> None:
    with op.batch_alter_table("volume", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_volume_short",
            sqlite_where=sa.text("good_copies < wanted_copies"),
            postgresql_where=sa.text("good_copies < wanted_copies"),
        )
        batch_op.drop_column("wanted_copies")
        batch_op.drop_column("good_copies")
        batch_op.drop_column("origin")
        batch_op.drop_column("site")
        batch_op.drop_column("set_catalogue")

    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_request_pool"))
        batch_op.drop_column("pool")

    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_instance_in_spool",
            sqlite_where=sa.text("spool_path IS NOT NULL"),
            postgresql_where=sa.text("spool_path IS NOT NULL"),
        )

    with op.batch_alter_table("disc", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_disc_pool"))
        batch_op.drop_column("times_read")
        batch_op.drop_column("marked_reason")
        batch_op.drop_column("marked_at")
        batch_op.drop_column("marked")
        batch_op.drop_column("checked_out_at")
        batch_op.drop_column("checked_out_to")
        batch_op.drop_column("shelf")
        batch_op.drop_column("pool")
        batch_op.drop_column("purpose")

    with op.batch_alter_table("derived", schema=None) as batch_op:
        batch_op.drop_column("restored_at")

    with op.batch_alter_table("recall_volume", schema=None) as batch_op:
        batch_op.drop_index("ix_recall_volume_volume")

    op.drop_table("recall_volume")
    with op.batch_alter_table("recall_instance", schema=None) as batch_op:
        batch_op.drop_index("ix_recall_instance_instance")

    op.drop_table("recall_instance")
    with op.batch_alter_table("pool_instance", schema=None) as batch_op:
        batch_op.drop_index("ix_pool_instance_request")
        batch_op.drop_index("ix_pool_instance_instance")

    op.drop_table("pool_instance")
    with op.batch_alter_table("disc_check", schema=None) as batch_op:
        batch_op.drop_index("ix_disc_check_disc")

    op.drop_table("disc_check")
    op.drop_table("schedule_run")
    op.drop_table("schedule")
    op.drop_table("watch_seen")
    with op.batch_alter_table("recall", schema=None) as batch_op:
        batch_op.drop_index("ix_recall_state")

    op.drop_table("recall")
    op.drop_table("pool")
    with op.batch_alter_table("hold", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_hold_study_instance_uid"))

    op.drop_table("hold")
