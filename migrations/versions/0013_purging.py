"""purging: what has been in the spool longest is found first, files of conformed instances that are there at all;
how many copies are wanted of volumes of before pools

Revision: 0013, after: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_IN_SPOOL = sa.text("spool_path IS NOT NULL")
_THERE = sa.text("purged_at IS NULL OR restored_at IS NOT NULL")
_WANTED = """SELECT max(coalesce(pool.required_copies, job.copies)) FROM disc JOIN job ON job.id = disc.job_id
    LEFT JOIN pool ON pool.name = disc.pool
    WHERE disc.volume_id = volume.id AND disc.state = 'VERIFIED' AND disc.purpose = 'archive'"""


def upgrade() -> None:
    op.drop_index("ix_instance_in_spool", table_name="instance")
    op.create_index(
        "ix_instance_in_spool", "instance", ["spool_path"], sqlite_where=_IN_SPOOL, postgresql_where=_IN_SPOOL
    )
    op.add_column("derived", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_derived_there", "derived", ["id"], sqlite_where=_THERE, postgresql_where=_THERE)
    op.execute(f"UPDATE volume SET wanted_copies = ({_WANTED}) WHERE EXISTS ({_WANTED.replace('max(', '(', 1)})")


def downgrade() -> None:
    op.drop_index("ix_derived_there", table_name="derived")
    op.execute("ALTER TABLE derived DROP COLUMN purged_at")
    op.drop_index("ix_instance_in_spool", table_name="instance")
    op.create_index("ix_instance_in_spool", "instance", ["id"], sqlite_where=_IN_SPOOL, postgresql_where=_IN_SPOOL)
