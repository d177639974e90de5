"""The trainer's door for other programs: requests and their history by HTTP, on loopback. A thread of its own.

    POST /retrain    {"reason": ..., "id"?, "by"?, "since"?, "weighting"?, "labels"?}: 202 once Kafka has it
    GET /retrains    the last record of every request
    GET /healthz     200 while it answers

Any trainer takes requests, also one that stands by: they go through the requests topic. Errors are RFC 9457 problems.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
from aiohttp import web

from deploy.outlet import Outlet, OutletError
from deploy.settings import Settings
from retrain.history import HistoryError, new_id, newest, now, records_in
from retrain.request import RequestError, RetrainRequest, Trigger, Weighting, check

BODY_BYTES = 16 * 1024
ACKNOWLEDGED_S = 10.0  # until a request that Kafka has not acknowledged is answered 503


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be asked for; the same ``id`` again is the same request. ``since`` is ms of event time."""

    reason: str
    id: str = ""
    by: str = ""
    since: int | None = None
    weighting: Weighting | None = None
    labels: int = 0


def request_of(body: bytes, at: int) -> RetrainRequest:
    """The request in ``body``, asked at ``at``, ms; raises :class:`RequestError`."""
    try:
        asked = msgspec.json.decode(body, type=Asked)
        usual = Weighting.ROLLING if asked.since is None else Weighting.SINCE
        told = {
            "id": asked.id or new_id("program"),
            "trigger": Trigger.PROGRAM,
            "reason": asked.reason,
            "by": asked.by or "http",
            "asked": at,
            "weighting": asked.weighting or usual,
            "since": asked.since,
            "labels": asked.labels,
        }
        request = msgspec.convert(told, RetrainRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"not a request to retrain: {error}") from error
    check(request)
    return request


class Door:
    """Answers on loopback ``port`` until the process ends."""

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings, self._port = settings, port
        self._outlet = Outlet(settings.kafka, ACKNOWLEDGED_S)
        self._started = threading.Event()
        self._failed: OSError | None = None

    def open(self) -> None:
        """Answer from now on, in a thread; raises :class:`OSError` if the port is taken."""
        threading.Thread(target=lambda: asyncio.run(self._serve()), name="door", daemon=True).start()
        self._started.wait()
        if self._failed is not None:
            raise self._failed

    async def _serve(self) -> None:
        self._sending = asyncio.Lock()
        application = web.Application(client_max_size=BODY_BYTES)
        application.add_routes(
            [
                web.post("/retrain", self._retrain),
                web.get("/retrains", self._retrains),
                web.get("/healthz", self._healthz),
            ]
        )
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
        except OSError as error:
            self._failed = error
            return
        finally:
            self._started.set()
        await asyncio.Event().wait()

    async def _retrain(self, call: web.Request) -> web.Response:
        try:
            request = request_of(await call.read(), now())
        except web.HTTPRequestEntityTooLarge:
            return _problem(413, "The request is too long", f"{BODY_BYTES} bytes are taken at most")
        except RequestError as error:
            return _problem(400, "The request cannot be used", str(error))
        try:
            async with self._sending:
                await asyncio.to_thread(self._send, request)
        except OutletError as error:
            return _problem(503, "Kafka has not taken the request; ask again with the same id", str(error))
        return _answer({"id": request.id}, 202)

    def _send(self, request: RetrainRequest) -> None:
        self._outlet.send(self._settings.topics.requests, request.id.encode(), msgspec.json.encode(request))
        self._outlet.flush()

    async def _retrains(self, _: web.Request) -> web.Response:
        try:
            found = await asyncio.to_thread(lambda: newest(records_in(self._settings)))
        except HistoryError as error:
            return _problem(503, "The history cannot be read", str(error))
        return _answer(found, 200)

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer({"status": "ok"}, 200)


def _answer(what: Any, status: int, kind: str = "application/json") -> web.Response:
    return web.Response(body=msgspec.json.encode(what), status=status, content_type=kind)


def _problem(status: int, title: str, detail: str) -> web.Response:
    told = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return _answer(told, status, "application/problem+json")
