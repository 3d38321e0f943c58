"""What is decided about a recording after it was sealed: hold, retention, deletion; and who did what: the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mixer.events import EventHub
from mixer.http.auth import ARCHIVIST, covers, one_of, require_room
from mixer.http.bodies import json_response, read_model, validate_query
from mixer.http.holdings import RECORDING, Desk, public
from mixer.http.routing import CALLER, Answer, Query, Route, json_answer
from mixer.http.schemas import AUDIT, DELETION, TOMBSTONE
from recording import audit
from recording.errors import Bound, RecordingMissing
from recording.keys import rfc3339
from recording.ledger import MAX_REASON
from recording.rows import RecordingInfo

_JSON: Final = "application/json"
_FETCH: Final = one_of("archivist", query_token=True)


class HoldBody(BaseModel):
    """Body of ``PUT /v1/recordings/{id}/hold``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON)]


class ReasonBody(BaseModel):
    """Body of ``DELETE /v1/recordings/{id}/hold``; may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""


def _in_utc(moment: datetime) -> datetime:
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("takes a time between the years 1 and 9999") from error


class RetentionBody(BaseModel):
    """Body of ``PATCH /v1/recordings/{id}/retention``: kept at least until then; null: no date."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    until: Annotated[datetime, AfterValidator(_in_utc)] | None


class DeletionBody(BaseModel):
    """Body of ``DELETE /v1/recordings/{id}``; left out, the reason is that somebody with the right asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON)] = "asked for"


class AuditQuery(BaseModel):
    """The query of ``GET /v1/audit``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recording: Annotated[str, Field(max_length=26)] | None = None
    cursor: Annotated[str, Field(max_length=60)] | None = None
    limit: Annotated[int, Field(ge=1, le=audit.MAX_LIMIT)] = 100


