"""File-set IDs of discs that others made, or that an earlier catalogue had: they need not differ from each other

Revision: 0014, after: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_OWN = "origin = 'own'"


def upgrade() -> None:
    with op.batch_alter_table("volume", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("uq_volume_file_set_id"), type_="unique")
        batch_op.create_index(batch_op.f("ix_volume_file_set_id"), ["file_set_id"], unique=False)
        batch_op.create_index(
            "uq_volume_own_file_set_id",
            ["file_set_id"],
            unique=True,
            sqlite_where=sa.text(_OWN),
            postgresql_where=sa.text(_OWN),
        )


def downgrade() -> None:
    op.execute("UPDATE volume SET file_set_id = 'X' || id WHERE origin <> 'own'")
    with op.batch_alter_table("volume", schema=None) as batch_op:
        batch_op.drop_index("uq_volume_own_file_set_id", sqlite_where=sa.text(_OWN), postgresql_where=sa.text(_OWN))
        batch_op.drop_index(batch_op.f("ix_volume_file_set_id"))
        batch_op.create_unique_constraint(op.f("uq_volume_file_set_id"), ["file_set_id"])
