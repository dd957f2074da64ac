"""Write captioned sounds of one second: FOLDER/sounds/00000.wav ... and FOLDER/metadata.csv.

    python make_sounds.py tones 1000 [--pictures]

--pictures: also a picture of each, FOLDER/pictures/00000.png, whose line goes up and down with the pitch.
"""

from __future__ import annotations

import argparse
import csv
import random
import wave
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

RATE = 16_000
PITCHES = {"low": 220.0, "middle": 660.0, "high": 1980.0}
MOVES = {"steady": (1.0, 1.0), "rising": (0.7, 1.4), "falling": (1.4, 0.7)}
TIMBRES = ("pure", "buzzing", "noisy")
PULSES = {"unbroken": 0, "slowly beating": 3, "quickly beating": 9}


def sound(number: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The waveform of this number, float64 [RATE] within -1 and 1, its pitch in Hz at every point, its caption."""
    chance = random.Random(number)
    pitch, move, timbre, pulse = (chance.choice(list(choices)) for choices in (PITCHES, MOVES, TIMBRES, PULSES))
    start, end = MOVES[move]
    frequency = PITCHES[pitch] * chance.uniform(0.9, 1.1) * np.geomspace(start, end, RATE)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    tone = np.sign(np.sin(phase)) * 0.5 if timbre == "buzzing" else np.sin(phase)
    if timbre == "noisy":
        tone = 0.6 * tone + np.random.default_rng(number).normal(0, 0.15, RATE)
    time = np.arange(RATE) / RATE
    envelope = 0.55 + 0.45 * np.cos(2 * np.pi * PULSES[pulse] * time)
    caption = f"a {pitch} {move} tone, {timbre} and {pulse}"
    return np.clip(tone * envelope * chance.uniform(0.3, 0.9), -1, 1), frequency, caption


def write_wav(path: Path, tone: np.ndarray) -> None:
    """One channel, 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((tone * 32767).astype("<i2").tobytes())


def line(frequency: np.ndarray) -> Image.Image:
    """The pitch as a line from left to right, 64 x 64."""
    image = Image.new("RGB", (64, 64), "white")
    heights = 60 - 56 * np.log2(frequency[::1000] / 120) / np.log2(4000 / 120)
    points = list(zip(np.linspace(2, 61, len(heights)), heights, strict=True))
    ImageDraw.Draw(image).line([(float(x), float(y)) for x, y in points], fill=(30, 80, 200), width=4)
    return image


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sounds", type=int)
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args()
    for name in ("sounds", "pictures") if options.pictures else ("sounds",):
        (options.folder / name).mkdir(parents=True, exist_ok=True)
    with (options.folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["sound_file_name", *(["picture_file_name"] if options.pictures else []), "caption"])
        for number in range(options.sounds):
            tone, frequency, caption = sound(number)
            files = [f"sounds/{number:05d}.wav"]
            write_wav(options.folder / files[0], tone)
            if options.pictures:
                files.append(f"pictures/{number:05d}.png")
                line(frequency).save(options.folder / files[1])
            table.writerow([*files, caption])


if __name__ == "__main__":
    main()
