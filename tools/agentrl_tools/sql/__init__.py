"""`sql`: queries on a database that no query can change, and its schema as text."""

from __future__ import annotations

from agentrl_tools.sql.schema import ForeignKey, Table, read_schema, schema_text
from agentrl_tools.sql.tool import Sql, table_text

__all__ = ["ForeignKey", "Sql", "Table", "read_schema", "schema_text", "table_text"]
