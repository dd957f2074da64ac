"""Texts that are no samples: the same embeddings on any number of ranks, ragged shares, and all captions of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmpretrain.config.kind import Kind
from mmpretrain.data.index import build_index, load_index
from mmpretrain.data.members import Holders, Members
from mmpretrain.data.reader import Reader
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.same_items import with_captions, with_same
from mmpretrain.evaluation.texts import embed_own_texts, embed_texts
from tests.data.tars import write_tar
from tests.rank_pool import Ranks

CPU = torch.device("cpu")
TEXTS = [f"text {number}" for number in range(11)]


class Speaker(nn.Module):
    """Embeds a text as its length and its last letter; of the text 'bad' nothing finite."""

    def forward(self, caption: dict[str, Tensor]) -> SimpleNamespace:
        """[b, 2]."""
        values = caption["values"]
        return SimpleNamespace(embeds={"caption": torch.where(values[:, :1] == 3, torch.nan, values)})


def processed(caption: Sequence[str]) -> Mapping[str, Mapping[str, Tensor]]:
    """[b, 2] of texts."""
    return {"caption": {"values": torch.tensor([[len(text), ord(text[-1])] for text in caption], dtype=torch.float32)}}


def spoken(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), ord(text[-1])] for text in texts], np.float32)


def embedded(batch: int) -> np.ndarray:
    """All texts, on the ranks that there are."""
    return embed_texts(Speaker(), processed, ["caption"], TEXTS, World.current(), CPU, batch)["caption"]


@pytest.mark.parametrize(("size", "batch"), [(1, 4), (2, 3), (3, 256)])
def test_texts_are_embedded_in_order_on_any_number_of_ranks(ranks: Ranks, size: int, batch: int) -> None:
    for found in ranks(size, embedded, batch) if size > 1 else [embedded(batch)]:
        assert np.array_equal(found, spoken(TEXTS))


def own(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each rank's own texts."""
    world = World.current()
    mine = TEXTS[: counts[world.rank]]
    return embed_own_texts(Speaker(), processed, "caption", mine, world, CPU, batch=2)


def test_ranks_may_have_different_numbers_of_texts_and_one_none(ranks: Ranks) -> None:
    for rows, counts in ranks(2, own, [0, 5]):
        assert counts.tolist() == [0, 5] and np.array_equal(rows, spoken(TEXTS[:5]))


def test_no_texts_and_embeddings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="no texts for caption"):
        own([0])
    with pytest.raises(ValueError, match="caption are not finite for 1 of 2 texts"):
        embed_texts(Speaker(), processed, ["caption"], ["good", "bad"], World.single(), CPU)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five samples: pictures by bytes, and captions in JSON lists; the third has none, the last one a broken list."""
    folder = tmp_path_factory.mktemp("captions")
    texts = ['["a", "bb"]', '["ccc "]', "[]", '["dddd", "e", "ff"]', "[not json"]
    pictures = [b"x", b"y", b"x", b"z", b"y"]
    members = [(f"k{n}.{end}", content) for n in range(5) for end, content in _ends(pictures[n], texts[n])]
    write_tar(folder / "000.tar", members)
    build_index(folder)
    return folder


def _ends(picture: bytes, text: str) -> list[tuple[str, bytes]]:
    return [("image.png", picture), ("caption.json", text.encode())]


def found_in(folder: Path) -> Embeddings:
    members = Members({"image": Holders(("image.png",)), "caption": Holders(("caption.json",))})
    reader = Reader(load_index(folder), members=members)
    world, rows = World.current(), np.zeros((5, 2), np.float32)
    made = Embeddings(np.arange(5), {"image": rows, "caption": rows})
    made = with_same(made, "image", reader, world)

    def embed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return embed_own_texts(Speaker(), processed, "caption", texts, world, CPU, 2)

    return with_captions(made, "caption", Kind.text, reader, embed, world)


@pytest.mark.parametrize("size", [1, 2])
def test_captions_and_equal_pictures_of_a_split(ranks: Ranks, shards: Path, size: int) -> None:
    for found in ranks(size, found_in, shards) if size > 1 else [found_in(shards)]:
        same = found.same["image"]
        assert [same[0] == same[2], same[1] == same[4], len(set(same.tolist()))] == [True, True, 3]
        assert found.captions["caption"].owners.tolist() == [0, 0, 1, 3, 3, 3]
        assert found.present["caption"].tolist() == [True, True, False, True, False]
        assert found.captions["caption"].embeds[:, 0].tolist() == [1, 2, 4, 4, 1, 2]
