"""Data as people have it: small folders of tars, each with one peculiarity, and what must become of it."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.tars import write_tar

Content = dict[str, bytes]  # what follows the key -> bytes
COLORS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 210), "grey": (120, 120, 120)}


def picture(number: int, form: str = "PNG") -> bytes:
    """A colored block on noise, at a place of its own."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 60, (20, 28, 3)).astype(np.uint8)
    row, column = rng.integers(0, 10), rng.integers(0, 18)
    pixels[row : row + 10, column : column + 10] = list(COLORS.values())[number % 4]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def caption(number: int) -> str:
    """What is true of the picture."""
    return f"a {list(COLORS)[number % 4]} block, number {number}"


def plain(number: int) -> Content:
    """KEY.image.png and KEY.caption.txt."""
    return {"image.png": picture(number), "caption.txt": caption(number).encode()}


def downloaded(number: int) -> Content:
    """As img2dataset writes a sample."""
    meta = {"caption": caption(number), "url": f"https://example.org/{number}", "width": 28}
    return {"jpg": picture(number, "JPEG"), "txt": caption(number).encode(), "json": json.dumps(meta).encode()}


def write(folder: Path, sample: Callable[[int], Content], count: int = 32, name: str = "0.tar") -> None:
    """A tar of so many samples."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tar(folder / name, [(f"{n:04d}.{end}", data) for n in range(count) for end, data in sample(n).items()])


def both(root: Path, sample: Callable[[int], Content], count: int = 32) -> None:
    """Train and test."""
    write(root / "train", sample, count)
    write(root / "test", lambda number: sample(number + count), 16)


def without(every: int, end: str, instead: bytes | None = None) -> Callable[[int], Content]:
    """Plain samples of which every n-th has no such member, or another one in its place."""

    def sample(number: int) -> Content:
        content = plain(number)
        if number % every == 0:
            content.pop(end)
            content |= {} if instead is None else {end: instead}
        return content

    return sample


@dataclass(frozen=True)
class Case:
    """make: writes the folder. tokens: what the user says beside method and path. problem: words of the refusal, None:
    it trains. notes: words that the plan shows. says: what the tokens are then, for the run."""

    make: Callable[[Path], None]
    problem: str | None = None
    notes: tuple[str, ...] = ()
    tokens: tuple[str, ...] = field(default=())


def _gz(root: Path) -> None:
    both(root, plain)
    (root / "train" / "1.tar.gz").write_bytes(gzip.compress((root / "train" / "0.tar").read_bytes(), 1))


def _mac(root: Path) -> None:
    both(root, plain)
    (root / "train" / "._0.tar").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4072))
    (root / "train" / ".DS_Store").write_bytes(bytes(512))


def _two_downloads(root: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write(root / "train", plain, 16, name)


def _sub_folders(root: Path) -> None:
    write(root / "train", plain)
    write(root / "train" / "part2", plain)


def _strange_keys(root: Path) -> None:
    keys = ("nbsp\u00a0a", "ideographic\u3000b", "joiner\u200dc", "soft\u00add", "narrow\u202fe")
    (root / "train").mkdir(parents=True)
    members = [(f"{key}.{end}", data) for n, key in enumerate(keys) for end, data in plain(n).items()]
    write_tar(root / "train" / "0.tar", members)


def _lists(number: int) -> Content:
    texts = [caption(number), f"block {number}"]
    return {"image.png": picture(number), "caption.json": json.dumps(texts).encode()}


def _classes(number: int) -> Content:
    return downloaded(number) | {"cls": str(number % 4).encode()}


def _hundred(number: int) -> Content:
    """A few captions are too wrong for the usual share of bad samples."""
    return without(10, "caption.txt", b"")(number)


CASES = {
    "plain": Case(lambda root: both(root, plain), notes=("image (image)", "caption (text)")),
    "img2dataset": Case(lambda root: both(root, downloaded), notes=("which holds jpg, json, txt",)),
    "flat": Case(lambda root: write(root, downloaded), notes=("has no test/, so nothing is evaluated",)),
    "train_only": Case(lambda root: write(root / "train", plain), notes=("has no test/",)),
    "two_downloads": Case(_two_downloads),
    "captions_in_json": Case(
        lambda root: both(root, lambda n: {"image.png": picture(n), "caption.json": b'{"caption": "a %d"}' % n})
    ),
    "lists_of_captions": Case(lambda root: both(root, _lists)),
    "several_members": Case(
        lambda root: both(root, downloaded),
        tokens=(
            "data.modalities.caption.member=[txt, json]",
            "data.modalities.caption.field=caption",
            "data.modalities.caption.weights=[1]",
        ),
    ),
    "labels_as_cls": Case(lambda root: both(root, _classes), tokens=("data.classes=4",)),
    "labels_not_asked_for": Case(
        lambda root: both(root, _classes), notes=("labels lie in cls: they are used if data.classes",)
    ),
    "too_many_labels": Case(lambda root: both(root, _classes), "class 3 is not below", tokens=("data.classes=3",)),
    "images_and_labels_alone": Case(
        lambda root: both(root, lambda n: {"jpg": picture(n, "JPEG"), "cls": b"1"}),
        "holds cls, jpg: only image (image) is known to be a modality by its name, and contrastive pretraining needs",
    ),
    "gz_beside": Case(_gz, "1.tar.gz would not be read"),
    "gz_ignored": Case(_gz, notes=("1.tar.gz would not be read",), tokens=("data.unread=ignore",)),
    "sub_folders": Case(_sub_folders, "part2/0.tar would not be read"),
    "mac": Case(_mac),
    "strange_keys": Case(_strange_keys),
    "missing_captions": Case(
        lambda root: both(root, without(8, "caption.txt")), "4 of 32 samples have no caption (first: key '0000'"
    ),
    "missing_captions_dropped": Case(
        lambda root: both(root, without(8, "caption.txt")),
        notes=("28 samples are left, without the incomplete ones (no caption: 4)",),
        tokens=("data.incomplete=drop",),
    ),
    "empty_captions": Case(lambda root: both(root, _hundred), "4 of 32 samples have empty caption"),
    "byte_order_mark": Case(
        lambda root: both(root, lambda n: plain(n) | {"caption.txt": "\ufeff".encode() + caption(n).encode()})
    ),
    "images_of_several_forms": Case(
        lambda root: both(root, lambda n: plain(n) if n % 2 else {"image.gif": picture(n, "GIF"), "caption.txt": b"a"})
    ),
    "invisible_captions": Case(
        lambda root: both(root, without(8, "caption.txt", "\u200b".encode())),
        "4 of 32 samples of train that were looked into cannot be used (first: key '0000': caption.txt: the text is",
    ),
    "pages_instead_of_images": Case(
        lambda root: both(root, without(8, "image.png", b"<!DOCTYPE html><html>404</html>")),
        "not an image (starts with `<!DOCTYPE html",
    ),
    "two_images": Case(
        lambda root: both(root, lambda n: plain(n) | {"image.jpg": picture(n, "JPEG")}),
        "32 of 32 samples have several image (first: key '0000' in 0.tar)",
    ),
    "smaller_than_the_batch": Case(
        lambda root: both(root, plain, 8), notes=("train has 8 samples and data.global_batch is 16",)
    ),
    "text_called_an_image": Case(
        lambda root: both(root, plain),
        "data.modalities.caption is a image (",
        tokens=("data.modalities.caption.kind=image", "data.modalities.caption.size=64"),
    ),
    "a_member_that_is_not_there": Case(
        lambda root: both(root, downloaded),
        "no member of the shards holds data.modalities.caption.member=[alt]; they have jpg, json, txt",
        tokens=("data.modalities.caption.member=alt",),
    ),
}
"""By name; each is a kind of which others exist."""

SMALL = (
    "method=clip",
    "data.global_batch=16",
    "train.samples=32",
    "evaluation.batch=16",
    "tracking.tensorboard=off",
    "tracking.pictures=false",
    "model.embed_dim=16",
    *(
        f"model.encoders.{name}.config.{key}={value}"
        for name in ("image", "caption")
        for key, value in (("num_hidden_layers", 1), ("hidden_size", 48), ("intermediate_size", 48))
    ),
)
"""A tiny run on any of them."""
