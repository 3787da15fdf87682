"""Frames of a video, by FFmpeg: opened with limits, and made into pictures."""

import io
import re
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError, InvalidDataError
from av.video.frame import VideoFrame

from services.contracts.preprocessing import MAX_PIXELS
from services.ingest.sources.door import Trouble

# What an address may lead to: a hostile stream must not make FFmpeg read files, nor a file make it call hosts.
NETWORK = "rtsp,rtsps,rtp,udp,tcp,tls,crypto"
LOCAL = "file"
BROKEN = 100
"""Packets in a row that cannot be decoded, after which a stream counts as lost."""
_USERINFO = re.compile(r"(?<=://)[^/@\s]*@")


def opened(address: str, protocols: str, timeout: float, **options: str) -> InputContainer:
    """Raises Trouble; `timeout` in seconds, for opening and for every read."""
    limits = {"protocol_whitelist": protocols, **options}
    try:
        return av.open(address, options=limits, timeout=(timeout, timeout))
    except (FFmpegError, ValueError) as error:
        raise Trouble(said(error)) from None


def said(error: Exception) -> str:
    """FFmpeg's words without the user and password that it repeats from the address."""
    if isinstance(error, ExitError):
        return "it has been silent for too long"
    return _USERINFO.sub("", str(error))


def frames(container: InputContainer, *, keyframes: bool = False) -> Iterator[VideoFrame | None]:
    """The frames of the first video stream; None for a packet that cannot be decoded. Raises Trouble."""
    if not container.streams.video:
        raise Trouble("there is no video in it")
    stream = container.streams.video[0]
    context = stream.codec_context
    context.options = {"max_pixels": str(MAX_PIXELS)}
    context.thread_count = 1
    if keyframes:
        context.skip_frame = "NONKEY"
    broken = 0
    try:
        for packet in container.demux(stream):
            try:
                found = packet.decode()
            except InvalidDataError:
                broken += 1
                if broken > BROKEN:
                    raise Trouble(f"{BROKEN} packets in a row cannot be decoded") from None
                yield None
                continue
            broken = 0 if found else broken
            yield from found
    except FFmpegError as error:
        raise Trouble(said(error)) from None


def picture(frame: VideoFrame, kind: str, quality: int) -> bytes:
    """The frame as a JPEG or PNG file."""
    options: dict[str, Any] = {"quality": quality} if kind == "jpeg" else {"compress_level": 3}
    file = io.BytesIO()
    frame.to_image().save(file, kind.upper(), **options)
    return file.getvalue()
