"""Alembic's entry: it runs this file with the connection that ``migrate`` gave it, inside that one's transaction."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
