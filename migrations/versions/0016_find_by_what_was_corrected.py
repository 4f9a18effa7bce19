"""corrected Patient IDs and Accession Numbers are found by indexes, too

Revision: 0016, after: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_CORRECTED = sa.text("facts IS NOT NULL")
_NAMES = ("patient_id", "accession_number")


def upgrade() -> None:
    for name in _NAMES:
        if op.get_bind().dialect.name == "postgresql":
            value = sa.text(f"(facts ->> '{name}')")
        else:
            value = sa.text(f"json_extract(facts, '$.{name}')")
        op.create_index(
            f"ix_derived_fact_{name}", "derived", [value], sqlite_where=_CORRECTED, postgresql_where=_CORRECTED
        )


def downgrade() -> None:
    for name in _NAMES:
        op.drop_index(f"ix_derived_fact_{name}", table_name="derived")
