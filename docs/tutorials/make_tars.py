"""Tars as img2dataset writes them, of drawn pictures: KEY.jpg, KEY.txt, KEY.json and, as others have them, KEY.cls.

    python make_tars.py FOLDER PICTURES [--first NUMBER] [--gaps]

--first: number of the first picture. --gaps: every tenth sample has no caption.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path

from make_photos import SHAPES, picture

TARS = 4


def sample(number: int) -> dict[str, bytes]:
    """The members of one sample, by extension."""
    image, caption = picture(number)
    shape = next(name for name in SHAPES if name in caption)
    url, alt = f"https://example.org/{number}.jpg", [f"{shape}, drawn", f"picture of a {shape}"]
    page = {"url": url, "caption": caption, "alt": alt}
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    label = str(SHAPES.index(shape))
    return {
        "jpg": buffer.getvalue(),
        "txt": caption.encode(),
        "json": json.dumps(page).encode(),
        "cls": label.encode(),
    }


def write_tar(path: Path, numbers: range, gaps: bool) -> None:
    """One tar, whose keys start at 0."""
    with tarfile.open(path, "w") as tar:
        for key, number in enumerate(numbers):
            for extension, content in sample(number).items():
                if gaps and extension == "txt" and key % 10 == 9:
                    continue
                member = tarfile.TarInfo(f"{key:06d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def main() -> None:
    """Write the tars that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pictures", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--gaps", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for tar in range(TARS):
        start, end = (options.first + options.pictures * number // TARS for number in (tar, tar + 1))
        write_tar(options.folder / f"{tar:05d}.tar", range(start, end), options.gaps)


if __name__ == "__main__":
    main()
