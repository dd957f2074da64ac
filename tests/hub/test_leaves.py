"""Connections to one unprojected space, joined: every embedding is what it was, and what does not fit is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from mmpretrain.cli import app
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.model import ConnectedSpace, ProjectorsConfig
from mmpretrain.hub.leaves import Leaf, join_leaves, read_alike
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import verify_release
from tests.methods.test_cmcr_release import WIDTHS, connection, embeds, ship, space
from tests.models.small import small_samples

KEPT = ProjectorsConfig(unprojected=ConnectedSpace.first)
PROTEINS = ModalityConfig(Kind.vector, [4])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base (picture, caption), leaves of it with genes and with proteins, and one of another base."""
    root = tmp_path_factory.mktemp("leaves")
    width = WIDTHS[ConnectedSpace.second]
    bases = {
        name: space(root / name, ("picture", "caption"), WIDTHS[ConnectedSpace.first], seed)
        for name, seed in (("base", 0), ("other", 5))
    }
    space(root / "genes", ("caption", "genes"), width, 1)
    space(root / "proteins", ("caption",), width, 2, proteins=PROTEINS)
    for name, base, second, projectors in (
        ("one", "base", "genes", KEPT),
        ("two", "base", "proteins", KEPT),
        ("elsewhere", "other", "proteins", KEPT),
        ("projected", "base", "proteins", ProjectorsConfig()),
    ):
        ship(connection(projectors, first=str(bases[base]), second=str(root / second)), root / name)
    ship(connection(KEPT, second=str(root / "proteins")), root / "vectors")
    return root


@pytest.fixture(scope="module")
def again(folders: Path) -> Path:
    """A second leaf of the same base that brings genes, by another encoder."""
    space(folders / "genes2", ("caption", "genes"), WIDTHS[ConnectedSpace.second], 7)
    ship(connection(KEPT, first=str(folders / "base"), second=str(folders / "genes2")), folders / "three")
    return folders / "three"


def test_what_two_leaves_bring_is_their_weighted_sum(folders: Path, again: Path, tmp_path: Path) -> None:
    paths = [str(folders / "one"), str(again)]
    done = CliRunner().invoke(app, ["join", *paths, "--weights=1,0.25", f"--out={tmp_path / 'summed'}"])
    assert done.exit_code == 0 and "picture, caption, genes, embeddings of 8 numbers" in done.stdout
    samples = small_samples()
    found = embeds(tmp_path / "summed", samples)
    unit = [torch.nn.functional.normalize(embeds(Path(path), samples)["genes"], dim=1) for path in paths]
    torch.testing.assert_close(found["genes"], unit[0] + 0.25 * unit[1])
    assert not torch.allclose(unit[0], unit[1], atol=0.1)
    assert torch.equal(found["picture"], embeds(folders / "one", samples)["picture"])
    assert "genes by a weighted sum" in (tmp_path / "summed" / "README.md").read_text()


def test_weights_that_cannot_act_are_refused(folders: Path, again: Path, tmp_path: Path) -> None:
    one, out = folders / "one", tmp_path / "joined"
    for leaves, weights, said in (
        ([one, again], None, "or give each connection a weight"),
        ([one, again], [1.0], "there are 1 weights for 2"),
        ([one, again], [1.0, float("nan")], "positive numbers, not nan"),
        ([one, folders / "two"], [1.0, 1.0], "would do nothing"),
    ):
        with pytest.raises(UnusableError, match=said):
            join_leaves(leaves, out, weights)
    leaf = Leaf.open(one)
    assert read_alike(leaf, Leaf.open(again), "genes")
    other = {"genes": {**leaf.processor.modalities["genes"], "minimum": [0.0], "maximum": [1.0]}}
    unlike = replace(leaf, processor=SimpleNamespace(modalities=other, reader=lambda name: None))  # type: ignore[arg-type]
    assert not read_alike(leaf, unlike, "genes")
    assert read_alike(leaf, leaf, "caption")  # with its tokenizer


def test_all_leaves_give_in_one_release_what_they_gave_apart(folders: Path, tmp_path: Path) -> None:
    join_leaves([folders / "one", folders / "two"], tmp_path / "joined")
    assert verify_release(tmp_path / "joined") == []
    samples = small_samples() | {"proteins": [[0.5] * 4, [1.0, 0.0, 0.0, -1.0]]}
    found = embeds(tmp_path / "joined", samples)
    assert list(found) == ["picture", "caption", "genes", "proteins"]
    apart = embeds(folders / "two", {name: samples[name] for name in ("picture", "caption", "proteins")})
    apart |= embeds(folders / "one", {"genes": samples["genes"]})
    base = embeds(folders / "base", {name: samples[name] for name in ("picture", "caption")})
    for name, rows in found.items():
        assert torch.equal(rows, apart[name])
        if name in base:  # the space that is kept
            torch.testing.assert_close(rows, torch.nn.functional.normalize(base[name], dim=1))


def test_the_command_names_what_does_not_fit(folders: Path, tmp_path: Path) -> None:
    for leaves, said in (
        (["one"], "nothing to be joined with"),
        (["one", "elsewhere"], "keeps another space than"),
        (["one", "projected"], "keeps no space as it is: train its connection with"),
        (["vectors", "one"], "given by its embeddings alone.* method.first set to"),
        (["one", "one"], "both bring 'genes'"),
        (["one", "nowhere"], "cannot open"),
    ):
        with pytest.raises(UnusableError, match=said):
            join_leaves([folders / name for name in leaves], tmp_path / "joined")
    paths = [str(folders / name) for name in ("one", "two")]
    done = CliRunner().invoke(app, ["join", *paths, f"--out={tmp_path / 'joined'}"])
    assert done.exit_code == 0 and "picture, caption, genes, proteins, embeddings of 8 numbers" in done.stdout
    assert "exists: remove it" in CliRunner().invoke(app, ["join", *paths, f"--out={tmp_path / 'joined'}"]).output
    with pytest.raises(UnusableError, match="joined already, of 2 connections"):
        join_leaves([tmp_path / "joined", folders / "one"], tmp_path / "again")
