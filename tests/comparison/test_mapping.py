"""Which tower takes which modality is never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.comparison.mapping import map_modalities
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.kind import Kind
from mmpretrain.data.index import Index, build_index
from mmpretrain.data.writing import write_shard
from mmpretrain.embedding.space import Space
from mmpretrain.problems import UnusableError
from tests.data.small_dataset import png


class Named(Space):
    """Towers of these names and kinds, and nothing else."""

    def __init__(self, **kinds: Kind) -> None:
        self.name, self.device, self.choices, self.sha256 = "model", torch.device("cpu"), {}, ""
        self.towers = {name: ModalityConfig(kind, [8, 4] if kind is Kind.image else []) for name, kind in kinds.items()}

    def tower_for(self, modality: str, kinds: Any) -> str | None:
        """Not asked: the mapping decides."""
        return None

    def tensors(self, tower: str, items: list[Any]) -> dict[str, torch.Tensor]:
        """Not asked."""
        raise NotImplementedError

    def features(self, tower: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Not asked."""
        raise NotImplementedError


CLIP = Named(image=Kind.image, text=Kind.text)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one`` has a photo and a caption, ``two`` also a scan."""
    root = tmp_path_factory.mktemp("shards")
    for folder, images in (("one", ["photo"]), ("two", ["photo", "scan"])):
        (root / folder).mkdir()
        sample: dict[str, Any] = {"__key__": "a", "caption.txt": b"seven"}
        write_shard(root / folder / "shard-000000.tar", [sample | {f"{name}.png": png(1, (8, 4)) for name in images}])
        build_index(root / folder)
    return root


def mapped(space: Space, shards: Path, folder: str, **asked: list[str]) -> dict[str, str]:
    """The mapping, of all modalities or of those that are asked for."""
    index: Index = build_index(shards / folder)
    return map_modalities(space, index, asked, (), ["photo", "caption"] if folder == "one" else [])


def test_a_tower_takes_the_modality_of_its_name(shards: Path) -> None:
    ours = Named(caption=Kind.text, photo=Kind.image)
    assert list(mapped(ours, shards, "two").items()) == [("caption", "caption"), ("photo", "photo")]


def test_the_only_modality_of_a_kind_needs_no_choice(shards: Path) -> None:
    assert mapped(CLIP, shards, "one") == {"photo": "image", "caption": "text"}
    assert mapped(Named(text=Kind.text), shards, "two") == {"caption": "text"}
    assert mapped(CLIP, shards, "two", scan=[], caption=[]) == {"caption": "text", "scan": "image"}


def test_what_the_data_describes_comes_before_what_else_lies_there(shards: Path) -> None:
    index = build_index(shards / "two")
    assert map_modalities(CLIP, index, {}, (), ["scan", "caption"]) == {"scan": "image", "caption": "text"}


def test_of_two_images_one_is_to_be_named(shards: Path) -> None:
    with pytest.raises(UnusableError, match=r"photo \(image\).*which image is meant.*--modalities photo=image"):
        mapped(CLIP, shards, "two")
    both = mapped(CLIP, shards, "two", photo=["image"], scan=["image"], caption=[])
    assert both == {"photo": "image", "caption": "text", "scan": "image"}


def test_other_names_beside_known_ones_mean_something_else(shards: Path) -> None:
    """A release that was trained on photos and drawings does not take scans for drawings."""
    assert mapped(Named(photo=Kind.image, drawing=Kind.image), shards, "two") == {"photo": "photo"}
    # A choice for another model's tower leaves this one to its names.
    assert mapped(Named(photo=Kind.image), shards, "two", photo=["image"]) == {"photo": "photo"}


def test_what_does_not_fit_is_said_with_both_sides(shards: Path) -> None:
    with pytest.raises(UnusableError, match=r"'smell': the shards hold .*, and model embeds image \(image\)"):
        mapped(CLIP, shards, "one", smell=[])
    with pytest.raises(UnusableError, match="'caption' holds text, and the tower 'image' takes image"):
        mapped(CLIP, shards, "one", caption=["image"])
    with pytest.raises(UnusableError, match="say which is which, --modalities"):
        mapped(Named(sound=Kind.audio), shards, "one")
    index = build_index(shards / "one")
    with pytest.raises(UnusableError, match="no tower for 'photo' of --pair photo,caption"):
        map_modalities(Named(text=Kind.text), index, {}, ("photo", "caption"), ["photo", "caption"])
