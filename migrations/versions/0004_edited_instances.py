"""conformed instances with a new SOP Instance UID or corrected attributes

Revision: 0004, after: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("derived", schema=None) as batch_op:
        batch_op.add_column(sa.Column("new_sop_instance_uid", sa.String(64), nullable=True))
        batch_op.add_column(sa.Column("directory_keys", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("facts", sa.JSON(), nullable=True))
        batch_op.create_index(op.f("ix_derived_new_sop_instance_uid"), ["new_sop_instance_uid"])


def downgrade() -> None:
    with op.batch_alter_table("derived", schema=None) as batch_op:
        batch_op.drop_index(op.f("ix_derived_new_sop_instance_uid"))
        batch_op.drop_column("facts")
        batch_op.drop_column("directory_keys")
        batch_op.drop_column("new_sop_instance_uid")
