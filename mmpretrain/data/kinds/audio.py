"""Sounds: WAV, FLAC, Ogg and MP3 to one channel of float32 and its sampling rate."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mmpretrain.data.decode import SampleError

try:
    import soundfile
except (ImportError, OSError) as error:  # OSError: the package is there and its library is not
    raise ImportError(f"sounds need the extra audio ({error}): pip install 'mmpretrain-contrastive[audio]'") from error

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
MAX_SECONDS = 3600
MAX_CHANNELS = 16
MIN_RATE, MAX_RATE = 1_000, 384_000  # hertz
MAX_FRAMES = 100_000_000  # of one channel: 400 MB
MAX_CHUNKS = 1000  # of a WAV file, before its sound
BLOCK_VALUES = 1 << 20  # of all channels, read at a time
# Of floats that were meant to lie in -1...1; features of louder ones are not finite.
LOUDEST = 2.0**31
# A stream that was written without knowing its length promises this many frames, or bytes, or more.
UNKNOWN_FRAMES = 1 << 40
UNKNOWN_BYTES = 0x7FFFF000


def decode(data: bytes) -> dict[str, Any]:
    """``{"array": float32 [n], "sampling_rate": hertz}``, the mean of the channels; whole numbers are scaled to -1...1.

    The header is read first, and sound is read by blocks, so that one that lies cannot fill the memory. Raises
    SampleError for sounds that are too long, empty, or not finite, and for a header that promises other than follows.
    """
    _check_riff(data)
    _check_ogg(data)
    try:
        file = _Forward(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise SampleError(f"not a sound that can be read ({error.error_string.rstrip('.')})") from None
    with file:
        _check_header(file)
        blocks, frames = [], 0
        while len(block := _block(file)):
            frames += len(block)
            if frames > min(MAX_FRAMES, MAX_SECONDS * file.samplerate):
                raise _too_long(frames, file.samplerate)
            blocks.append(block)
        promised, rate = file.frames, file.samplerate
    if promised < UNKNOWN_FRAMES and frames != promised:
        raise SampleError(f"the header promises {promised} frames, but {frames} can be read")
    if not frames:
        raise SampleError("the sound is empty")
    array = np.concatenate(blocks)
    if not np.isfinite(array).all():
        raise SampleError("the sound has values that are not finite in float32")
    if (loudest := float(np.abs(array).max())) > LOUDEST:
        raise SampleError(f"the sound has values of up to {loudest:.1e}; floats lie from -1 to 1")
    return {"array": array, "sampling_rate": rate}


class _Forward(soundfile.SoundFile):
    """Read from front to end: soundfile seeks after every block, which FLAC of unknown length cannot."""

    def seekable(self) -> bool:
        """No."""
        return False


def _check_riff(data: bytes) -> None:
    """libsndfile takes a WAV file that was cut off for a shorter one. The size of the whole is not asked: recorders
    get it wrong by some bytes, and what is cut off after the sound is not missed."""
    if data[:4] != b"RIFF":
        return
    place = 12
    for _ in range(MAX_CHUNKS):
        name, promised = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8
        if name == b"data" and len(data) - place < promised < UNKNOWN_BYTES:
            raise SampleError(f"the header promises {promised} bytes of sound, but {max(0, len(data) - place)} follow")
        if name in (b"data", b""):
            return
        place += promised + promised % 2


def _check_ogg(data: bytes) -> None:
    """libsndfile leaves out the last page of an Ogg file that was cut off."""
    last = data.rfind(b"OggS") if data[:4] == b"OggS" else -1
    if last < 0:
        return
    sizes = data[last + 27 : last + 27 + int.from_bytes(data[last + 26 : last + 27])]
    promised, follow = sum(sizes), len(data) - last - 27 - len(sizes)
    if len(data) < last + 27 or follow < promised:
        raise SampleError(f"the last page promises {promised} bytes, but {max(0, follow)} follow: it was cut off")


def _check_header(file: Any) -> None:
    if file.format not in FORMATS:
        raise SampleError(f"a sound of format {file.format}: use WAV, FLAC, Ogg or MP3")
    if file.channels > MAX_CHANNELS:
        raise SampleError(f"{file.channels} channels are more than {MAX_CHANNELS}")
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise SampleError(f"a sampling rate of {file.samplerate} Hz lies outside {MIN_RATE} to {MAX_RATE}")
    if MAX_FRAMES < file.frames < UNKNOWN_FRAMES or MAX_SECONDS * file.samplerate < file.frames < UNKNOWN_FRAMES:
        raise _too_long(file.frames, file.samplerate)


def _too_long(frames: int, rate: int) -> SampleError:
    limit = min(MAX_SECONDS, MAX_FRAMES / rate)
    return SampleError(f"{frames / rate:.0f} seconds at {rate} Hz are more than {limit:.0f}: cut it into parts")


def _block(file: Any) -> np.ndarray:
    """The next frames, mixed to one channel: float32 [n], n = 0 at the end. Raises SampleError for damaged sound."""
    try:
        values = file.read(BLOCK_VALUES // file.channels, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise SampleError(f"the sound cannot be read to its end ({error.error_string.rstrip('.')})") from None
    with np.errstate(over="ignore", invalid="ignore"):
        return values[:, 0] if file.channels == 1 else values.mean(axis=1, dtype=np.float32)
