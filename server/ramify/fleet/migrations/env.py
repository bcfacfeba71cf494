"""Alembic's entry: runs the migrations on the connection that `treelog.schema.upgrade` hands over."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["table"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
