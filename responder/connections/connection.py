"""
One connection of a client. aiohttp serves it; here are the limits that aiohttp does not have: time for the first
request and for reading each response, a place that another client may need, and the responses to octets that are not
HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from responder.connections.closings import Closings, Reason
from responder.connections.listener import drop_unread
from responder.connections.places import Place

HEAD_DEADLINE = 10.0
"""Seconds in which the head of the first request must arrive on a new connection."""

READ_DEADLINE = 30.0
"""Seconds in which a client must read one response: a slow line needs that for a megabyte."""

LINGER = 1.0
"""Seconds for reading the rest of a refused body, so that its sender reads the reason (RFC 9112, section 9.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The responses to requests that the application never sees, and the function that logs each of them."""

    malformed: Callable[[], web.Response]
    """Makes the response to octets that are not HTTP."""
    internal: Callable[[BaseException | None], web.Response]
    """Makes the response after an exception that is a fault of the service."""
    for_http: Callable[[web.HTTPException], web.Response]
    """Makes the response for an error of aiohttp's own."""
    note: Callable[[web.BaseRequest, web.StreamResponse], None]
    """Logs a request and the response to it."""


class Connection(web.RequestHandler):
    """
    Serves the requests on the connection that has *place*, of the client with *address*.

    The place waits for the client, except from the moment that a whole request is there until its response is written.
    """

    __slots__ = (
        "_address",
        "_closings",
        "_fallback",
        "_is_busy",
        "_is_last",
        "_is_patient",
        "_place",
        "_until_read",
        "_until_request",
    )

    def __init__(
        self,
        server: web.Server,
        place: Place,
        address: str,
        fallback: Fallback,
        closings: Closings,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), lingering_time=LINGER, **options)
        self._place = place
        self._address = address
        self._fallback = fallback
        self._closings = closings
        self._until_request: asyncio.TimerHandle | None = None
        self._until_read: asyncio.TimerHandle | None = None
        self._is_busy = False
        self._is_last = False
        self._is_patient = True

    @property
    def peername(self) -> tuple[str, int]:
        """The client, whose proxy may be the one that is connected; its port is of no use to the application."""
        return self._address, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a listener makes only these
        super().connection_made(transport)
        self._place.close = self._hang_up
        transport.set_write_buffer_limits(high=1, low=0)  # writing pauses unless the kernel takes all of it
        if transport.get_extra_info("peercert"):
            self._place.leave()  # a client with a certificate may open connections for later, as Go does
        else:
            self._until_request = self._close_after(HEAD_DEADLINE, Reason.NO_REQUEST)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._cancel(self._until_request, self._until_read)
        self._place.leave()

    def pause_writing(self) -> None:
        super().pause_writing()
        if not self._is_patient:
            self._hang_up()
            return
        self._place.wait()
        self._until_read = self._close_after(READ_DEADLINE, Reason.UNREAD)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel(self._until_read)

    def close_when_idle(self) -> None:
        """Close the connection after its request. `close` of aiohttp would leave an idle connection open."""
        if self._is_busy:
            self.close()
        else:
            self.force_close()

    def close_after_response(self) -> None:
        """Have the next response be the last one, which `Connection: close` shows its client."""
        self._is_last = True

    def wait_no_more(self) -> None:
        """From now on, do not wait for the client to read, but close: a process that stops has no time for that."""
        self._is_patient = False
        if self.writing_paused:
            self._hang_up()

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, handler: Callable[..., Any]
    ) -> tuple[web.StreamResponse, bool]:
        self._cancel(self._until_request)
        self._is_busy = True
        request.content.on_eof(self._is_whole)
        try:
            return await super()._handle_request(request, start_time, _refusing(request) or handler)
        finally:
            self._is_busy = False
            self._place.wait()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Respond to a fault. aiohttp would repeat *message*, with parts of the request, so perhaps a token."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another response was sent already")
        response = self._fallback.malformed() if status == 400 else self._fallback.internal(exc)
        self._fallback.note(request, response)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Finish a response. aiohttp makes some without middlewares: refused expectations (RFC 9110, 10.1.1)."""
        if isinstance(resp, web.HTTPException):
            keep_alive, resp = resp.keep_alive, self._fallback.for_http(resp)
            self._fallback.note(request, resp)
            if keep_alive is False:
                resp.force_close()
        if self._is_last:
            resp.force_close()
        resp.headers["Server"] = "responder"  # without the versions that aiohttp would add
        return await super().finish_response(request, resp, start_time)

    def _is_whole(self) -> None:
        """The body of a request has arrived, perhaps after the response to it."""
        if self._is_busy:
            self._place.work()

    def _close_after(self, seconds: float, reason: Reason) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._give_up, reason)

    def _cancel(self, *deadlines: asyncio.TimerHandle | None) -> None:
        for deadline in deadlines:
            if deadline is not None:
                deadline.cancel()

    def _give_up(self, reason: Reason) -> None:
        self._closings.note(reason, self._place.client)
        self._hang_up()

    def _hang_up(self) -> None:
        if self.transport is not None:
            drop_unread(self.transport.get_extra_info("socket"))
            self.transport.abort()


def _refusing(request: web.BaseRequest) -> Callable[[web.BaseRequest], Any] | None:
    """A handler that refuses *request* and closes the connection, if version or coding are not supported; or None."""
    error = _unspoken(request)
    if error is None:
        return None
    error.force_close()

    async def refuse(_: web.BaseRequest) -> web.StreamResponse:
        raise error

    return refuse


def _unspoken(request: web.BaseRequest) -> web.HTTPException | None:
    """The error for a version (RFC 9110, section 15.6.6) or coding (RFC 9112, section 6.1) that is not supported."""
    if not HttpVersion10 <= request._version <= HttpVersion11:  # noqa: SLF001  # `version` would remember it
        request._version = HttpVersion11  # noqa: SLF001  # the version of the response
        return web.HTTPVersionNotSupported()
    coding = request.headers.get(hdrs.TRANSFER_ENCODING, "").strip().lower()
    if coding not in ("", "chunked"):
        return web.HTTPNotImplemented()
    if coding and request.version == HttpVersion10:  # HTTP/1.0 has no codings: the end of such a message is unclear
        return web.HTTPBadRequest()
    return None
