"""One request for inference, from its body to the last byte of its answer.

It holds a lease on its slot from before anything is sent to the engine until the answer is over, or
nobody wants it any more. The lease is released where the request is served, and not by whoever
reads an answer that may never begin. What the engine sends goes on as it comes, byte for byte.

A request is sent a second time only if nothing of an answer came, no stream was asked for, and the
rows say by then that the model was gone: once, after one wake.
"""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Final

from starlette.types import Receive, Scope, Send

from hal0.dispatcher.admission import Admission
from hal0.dispatcher.bodies import Body, json_body
from hal0.dispatcher.forms import form_body
from hal0.dispatcher.interrupts import ClientGoneError, Interrupts, Sweep
from hal0.dispatcher.lost import MAX_BYTES, reason_in
from hal0.dispatcher.places import Held, Lease
from hal0.dispatcher.reading import whole_body
from hal0.dispatcher.reply import Reply
from hal0.dispatcher.routing import Route, Takes
from hal0.dispatcher.serving import Serving
from hal0.dispatcher.speeds import Meter, Speeds
from hal0.dispatcher.upstream import Answer, Upstream, sent_headers
from hal0.errors import (
    EngineBadAnswer,
    EngineTimeout,
    EngineUnreachable,
    Hal0Error,
    SlotLoading,
    SlotUnloaded,
    Stopping,
    TooSlow,
)
from hal0.settings import Settings

log = logging.getLogger(__name__)

NOT_KEPT: Final = ("Connection", "close")
"""llama.cpp, and Lemonade with its web server, close a connection over which a stream went and say
so to nobody: the next request over it would be lost."""


@dataclass(slots=True)  # as is said of `JsonBody`
class Asked:
    """A request, understood."""

    route: Route
    body: Body | None
    """None = it was sent and will not be sent again: a stream may last, and a prompt is large."""
    model: str
    is_stream: bool
    headers: list[tuple[str, str]]
    """What of its headers goes to the engine."""
    request_id: str
    actor: str

    def content(self, engine_model: str, *, is_last: bool) -> bytes:
        """Return the body as the engine is to get it; the last time, nothing of it is kept."""
        assert self.body is not None, "it is sent for the last time once"
        content = self.body.renamed(engine_model)
        if is_last:
            self.body = None
        return content


