"""
What the store needs of a database: run a piece of work in a transaction of the right kind.

Work is an ordinary function that takes a SQLAlchemy `Connection`, whichever database it is: `sqlite` runs it on
threads of its own, `postgresql` on an asynchronous driver. Neither lets an exception of a driver out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from responder.store.hints import Hint, Hints

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[Connection, P], T]


class Database(ABC):
    """One database. Every method raises `StoreUnavailable`, and whatever the work itself raises."""

    @abstractmethod
    async def create(self) -> None:
        """Bring an empty database into being if there is none, as far as that can be done from here."""

    @abstractmethod
    async def exists(self) -> bool:
        """Whether there is something to connect to. Creates nothing."""

    @abstractmethod
    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* seeing one state of the database throughout."""

    @abstractmethod
    async def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* and commit what it did; nothing remains of it if it raises. Returning means: it is on disk."""

    @abstractmethod
    async def migrate(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `write`, for changes of the schema: takes its time, and no other process does the same meanwhile."""

    @abstractmethod
    def stream(self, work: Work[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        """As `read`, for results too large to hold at once. Close the iterator if you leave it early."""

    def hints(
        self, listen_url: str | None, *, name: str, instance: str, heard: Callable[[Hint], object]
    ) -> Hints | None:
        """What carries hints between nodes, for the node *name*; None if there is only one, or *listen_url* is ""."""
        return None

    @abstractmethod
    async def verify(self) -> None:
        """Read all of it. Raises `StoreUnavailable` if something in it is damaged."""

    @abstractmethod
    async def warnings(self) -> list[str]:
        """What works, but keeps the database from being as safe as it should be, and how to fix it."""

    @abstractmethod
    async def close(self) -> None:
        """Give every connection back; nothing else may be called afterwards."""
