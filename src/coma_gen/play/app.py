"""The web app of `coma-gen play`, wrapped in the request guard of `serving.app`.

GET  /          the page; its scripts and styles are beside it; /about describes the model and the limits
POST /look      {midi, name} -> its notes
POST /continue  {midi, name, settings of Request} -> a line of JSON for each event (newline-delimited JSON):
                {"waiting": n}, {"begun": ...}, {"progress": [...]}, {}, and at the end
                {"pieces": [...], "command": text} or {"error": text}
POST /express   {midi, name, settings of TouchRequest} -> the same lines
POST /sound     {midi, name, from, to, kind} -> FLAC or WAV
POST /archive   {pieces, command} -> a ZIP file

The server is stateless: the page holds the pieces. Pieces are generated one at a time, and so are sounds.
Closing the connection stops the job.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from coma_gen.core.errors import UserError
from coma_gen.midi.io import midi_bytes
from coma_gen.play.jobs import Event, JobQueue, Work
from coma_gen.play.prompts import PROMPTS
from coma_gen.play.sounds import KINDS, MAX_SOUND_SECONDS, archive_of, parse_archive, parse_sound, sound_of
from coma_gen.play.studio import Studio, parse_body
from coma_gen.play.touch import touch_work
from coma_gen.report.page import SCRIPT, STYLE
from coma_gen.report.theme import css_variables
from coma_gen.serving.app import App, RefusedError, RequestGuard

HERE = Path(__file__).parent
MAX_WAITING = 16
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": PAGE_POLICY,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def build_app(studio: Studio) -> App:
    """Builds the app with its request guard.

    Args:
        studio: The model and its limits.
    """
    page = PlayPage(studio)
    posts = {
        "/look": page.look,
        "/continue": page.continue_prompt,
        "/express": page.express,
        "/sound": page.sound,
        "/archive": page.archive,
    }
    routes = [Route(path, page.send_file) for path in page.files]
    routes += [Route("/about", page.about)]
    routes += [Route(path, answer, methods=["POST"]) for path, answer in posts.items()]
    return RequestGuard(
        Starlette(routes=routes),
        max_body_bytes=studio.limits.max_body_bytes,
        checks=dict.fromkeys(posts, _check_json),
    )


class PlayPage:
    """The request handlers."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.pieces = JobQueue(most=MAX_WAITING, name="music")
        self.sounds = JobQueue(most=MAX_WAITING * studio.limits.max_pieces, name="sound")
        style = css_variables() + STYLE.read_text(encoding="utf-8")
        scripts = {
            name: (HERE / name).read_text(encoding="utf-8")
            for name in ("roll.js", "takes.js", "play.js", "preview.js", "controls.js")
        }
        scripts["player.js"] = SCRIPT.read_text(encoding="utf-8")
        self.files: dict[str, tuple[str, bytes]] = {
            "/": ("text/html", (HERE / "page.html").read_bytes()),
            "/play.css": ("text/css", (style + (HERE / "play.css").read_text(encoding="utf-8")).encode()),
            **{f"/{name}": ("text/javascript", text.encode()) for name, text in scripts.items()},
            **{f"/prompts/{name}.mid": ("audio/midi", midi_bytes(make())) for name, make in PROMPTS.items()},
        }

    async def send_file(self, request: HttpRequest) -> Response:
        """Sends a static file."""
        kind, content = self.files[request.url.path]
        return Response(content, media_type=kind, headers=HEADERS)

    async def about(self, _request: HttpRequest) -> Response:
        """Describes the model and the limits."""
        limits = asdict(self._studio.limits) | {"longest_sound": MAX_SOUND_SECONDS}
        return _json_response({"model": self._studio.facts, "limits": limits, "sounds": list(KINDS)})

    async def look(self, request: HttpRequest) -> Response:
        """Reads the notes of a file."""
        row, name = parse_body(await request.json())
        return await _answer(lambda: self._studio.look(row, name))

    async def continue_prompt(self, request: HttpRequest) -> Response:
        """Streams continuations while they are generated."""
        return await self._stream(request, self._studio.work_on)

    async def express(self, request: HttpRequest) -> Response:
        """Streams expressive versions of a file while they are generated."""
        return await self._stream(request, lambda row, name: touch_work(self._studio, row, name))

    async def _stream(
        self, request: HttpRequest, work_of: Callable[[Mapping[str, Any], str], Work]
    ) -> Response:
        try:
            work = work_of(*parse_body(await request.json()))
        except UserError as error:
            return _json_response({"error": str(error)}, 400)
        return StreamingResponse(
            self._stream_lines(work),
            media_type="application/x-ndjson",
            headers=HEADERS | {"x-accel-buffering": "no"},
        )

    async def _stream_lines(self, work: Work) -> AsyncIterator[bytes]:
        try:
            async with aclosing(self.pieces.add(work).events()) as events:
                async for event in events:
                    yield _encode_line(event)
        except UserError as error:
            yield _encode_line({"error": str(error)})

    async def sound(self, request: HttpRequest) -> Response:
        """Renders an excerpt as audio."""
        return await self._send_result(request, lambda body: sound_of(parse_sound(body, self._studio.limits)))

    async def archive(self, request: HttpRequest) -> Response:
        """Packs pieces with their audio and piano rolls."""
        return await self._send_result(
            request, lambda body: archive_of(parse_archive(body, self._studio.limits))
        )

    async def _send_result(
        self, request: HttpRequest, work_of: Callable[[Mapping[str, Any]], Work]
    ) -> Response:
        try:
            work = work_of(await request.json())
            async with aclosing(self.sounds.add(work).events()) as events:
                async for event in events:
                    if "error" in event:
                        return _json_response(event, 400)
                    if "content" in event:
                        return Response(event["content"], media_type=event["type"], headers=HEADERS)
                    if await request.is_disconnected():
                        break
        except UserError as error:
            return _json_response({"error": str(error)}, 400)
        return Response(status_code=204)  # the client has disconnected


async def _answer(find: Callable[[], Event]) -> Response:
    try:
        return _json_response(await run_in_threadpool(find))
    except UserError as error:
        return _json_response({"error": str(error)}, 400)


def _json_response(content: Event, status: int = 200) -> Response:
    return Response(_encode_line(content), status_code=status, media_type="application/json", headers=HEADERS)


def _encode_line(event: Event) -> bytes:
    return json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _check_json(body: bytes) -> None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body must be JSON") from None
    if not isinstance(content, dict):
        raise RefusedError(400, "the body must be an object")
