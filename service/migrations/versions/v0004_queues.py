"""Messages are taken from each webhook's queue, and dead letters found by their age."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("ix_deliveries_webhook_id", "deliveries")
    op.drop_index("deliveries_by_due", "deliveries")
    op.create_index("deliveries_by_webhook", "deliveries", ["webhook_id", "due_at", "id"])
    op.create_index("deliveries_by_due", "deliveries", ["due_at", "created_at"])
