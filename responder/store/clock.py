"""
The clock of the database, as an SQL expression.

Leases are compared with this one clock, because the clocks of the nodes may differ.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class database_clock(FunctionElement[float]):  # noqa: N801  # SQL functions are written in lower case
    """Seconds since 1970 when the statement runs, with a precision of a millisecond."""

    type = Double()
    inherit_cache = True


@compiles(database_clock, "postgresql")
def _postgresql(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(database_clock, "sqlite")
def _sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"
