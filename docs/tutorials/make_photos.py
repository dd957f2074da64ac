"""Draw captioned pictures as a stand-in for photos: FOLDER/images/00000.jpg ... and FOLDER/metadata.csv.

python make_photos.py photos 2000
python make_photos.py night 300 9000 --night     # from number 9000 on, as a camera sees them at night
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance

COLORS = {
    "red": (215, 45, 45),
    "orange": (240, 145, 35),
    "yellow": (235, 215, 60),
    "green": (50, 165, 75),
    "blue": (55, 95, 215),
    "purple": (145, 65, 185),
    "pink": (240, 150, 190),
    "brown": (130, 85, 50),
}
GROUNDS = {"white": (250, 250, 250), "black": (20, 20, 20), "gray": (130, 130, 130), "sand": (225, 205, 165)}
SHAPES = ("circle", "square", "triangle", "ring", "cross", "star")
SIZES = {"small": 14, "large": 26}
PLACES = {"on the left": 32, "in the middle": 64, "on the right": 96}
STAR = [(0, -1), (0.3, -0.3), (1, 0), (0.3, 0.3), (0, 1), (-0.3, 0.3), (-1, 0), (-0.3, -0.3)]


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, x: int, y: int, radius: int, color: tuple[int, int, int]) -> None:
    """One shape around x, y, in pixels."""
    box = (x - radius, y - radius, x + radius, y + radius)
    third = radius // 3
    if shape == "circle":
        draw.ellipse(box, fill=color)
    elif shape == "square":
        draw.rectangle(box, fill=color)
    elif shape == "ring":
        draw.ellipse(box, outline=color, width=third + 1)
    elif shape == "cross":
        draw.rectangle((x - radius, y - third, x + radius, y + third), fill=color)
        draw.rectangle((x - third, y - radius, x + third, y + radius), fill=color)
    elif shape == "triangle":
        draw.polygon([(x - radius, y + radius), (x + radius, y + radius), (x, y - radius)], fill=color)
    else:
        draw.polygon([(x + a * radius, y + b * radius) for a, b in STAR], fill=color)


def picture(number: int) -> tuple[Image.Image, str]:
    """The picture of this number, 128 x 96, and its caption."""
    chance = random.Random(number)
    color, ground, shape = chance.choice(list(COLORS)), chance.choice(list(GROUNDS)), chance.choice(SHAPES)
    size, place = chance.choice(list(SIZES)), chance.choice(list(PLACES))
    image = Image.new("RGB", (128, 96), GROUNDS[ground])
    x, y = PLACES[place] + chance.randint(-5, 5), 48 + chance.randint(-18, 18)
    draw_shape(ImageDraw.Draw(image), shape, x, y, SIZES[size] + chance.randint(-2, 2), COLORS[color])
    return image, f"a {size} {color} {shape} {place}, {ground} ground"


def at_night(image: Image.Image, number: int) -> Image.Image:
    """Dark, without most of its color, and grainy."""
    grain = Image.frombytes("L", image.size, random.Random(number).randbytes(image.width * image.height))
    gray = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(0.4)).enhance(0.25)
    return Image.blend(gray, Image.merge("RGB", [grain] * 3), 0.12)


def main(folder: Path, pictures: int, first: int = 0, *, night: bool = False) -> None:
    """Write the pictures and the table of their captions."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "caption"])
        for number in range(first, first + pictures):
            image, caption = picture(number)
            image = at_night(image, number) if night else image
            image.save(folder / "images" / f"{number:05d}.jpg", quality=90)
            table.writerow([f"images/{number:05d}.jpg", caption])


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--night"]
    main(Path(words[0]), *map(int, words[1:]), night="--night" in sys.argv)
