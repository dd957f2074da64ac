"""Contents become members by what they are; what is not usable says why."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from shards.sources.members import MemberError, kind_of_bytes, make_member
from shards.sources.sample import Content, MemberKind
from tests.shards.drawn import picture, tone

IMAGE, AUDIO, TEXT = MemberKind.image, MemberKind.audio, MemberKind.text
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tiff"}


@pytest.mark.parametrize("form", SUFFIXES)
def test_images_are_named_by_their_content(form: str) -> None:
    data = picture(1, form)
    member = make_member(Content(IMAGE, data=data))
    assert (member.suffix, member.data, member.gray) == (SUFFIXES[form], data, False)
    assert kind_of_bytes(data[:64]) is IMAGE


def test_a_photo_of_a_phone_with_two_pictures_in_it_is_a_jpeg() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert make_member(Content(IMAGE, data=file.getvalue())).suffix == "jpg"


@pytest.mark.parametrize(
    ("start", "suffix"),
    [(tone(1), "wav"), (b"fLaC\0", "flac"), (b"OggS\0", "ogg"), (b"ID3\3", "mp3"), (b"\xff\xfb\x90", "mp3")],
)
def test_sounds_are_named_by_their_first_bytes(start: bytes, suffix: str) -> None:
    assert make_member(Content(AUDIO, data=start)).suffix == suffix and kind_of_bytes(start[:64]) is AUDIO


@pytest.mark.parametrize(
    ("texts", "suffix", "data"),
    [
        (("\ufeff a cat \n",), "txt", b"a cat"),
        (("a", "", "\u200b", "\u2800", "b"), "json", b'["a", "b"]'),
        (("", "caf\xe9"), "txt", "caf\xe9".encode()),
    ],
)
def test_texts_lose_what_shows_nothing(texts: tuple[str, ...], suffix: str, data: bytes) -> None:
    member = make_member(Content(TEXT, texts=texts))
    assert (member.suffix, member.data) == (suffix, data)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0"
UNUSABLE = [
    (Content(IMAGE, data=b"<!DOCTYPE html><html>"), "not an image (starts with `<!DOCTYPE html`)"),
    (Content(IMAGE, data=b"\0\1\2"), "not an image (starts with bytes 00 01 02)"),
    (Content(IMAGE, data=HEIC), "HEIC, which is not read here: convert it to JPEG"),
    (Content(IMAGE, data=HEIC.replace(b"heic", b"avif")), "AVIF, which is not read here: convert it to JPEG"),
    (Content(IMAGE, data=b""), "empty (0 bytes)"),
    (Content(IMAGE, data=bytes((64 << 20) + 1)), "more than 64 MiB, which training refuses (67108865 bytes)"),
    (Content(AUDIO, data=picture(1)), "not a sound (starts with bytes 89 50 4e 47 0d 0a 1a 0a)"),
    (Content(IMAGE, path=Path("gone.png")), "file is missing"),
    (Content(IMAGE, path=Path("/dev/zero")), "no file (a folder, pipe or device)"),
    (Content(IMAGE, path=Path("a\0b")), "no path (embedded null byte)"),
    (Content(TEXT, data=b"caf\xe9"), "not UTF-8 (byte 3)"),
    (Content(TEXT, texts=("\ufeff",)), "empty text"),
    (Content(TEXT, texts=("\u200b", "\0")), "empty text"),
    (Content(TEXT, texts=("a\0b",)), "text with a NUL character"),
    (Content(TEXT, texts=("\ud800",)), "text with half of a character (a lone surrogate)"),
]


@pytest.mark.parametrize(("content", "message"), UNUSABLE, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_unusable_says_why(content: Content, message: str) -> None:
    with pytest.raises(MemberError) as raised:
        make_member(content)
    assert str(raised.value) == message


def test_a_huge_image_is_refused_by_its_header() -> None:
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    with pytest.raises(MemberError, match=r"pixels \(9000 x 9000\)"):
        make_member(Content(IMAGE, data=file.getvalue()))
