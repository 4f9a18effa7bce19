"""discs that were checked again, volumes with error-correction data

Revision: 0005, after: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


_ADDED = (
    ("disc", "checked_at", sa.DateTime(timezone=True)),
    ("disc", "checked_result", sa.String(16)),
    ("disc", "checked_how", sa.String(255)),
    ("volume", "protection", sa.String(8)),
    ("volume", "protection_roots", sa.Integer()),
    ("volume", "iso_sectors", sa.BigInteger()),
)


def upgrade() -> None:
    for table, column, kind in _ADDED:
        op.add_column(table, sa.Column(column, kind, nullable=True))


def downgrade() -> None:
    # Not by batch_alter_table: SQLite would make the tables anew, and discs reference volumes.
    for table, column, _ in reversed(_ADDED):
        op.drop_column(table, column)
