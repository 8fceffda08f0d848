"""An HTTP server: text or mels in, audio streamed out as it is made, one synthesis at a time."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal

import uvicorn
from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as AnyHTTPException

import vocoder
from vocoder.audio import AudioStream, check_refine, check_temperature
from vocoder.audio.reading import read_mel
from vocoder.audio.writing import FORMATS
from vocoder.models import Noise, Vocoder
from vocoder.models.pieces import from_mel
from vocoder.text.speech import sentences, speak

if TYPE_CHECKING:
    from vocoder.text.speech import TextToMel

LONGEST_TEXT = 4096
"""Characters of a request, as in OpenAI's interface."""

LARGEST_BODY = 64 << 20
"""Bytes of a request: 35 minutes of mel."""


class SpeechRequest(BaseModel):
    """The body of /v1/audio/speech; `pcm` is 16-bit little-endian mono at 24 kHz."""

    model: str | None = None
    input: str = Field(min_length=1, max_length=LONGEST_TEXT)
    voice: str | None = None
    speed: float = Field(1.0, ge=0.25, le=4)
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio"] = "audio"


class Turns:
    """One synthesis at a time, in a thread of its own, and at most `limit` requests that wait."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.jobs: set[Future[None]] = set()  # of the requests that run or wait
        self._thread = ThreadPoolExecutor(1, "synthesis")

    def answer(self, pieces: Iterator[Any], sample_rate: int, form: str) -> StreamingResponse:
        """Audio as it is made of `pieces`; the client's speed does not hold up the next request.
        HTTPException 503 if the queue is full."""
        if len(self.jobs) > self.limit:
            message = f"{self.limit} requests are waiting already: try again later"
            raise HTTPException(503, message, {"Retry-After": "5"})
        loop, gone = asyncio.get_running_loop(), threading.Event()
        chunks: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()

        def put(item: bytes | BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(chunks.put_nowait, item)

        class Pipe(io.RawIOBase):
            def write(self, content: Any) -> int:
                put(bytes(content))
                return len(content)

        def work() -> None:
            try:
                with AudioStream(Pipe(), sample_rate, form) as stream:
                    for piece in filter(len, pieces):
                        if gone.is_set():
                            return
                        stream.write(piece)
                put(None)
            except BaseException as error:
                put(error)

        job = self._thread.submit(work)
        self.jobs.add(job)
        job.add_done_callback(self.jobs.discard)

        async def body() -> AsyncIterator[bytes]:
            while (chunk := await chunks.get()) is not None:
                if isinstance(chunk, BaseException):
                    raise chunk  # which breaks the connection off: the client sees an error
                yield chunk

        class Response(StreamingResponse):
            async def __call__(self, *connection: Any) -> None:
                try:
                    await super().__call__(*connection)
                finally:  # the client has all of it, or is gone
                    gone.set()
                    job.cancel()

        return Response(body(), media_type=FORMATS[form].media_type)


class BodyLimit:
    """Refuses bodies of more than `LARGEST_BODY` bytes before they are held in memory."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size = 0

        async def counted() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > LARGEST_BODY:
                raise HTTPException(413, f"the body is larger than {LARGEST_BODY >> 20} MiB")
            return message

        await self.app(scope, counted, send)


def create_app(model: Vocoder, acoustic: TextToMel, name: str, queue: int) -> FastAPI:
    """The application: `model` is mel to audio, `acoustic` text to mel, of the same `MelSpec` or
    ValueError; `name` is that of the model in requests; `queue`, how many requests may wait."""
    list(speak(sentences("A."), acoustic, model))  # the first call compiles
    app = FastAPI(title="flow-vocoder", version=vocoder.__version__)
    app.add_middleware(BodyLimit)
    turns, reading = Turns(queue), asyncio.Lock()

    def failure(status: int, message: str, param: str | None = None, **more: Any) -> JSONResponse:
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": param, "code": None}
        return JSONResponse({"error": error}, status, **more)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = ".".join(part for part in first["loc"][1:] if isinstance(part, str)) or None
        return failure(400, f"{param or 'the body'}: {first['msg']}", param)

    @app.exception_handler(AnyHTTPException)
    async def refused(_: Request, error: AnyHTTPException) -> JSONResponse:
        return failure(error.status_code, error.detail, headers=error.headers)

    @app.exception_handler(ValueError)  # TextError and MelError are
    async def unusable(_: Request, error: ValueError) -> JSONResponse:
        return failure(400, str(error))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        running = min(len(turns.jobs), 1)
        waiting = {"running": running, "waiting": len(turns.jobs) - running, "limit": queue}
        facts = {"status": "ok", "version": vocoder.__version__, "model": name}
        made = {"voices": list(acoustic.voices), "sample_rate": model.sample_rate}
        return {**facts, **made, "queue": waiting}

    @app.post("/v1/audio/speech", response_class=StreamingResponse)
    async def speech(request: SpeechRequest) -> StreamingResponse:
        if request.model not in (None, name):
            raise ValueError(f"there is no model {request.model!r}: give {name!r}")
        async with reading:
            script = await run_in_threadpool(sentences, request.input)
        pieces = speak(script, acoustic, model, voice=request.voice, speaking_rate=request.speed)
        return turns.answer(pieces, model.sample_rate, request.response_format)

    @app.post("/synthesize", response_class=StreamingResponse)
    async def synthesize(
        mel: Annotated[bytes, Body(media_type="application/octet-stream")],
        refine: str | None = None,
        seed: int = 0,
        temperature: float | None = None,
    ) -> StreamingResponse:
        if refine is not None:
            check_refine(refine)
        if temperature is not None:
            check_temperature(temperature)
        Noise(seed)
        pieces = from_mel(model, read_mel(mel), temperature=temperature, refine=refine, seed=seed)
        return turns.answer(pieces, model.sample_rate, "wav")

    return app


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that are being answered get two seconds more."""
    host, port = listening.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)  # noqa: T201
    warnings.filterwarnings("ignore", "The mel|Clipped|Clamped", UserWarning)
    how: Any = {"log_level": "warning", "lifespan": "off", "ws": "none"}
    config = uvicorn.Config(app, timeout_graceful_shutdown=2, **how)
    uvicorn.Server(config).run(sockets=[listening])
