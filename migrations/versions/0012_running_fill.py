"""running fill: when a pool is worth looking at, what of it was looked for late arrivals, what its discs cannot hold

Revision: 0012, after: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pool", sa.Column("quiet_minutes", sa.Integer(), nullable=False, server_default="10"))
    op.add_column("pool", sa.Column("look_at", sa.BigInteger(), nullable=True))
    op.add_column("pool", sa.Column("seen_instance", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("pool_instance", sa.Column("refused", sa.Text(), nullable=True))


def downgrade() -> None:
    for table, column in (
        ("pool_instance", "refused"),
        ("pool", "seen_instance"),
        ("pool", "look_at"),
        ("pool", "quiet_minutes"),
    ):
        op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