class CustodyRoutes:
    """See the module."""

    def __init__(self, desk: Desk, hub: EventHub) -> None:
        self._desk = desk
        self._hub = hub

    def routes(self) -> list[Route]:
        """The table."""
        one = "/v1/recordings/{id}"
        tag = "archive"
        info = json_answer(200, "The recording", RECORDING)
        return [
            Route(
                "PUT", one + "/hold", self._hold, "Place a legal hold: nothing may be deleted", tag, ARCHIVIST, (info,),
                body={_JSON: HoldBody}, errors=(409, 503),
            ),
            Route(
                "DELETE", one + "/hold", self._release, "End the hold", tag, ARCHIVIST, (info,),
                body={_JSON: ReasonBody}, body_required=False, errors=(409, 503),
            ),
            Route(
                "PATCH", one + "/retention", self._retain, "Keep it at least until a date", tag, ARCHIVIST, (info,),
                body={_JSON: RetentionBody}, errors=(409, 503),
            ),
            Route(
                "DELETE", one, self._delete, "Delete a recording; refused while a hold or its retention binds", tag,
                ARCHIVIST, (json_answer(200, "The tombstone; signed it is at …/tombstone", DELETION),),
                body={_JSON: DeletionBody}, body_required=False, errors=(409, 503),
            ),
            Route(
                "GET", one + "/tombstone", self._tombstone, "The signed tombstone of a deleted recording", tag,
                _FETCH, (json_answer(200, "act, key (fingerprint), signature (Ed25519, hex)", TOMBSTONE),),
                errors=(409, 503),
            ),
            Route(
                "GET", one + "/premis", self._premis, "PREMIS 3: the files, and all that happened to them", tag,
                _FETCH, (Answer(200, "PREMIS 3 XML", {"application/xml": None}),), errors=(409, 503),
            ),
            Route(
                "GET", "/v1/audit", self._audit, "The audit log, newest first", tag, ARCHIVIST,
                (json_answer(200, "items, and the cursor of the next page or null", AUDIT),),
                query=(
                    Query("recording", "Only lines about this recording"),
                    Query("cursor", "Where the page before ended"),
                    Query(
                        "limit", "How many at most",
                        {"type": "integer", "minimum": 1, "maximum": audit.MAX_LIMIT, "default": 100},
                    ),
                ),
                errors=(404, 422),
            ),
            Route(
                "GET", "/v1/archive/key", self._key, "The public key of tombstones and audit log", tag, ARCHIVIST,
                (Answer(200, "PEM (Ed25519)", {"application/x-pem-file": None}),),
            ),
        ]  # fmt: skip

    # --- decisions ------------------------------------------------------------------------------------------

    async def _hold(self, request: web.Request) -> web.Response:
        info = await self._desk.own(request)
        body = await read_model(request, HoldBody)
        custody, by = self._desk.holdings.custody, request[CALLER].sub
        held = await self._desk.ask(custody.hold, info.id, by=by, reason=body.reason)
        return await self._decided(request, "hold", held, reason=body.reason)

    async def _release(self, request: web.Request) -> web.Response:
        info = await self._desk.own(request)
        body = await read_model(request, ReasonBody, empty=True)
        custody, by = self._desk.holdings.custody, request[CALLER].sub
        free = await self._desk.ask(custody.release, info.id, by=by, reason=body.reason)
        return await self._decided(request, "release", free, reason=body.reason)

    async def _retain(self, request: web.Request) -> web.Response:
        info = await self._desk.own(request)
        body = await read_model(request, RetentionBody)
        until = None if body.until is None else rfc3339(body.until.timestamp())
        custody, by = self._desk.holdings.custody, request[CALLER].sub
        kept = await self._desk.ask(custody.retain, info.id, by=by, until=until)
        return await self._decided(request, "retain", kept, until=until)

    async def _delete(self, request: web.Request) -> web.Response:
        info = await self._desk.own(request)
        body = await read_model(request, DeletionBody, empty=True)
        custody, by = self._desk.holdings.custody, request[CALLER].sub
        try:
            tombstone = await self._desk.ask(custody.delete, info.id, by=by, reason=body.reason)
        except Exception as error:
            if isinstance(error.__cause__, Bound):
                await self._desk.note(request, "delete-refused", info.id, reason=str(error.__cause__))
            raise
        gone = await self._desk.ask(self._desk.holdings.archive.get, info.id)
        await self._decided(request, "delete", gone, reason=body.reason)
        return json_response(tombstone.model_dump(mode="json"))

    async def _decided(
        self, request: web.Request, act: str, info: RecordingInfo, **detail: Any
    ) -> web.Response:
        """The ledger has it, signed; now the audit log and whoever listens."""
        await self._desk.note(request, act, info.id, **detail)
        self._hub.publish(f"recording.{act}", info.room, recording=info.id, by=request[CALLER].sub, **detail)
        return json_response(public(info))

    # --- reading --------------------------------------------------------------------------------------------

    async def _tombstone(self, request: web.Request) -> web.Response:
        info = await self._desk.own(request)
        body, _ = await self._desk.ask(self._desk.holdings.custody.tombstone_entry, info.id)
        return web.Response(body=body, content_type=_JSON)

    async def _premis(self, request: web.Request) -> web.Response:
        info = await self._desk.own(request)
        body = await self._desk.ask(self._desk.holdings.custody.premis, info.id)
        name = f'attachment; filename="{info.room}-{info.id}.premis.xml"'
        return web.Response(body=body, content_type="application/xml", headers={"Content-Disposition": name})

    async def _audit(self, request: web.Request) -> web.Response:
        caller = request[CALLER]
        query = validate_query(request, AuditQuery)
        archive = self._desk.holdings.archive
        recording = query.recording
        if recording is not None:
            info = await self._desk.ask(archive.get, recording)
            require_room(caller, info.room)
            recording = info.id

        def tell(about: str | None) -> bool:
            """A token of one room hears of that room's recordings only."""
            if caller.room == "*":
                return True
            try:
                return about is not None and covers(caller, archive.get(about).room)
            except RecordingMissing:
                return False

        log = self._desk.holdings.audit
        page = await self._desk.ask(
            log.read, recording=recording, tell=tell, cursor=query.cursor, limit=query.limit
        )
        items = [{"id": line.cursor, **line.body} for line in page.lines]
        return json_response({"items": items, "cursor": page.cursor})

    async def _key(self, request: web.Request) -> web.Response:
        pem = self._desk.holdings.custody.public_pem
        return web.Response(body=pem, content_type="application/x-pem-file")