class Proxy:
    """Serves the requests of one process."""

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        serving: Serving,
        upstream: Upstream,
        speeds: Speeds,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._serving = serving
        self._upstream = upstream
        self._speeds = speeds
        self._sweep = Sweep()

    async def serve(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises Hal0Error while nothing has been sent; what happens later ends the answer. Sends
        nothing to a client that has left.
        """
        reply = Reply(send, route)
        try:
            with Interrupts(receive, self._sweep) as interrupts:
                interrupts.expect_within(self._settings.request_timeout_s, self._too_slow)
                asked = await self._understood(route, scope, receive)
                interrupts.listen()
                interrupts.expect_nothing()
                await self._answer(asked, interrupts, reply)
        except ClientGoneError:
            return
        except asyncio.CancelledError:  # the server stops, and the time of its requests is over
            if reply.has_begun:
                await reply.break_off(Stopping("hal0 stops; ask again"))
            raise
        except Hal0Error as error:
            if not reply.has_begun:
                raise
            log.warning("an answer breaks off: %s", error.detail)
            await reply.break_off(error)

    async def _understood(self, route: Route, scope: Scope, receive: Receive) -> Asked:
        given = scope["headers"]
        said = dict(given)
        state, settings = scope["state"], self._settings
        content = await whole_body(receive, said, settings.body_limit_bytes)
        read = json_body if route.takes is Takes.JSON else form_body
        body: Body = read(content, said.get(b"content-type", b""))
        headers = sent_headers(given)
        headers += (
            ("Content-Type", body.content_type),
            ("Accept-Encoding", "identity"),
            ("X-Request-ID", state["request_id"]),
        )
        if body.is_stream:
            headers.append(NOT_KEPT)
        request_id, actor = state["request_id"], state["actor"]
        return Asked(route, body, body.model, body.is_stream, headers, request_id, actor)

    def _too_slow(self) -> TooSlow:
        limit_s = self._settings.request_timeout_s
        return TooSlow(
            f"the body did not arrive within {limit_s:g} s; send it in one go",
            evidence={"limit_s": limit_s},
        )

    async def _answer(self, asked: Asked, interrupts: Interrupts, reply: Reply) -> None:
        for may_try_again in (not asked.is_stream, False):
            lease = await self._admission.admit(asked.model, asked.request_id, asked.actor)
            try:
                await self._forward(asked, lease, interrupts, reply, is_last=not may_try_again)
            except (ModelLostError, EngineUnreachable, EngineBadAnswer) as error:
                if reply.has_begun:
                    await self._admission.doubt(lease.held)
                    raise
                failure = error
            else:
                return
            finally:
                self._serving.release(lease)
            interrupts.expect_nothing()
            await self._ensure_gone(lease.held, failure, may_try_again=may_try_again)

    async def _ensure_gone(
        self, held: Held, failure: "ModelLostError | Hal0Error", *, may_try_again: bool
    ) -> None:
        """Return when the slot has lost its model, so that it may be woken; else raise."""
        if not may_try_again or isinstance(failure, EngineUnreachable):
            await self._admission.doubt(held)
        elif await self._admission.is_gone(held):
            return
        if isinstance(failure, Hal0Error):
            raise failure
        raise SlotLoading(
            f"engine {held.engine.name} does not have the model of slot {held.slot}: "
            f"{failure}; hal0 looks after it",
            evidence={"slot": held.slot, "engine": held.engine.name},
            retry_after_s=2,
        )

    async def _forward(
        self,
        asked: Asked,
        lease: Lease,
        interrupts: Interrupts,
        reply: Reply,
        *,
        is_last: bool,
    ) -> None:
        """Send a request to the engine of its slot, and its answer to the client."""
        held = lease.held

        def ensure_held() -> None:
            """Refuse, over a connection that stands, what the slot may not hold any more."""
            if not self._serving.knows(lease):
                raise _unloaded(held) if lease.is_cut else _lost_again(held)

        lease.on_cut(lambda: interrupts.interrupt(_unloaded(held)))
        limit_s = self._settings.first_byte_timeout_s
        interrupts.expect_within(limit_s, partial(_late, held, "begin to answer", limit_s))
        meter = Meter()
        content = asked.content(held.engine_model, is_last=is_last)
        with await self._upstream.post(
            held.engine, asked.route.path, asked.headers, content, ensure_held
        ) as answer:
            refusal = b"" if answer.status < 400 else await _refusal(answer)
            await reply.begin(answer)
            if refusal:
                await reply.part(refusal, is_last=answer.is_over)
            await self._pass_on(answer, held, interrupts, reply, meter)
            if answer.status < 400:
                self._speeds.note_answer(held.slot_id, meter)

    async def _pass_on(
        self, answer: Answer, held: Held, interrupts: Interrupts, reply: Reply, meter: Meter
    ) -> None:
        limit_s = self._settings.between_bytes_timeout_s
        late = partial(_late, held, "go on with its answer", limit_s)
        interrupts.ends_with(answer.broken)
        while not reply.is_over:  # the answer may have come to its end while the client read
            interrupts.expect_within(limit_s, late)
            chunk = await answer.next()
            meter.feed(chunk)
            interrupts.expect_nothing()  # from now on it is the client who takes its time
            await reply.part(chunk, is_last=answer.is_over)


class ModelLostError(Exception):
    """The engine says that it does not have the model; never leaves this module."""


async def _refusal(answer: Answer) -> bytes:
    """Return what came of an error's text; raises ModelLostError if that says so."""
    text = b""
    while not answer.is_over and len(text) < MAX_BYTES:
        text += await answer.next()
    if answer.is_over and (reason := reason_in(text)) is not None:
        raise ModelLostError(reason[:300])
    return text


def _late(held: Held, what: str, limit_s: float) -> EngineTimeout:
    return EngineTimeout(
        f"engine {held.engine.name} did not {what} within {limit_s:g} s",
        evidence={"engine": held.engine.name, "slot": held.slot, "limit_s": limit_s},
    )


def _lost_again(held: Held) -> SlotLoading:
    return SlotLoading(
        f"slot {held.slot} may have lost its model while this request was on its way to it",
        evidence={"slot": held.slot},
        retry_after_s=1,
    )


def _unloaded(held: Held) -> SlotUnloaded:
    return SlotUnloaded(
        f"slot {held.slot} was unloaded by force while it answered", evidence={"slot": held.slot}
    )
