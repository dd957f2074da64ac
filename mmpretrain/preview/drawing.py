"""Pictures, arrays and sounds as HTML that needs no other file: everything is inside, as data URIs.

Whatever comes from a data set is escaped here, or by the template; :class:`Markup` is what is HTML already.
"""

from __future__ import annotations

import base64
import io
import wave

import numpy as np
from markupsafe import Markup
from PIL import Image

LARGEST = 320  # pixels of a picture's longer side in the page
SMALL = 64  # pictures up to this size are enlarged, without smoothing, and stored without loss
ENLARGED = 112
WAVE_SIZE = (320, 72)
WINDOW, QUIETEST = 512, 80.0  # samples of a spectrum; decibels below the loudest that are white
LONGEST_SOUND_S = 30.0  # of which a player is made; longer ones are cut
# From the most negative value through zero to the most positive one.
_COLORS = np.array([[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]], float)
_SIGNED = np.linspace(-1, 1, len(_COLORS))
_DEEP = ("I", "F")  # and whatever starts with I;


def picture(image: Image.Image, says: str, largest: int = LARGEST, quality: int = 90) -> Markup:
    """An image as it is, transparent parts on a checkerboard. says: what it is, for those who cannot see it.

    largest: pixels of the longer side. quality: of JPEG, which pictures of more than SMALL pixels become.
    """
    image = _eight_bits(image)
    small = max(image.size) <= SMALL
    stored = image.copy()
    if not small:
        stored.thumbnail((largest, largest))
    lossless = small or stored.mode == "RGBA"
    file = io.BytesIO()
    stored.save(file, "PNG") if lossless else stored.save(file, "JPEG", quality=quality)
    factor = max(1, ENLARGED // max(image.size)) if small else 1
    width, height = (side * factor for side in stored.size)
    return Markup('<img class="{}" width="{}" height="{}" alt="{}" title="{}" src="{}">').format(
        "pixels" if small else "photo", width, height, says, says, _uri("png" if lossless else "jpeg", file)
    )


def heat_map(values: np.ndarray, says: str) -> Markup:
    """An array [n] or [n, m] in colors, blue below zero and red above; the longer side lies across."""
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    rows = rows.T if rows.shape[0] > rows.shape[1] else rows
    rows = np.nan_to_num(rows)
    scaled = rows / (np.abs(rows).max() or 1.0)
    colors = np.stack([np.interp(scaled, _SIGNED, _COLORS[:, channel]) for channel in range(3)], axis=-1)
    image = Image.fromarray(colors.astype(np.uint8))
    shown = image.resize((LARGEST, min(LARGEST, max(16, LARGEST * image.height // image.width))), Image.Resampling.BOX)
    file = io.BytesIO()
    (shown if image.width > LARGEST else image).save(file, "PNG")
    return Markup('<img class="pixels" width="{}" height="{}" alt="{}" title="{}" src="{}">').format(
        *shown.size, says, says, _uri("png", file)
    )


def waveform(values: np.ndarray, says: str) -> Markup:
    """A long row of numbers [n] as the band between its least and greatest value at every place."""
    width, height = WAVE_SIZE
    values = np.asarray(values, dtype=np.float64)
    edges = np.linspace(0, len(values), min(width, len(values)) + 1).astype(int)[:-1]
    low, high = np.minimum.reduceat(values, edges), np.maximum.reduceat(values, edges)
    most = np.abs(values).max() or 1.0
    step = width / len(edges)
    path = "".join(
        f"M{(at + 0.5) * step:.1f} {(1 - top / most) * height / 2:.1f}V{(1 - bottom / most) * height / 2 + 0.5:.1f}"
        for at, (bottom, top) in enumerate(zip(low, high, strict=True))
    )
    return Markup(
        '<svg class="wave" role="img" viewBox="0 0 {} {}" width="{}" height="{}"><title>{}</title>'
        '<path d="{}" stroke-width="{}"/></svg>'
    ).format(width, height, width, height, says, path, round(max(step, 1.0), 1))


def spectrogram(values: np.ndarray, says: str) -> Markup:
    """A mono sound [n]: time across, frequency from 0 at the bottom to half the rate at the top, in decibels."""
    values = np.pad(np.asarray(values, dtype=np.float64), (0, max(0, WINDOW - len(values))))
    starts = np.linspace(0, len(values) - WINDOW, LARGEST).astype(int)
    frames = np.stack([values[start : start + WINDOW] for start in starts]) * np.hanning(WINDOW)
    decibels = 20 * np.log10(np.abs(np.fft.rfft(frames, axis=1)) + 1e-10)
    shown = np.clip((decibels - decibels.max()) / QUIETEST + 1, 0, 1)
    image = Image.fromarray((255 - 255 * shown.T[::-1]).astype(np.uint8)).resize((LARGEST, WAVE_SIZE[1] * 2))
    file = io.BytesIO()
    image.save(file, "PNG")
    return Markup('<img width="{}" height="{}" alt="{}" title="{}" src="{}">').format(
        *image.size, says, says, _uri("png", file)
    )


def player(values: np.ndarray, rate: int) -> Markup:
    """Something to listen to: a mono sound [n] from -1 to 1 at ``rate`` samples a second."""
    samples = np.asarray(values, dtype=np.float64)[: int(LONGEST_SOUND_S * rate)]
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((np.nan_to_num(samples).clip(-1, 1) * 32767).astype("<i2").tobytes())
    content = base64.b64encode(file.getvalue()).decode()
    return Markup('<audio controls preload="none" src="data:audio/wav;base64,{}"></audio>').format(content)


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image in a mode that browsers show; of more than 8 bits, the range of the type becomes 0 to 255."""
    if image.mode.startswith("I;") or image.mode in _DEEP:
        values = np.asarray(image, dtype=np.float64)
        most = 65535.0 if values.max() > 255 else 255.0
        return Image.fromarray((values / most * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _uri(form: str, file: io.BytesIO) -> str:
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"
