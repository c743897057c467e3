"""Frequent queries, by the reconciler and by waits, read no agents and requests that have ended."""

import re
import sqlite3
from importlib import resources
from pathlib import Path

import pytest
from forkjoin.store.database_migration import open_database

QUERIES = resources.files("forkjoin.store").joinpath("queries.sql").read_text("utf-8")


def plan_of(connection: sqlite3.Connection, query: str) -> list[str]:
    """Return the steps by which SQLite runs a named query."""
    found = re.search(rf"-- name: {query}\n((?:--[^\n]*\n)*)(.*?)(?:\n\n|\Z)", QUERIES, re.DOTALL)
    assert found
    values = dict.fromkeys(re.findall(r":(\w+)", found[2]))
    return [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {found[2]}", values)]


@pytest.mark.parametrize(
    "query",
    ["live_agents", "budgets", "open_requests", "requests_to", "expired_requests", "candidates", "agents_with_mail"],
)
def test_a_frequent_query_uses_an_index_of_open_records(tmp_path: Path, query: str) -> None:
    connection = open_database(tmp_path / "records.sqlite")
    try:
        plan = plan_of(connection, query)
    finally:
        connection.close()
    whole = [step for step in plan if re.search(r"agent_project|SCAN (agent|request)(?! USING INDEX)", step)]
    assert (whole, bool(plan)) == ([], True)
