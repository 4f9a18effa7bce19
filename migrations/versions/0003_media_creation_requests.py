"""media creation requests of the network (PS3.4 Annex S)

Revision: 0003, after: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "media_creation",
        sa.Column("id", _ID, nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("references", sa.JSON(), nullable=False),
        sa.Column("initiated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.JSON(), nullable=True),
        sa.Column("request_id", _ID, nullable=True),
        sa.Column("job_id", _ID, nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_media_creation_request_id")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_media_creation_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media_creation")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_media_creation_sop_instance_uid")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_media_creation_job_id"), "media_creation", ["job_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_media_creation_job_id"), table_name="media_creation")
    op.drop_table("media_creation")
