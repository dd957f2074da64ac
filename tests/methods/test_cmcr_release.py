"""Releases of connections: both spaces with their projectors, opened anywhere; chains; what does not fit is named."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.names import ClipConfig, CmcrConfig
from mmpretrain.config.model import ConnectedSpace, ModelConfig, ProjectorForm, ProjectorsConfig, ProjectorStart
from mmpretrain.config.root import Config
from mmpretrain.data.info import DatasetInfo
from mmpretrain.hub.export import export_release
from mmpretrain.methods.build import build_method
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import verify_release, weights_sha256
from mmpretrain.training import preflight
from tests.hub.test_card import facts
from tests.models.small import fresh_interpreter, small_config, small_samples

WIDTHS = {ConnectedSpace.first: 8, ConnectedSpace.second: 6}
OPEN = """
import pickle
import torch
from transformers import AutoModel, AutoProcessor
torch.set_num_threads(1)
samples, expected = pickle.load(open(sys.argv[2], "rb"))
model, info = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
with torch.no_grad():
    embeds = model(**AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)(**samples)).embeds
assert embeds.keys() == expected.keys()
assert all(torch.equal(embeds[name], rows) for name, rows in expected.items())
"""


def space(folder: Path, modalities: tuple[str, ...], width: int, seed: int, **others: ModalityConfig) -> Path:
    """A release of the small model with these of its modalities, and others in encoders like its own."""
    config = small_config(embed_dim=width)
    encoders = {modality.kind: config.model.encoders[name] for name, modality in config.data.modalities.items()}
    config.data.modalities = {name: config.data.modalities[name] for name in modalities} | others
    config.model.encoders = {name: encoders[modality.kind] for name, modality in config.data.modalities.items()}
    torch.manual_seed(seed)
    model = build_model(config).eval()
    export_release(model, model.state_dict(), build_processor(config), folder, facts(method="clip"))
    return folder


def connection(projectors: ProjectorsConfig | None = None, path: str = "nowhere", **settings: Any) -> Config:
    """A config that connects a space of width 8 and one of width 6."""
    roles = ("shared", "partner")
    modalities = {f"{s}_{r}": ModalityConfig(Kind.vector, [WIDTHS[s]]) for s in ConnectedSpace for r in roles}
    return Config(
        method=CmcrConfig(**settings),
        data=DataConfig("pairs", path, modalities=modalities),
        model=ModelConfig(projectors=projectors or ProjectorsConfig()),
    )


def ship(config: Config, folder: Path) -> MMPretrainModel:
    """Export a connection whose batch norms have seen some rows; the model as it trained, in evaluation mode."""
    torch.manual_seed(3)
    method = build_method(config)
    rows = {name: {"values": torch.randn(32, m.size[0])} for name, m in config.data.modalities.items()}
    method.model(**rows)
    shipped = method.ship(method.model.state_dict(), build_processor(config))
    export_release(shipped.model, shipped.state, shipped.processor, folder, facts(method="cmcr"))
    return method.model.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Releases of (picture, caption) and of (caption, genes), and one that connects them."""
    root = tmp_path_factory.mktemp("releases")
    found = {
        "first": space(root / "first", ("picture", "caption"), WIDTHS[ConnectedSpace.first], 0),
        "second": space(root / "second", ("caption", "genes"), WIDTHS[ConnectedSpace.second], 1),
        "whole": root / "whole",
    }
    ship(connection(first=str(found["first"]), second=str(found["second"])), found["whole"])
    return found


@torch.no_grad()
def embeds(folder: Path, samples: dict[str, Any]) -> dict[str, Tensor]:
    """What a release makes of raw samples, by the classes of this installation."""
    model = MMPretrainModel.from_pretrained(folder).eval()
    return model(**MMPretrainProcessor.from_pretrained(folder)(**samples)).embeds


@pytest.mark.parametrize(("form", "count"), [(ProjectorForm.two_layer, 2_106_368), (ProjectorForm.half, 527_360)])
def test_published_sizes(form: ProjectorForm, count: int) -> None:
    config = connection(ProjectorsConfig(form))
    for modality in config.data.modalities.values():
        modality.size = [512]
    assert sum(p.numel() for p in build_model(config).parameters()) == count


def test_matrices_start_as_they_are_told() -> None:
    for start in ProjectorStart:
        model = build_model(connection(ProjectorsConfig(start=start)))
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                bound = (6 / sum(layer.weight.shape)) ** 0.5
                identity = start is ProjectorStart.identity
                assert torch.equal(layer.weight, torch.eye(*layer.weight.shape)) == identity
                assert not layer.bias.any() and (identity or 0.9 * bound < layer.weight.abs().max() <= bound)


@pytest.mark.processes
def test_a_connection_opens_where_this_package_is_absent(tmp_path: Path, folders: dict[str, Path]) -> None:
    samples = small_samples()
    expected = embeds(folders["whole"], samples)
    assert {name: tuple(rows.shape) for name, rows in expected.items()} == dict.fromkeys(samples, (2, 8))
    (tmp_path / "expected.pkl").write_bytes(pickle.dumps((samples, expected)))
    fresh_interpreter(OPEN, tmp_path, str(folders["whole"]), str(tmp_path / "expected.pkl"), ours=False)
    assert verify_release(folders["whole"]) == []


def test_it_is_the_spaces_and_the_trained_projectors(tmp_path: Path, folders: dict[str, Path]) -> None:
    sides = {space.value: folders[space.value] for space in ConnectedSpace}
    trained = ship(connection(first=str(sides["first"]), second=str(sides["second"])), tmp_path / "again")
    whole = MMPretrainModel.from_pretrained(tmp_path / "again").state_dict()
    for side, folder in sides.items():
        assert verify_release(folder) == []
        for key, tensor in MMPretrainModel.from_pretrained(folder).state_dict().items():
            assert torch.equal(whole[f"connection.spaces.{side}.{key}"], tensor)
    samples = small_samples()
    found = embeds(tmp_path / "again", samples)
    for name, side in (("picture", "first"), ("caption", "first"), ("genes", "second")):
        inner = embeds(folders[side], {name: samples[name]})[name]
        with torch.no_grad():
            expected = trained(**{f"{side}_partner": {"values": 3 * inner}}).embeds[f"{side}_partner"]
        torch.testing.assert_close(found[name], expected)
    assert all(name.startswith("connection.projectors") for name, _ in trained.named_parameters())


def test_the_common_modality_goes_through_the_space_that_is_asked_for(tmp_path: Path, folders: dict[str, Path]) -> None:
    config = connection(
        first=str(folders["first"]), second=str(folders["second"]), shared_through=ConnectedSpace.second
    )
    ship(config, tmp_path / "release")
    model = MMPretrainModel.from_pretrained(tmp_path / "release")
    assert model.connection is not None
    assert model.connection.inputs == {"picture": "first", "caption": "second", "genes": "second"}
    samples = small_samples()
    other, usual = (embeds(folder, samples) for folder in (tmp_path / "release", folders["whole"]))
    assert torch.equal(other["genes"], usual["genes"]) and not torch.allclose(other["caption"], usual["caption"])


def test_spaces_are_frozen_and_never_leave_evaluation_mode(folders: dict[str, Path]) -> None:
    model = MMPretrainModel.from_pretrained(folders["whole"])
    connected = model.connection
    assert connected is not None
    assert not any(p.requires_grad for p in connected.spaces.parameters())
    for training in (False, True):
        assert model.train(training) is model
        assert connected.projectors.training == training and not connected.spaces.training
        assert all(p.requires_grad for p in connected.projectors.parameters())
        assert not any(p.requires_grad for p in connected.spaces.parameters())


def test_without_releases_embeddings_are_passed(tmp_path: Path, folders: dict[str, Path]) -> None:
    trained = ship(connection(ProjectorsConfig(unprojected=ConnectedSpace.second)), tmp_path / "release")
    rows = torch.randn(4, 6)
    found = embeds(tmp_path / "release", {"second": rows.numpy(), "first": torch.zeros(1, 8).numpy()})
    torch.testing.assert_close(found["second"], nn.functional.normalize(rows, dim=1))
    assert list(found) == ["first", "second"] and trained.embed_sizes["first_shared"] == 6


def test_one_release_and_one_space_of_embeddings(tmp_path: Path, folders: dict[str, Path]) -> None:
    ship(connection(first=str(folders["first"])), tmp_path / "release")
    samples = {"picture": small_samples()["picture"], "second": [[0.5] * 6, [1.0, *[0.0] * 5]]}
    assert {name: tuple(rows.shape) for name, rows in embeds(tmp_path / "release", samples).items()} == {
        "picture": (2, 8),
        "second": (2, 8),
    }


@pytest.mark.processes
def test_a_connection_can_be_one_of_two_spaces(tmp_path: Path, folders: dict[str, Path]) -> None:
    """A-B and B-C are connected; that and C-D make A-B-C-D."""
    last = space(
        tmp_path / "last", ("genes",), WIDTHS[ConnectedSpace.second], 5, proteins=ModalityConfig(Kind.vector, [4])
    )
    ship(connection(first=str(folders["whole"]), second=str(last)), tmp_path / "chain")
    samples = small_samples() | {"proteins": [[0.5] * 4, [1.0, 0.0, 0.0, -1.0]]}
    found = embeds(tmp_path / "chain", samples)
    assert {name: tuple(rows.shape) for name, rows in found.items()} == dict.fromkeys(samples, (2, 8))
    (tmp_path / "expected.pkl").write_bytes(pickle.dumps((samples, found)))
    fresh_interpreter(OPEN, tmp_path, str(tmp_path / "chain"), str(tmp_path / "expected.pkl"), ours=False)


@pytest.mark.parametrize(
    ("name", "here", "there", "said"),
    [
        ("caption", "genes", ModalityConfig(Kind.vector, [3]), ("as vector of size [3], and", "as text:")),
        ("picture", "caption", ModalityConfig(Kind.vector, [8]), ("as vector of size [8], and", "as image:")),
    ],
)
def test_a_name_that_means_two_things_is_refused(
    tmp_path: Path, folders: dict[str, Path], name: str, here: str, there: ModalityConfig, said: tuple[str, str]
) -> None:
    """Also where nothing else stands between both spaces: the name is what is wrong."""
    other = space(tmp_path / "other", (here,), WIDTHS[ConnectedSpace.second], 1, **{name: there})
    config = connection(first=str(folders["first"]), second=str(other))
    (problem,) = preflight.check(config).problems
    assert problem.startswith(f"method.second: {other} takes {name!r} as ") and "(method.first) as" in problem
    assert all(part in problem for part in said) and "train one of them again with another name" in problem
    with pytest.raises(UnusableError, match=f"takes '{name}' as"):
        ship(config, tmp_path / "release")


@pytest.mark.parametrize(
    ("name", "own", "there"),
    [
        ("caption", "genes", ModalityConfig(Kind.text, max_length=12)),
        ("picture", "genes", ModalityConfig(Kind.image, [4, 4], 3)),
    ],
)
def test_texts_and_images_may_differ_in_size(
    tmp_path: Path, folders: dict[str, Path], name: str, own: str, there: ModalityConfig
) -> None:
    other = space(tmp_path / "other", (own,), WIDTHS[ConnectedSpace.second], 1, **{name: there})
    assert preflight.check(connection(first=str(folders["first"]), second=str(other))).problems == []


@pytest.mark.parametrize("idle", [ConnectedSpace.first, ConnectedSpace.second])
def test_a_release_that_adds_no_modality_is_refused(
    tmp_path: Path, folders: dict[str, Path], idle: ConnectedSpace
) -> None:
    """All of its names are the other's: whichever space they went through, one of the two would be of no use."""
    alone = space(tmp_path / "alone", ("caption",), WIDTHS[idle], 1)
    sides = {space.value: str(alone if space is idle else folders[space.value]) for space in ConnectedSpace}
    config = connection(first=sides["first"], second=sides["second"])
    (problem,) = preflight.check(config).problems
    assert problem.startswith(f"method.{idle}: {alone} has no modality that ") and "(caption)" in problem
    assert "choose a release with a further modality" in problem
    with pytest.raises(UnusableError, match="has no modality that"):
        ship(config, tmp_path / "release")


def test_releases_of_the_same_modalities_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Spectrograms, say, that are called as the pictures of the first are and look like them: they have no way in."""
    same = space(tmp_path / "same", ("caption", "picture"), WIDTHS[ConnectedSpace.second], 1)
    (problem,) = preflight.check(connection(first=str(folders["first"]), second=str(same))).problems
    assert problem.startswith(f"method.second: {same} has no modality that ") and "(picture, caption)" in problem
    assert "where one name means two things, train one of them again with another name" in problem


def test_nothing_of_this_machine_is_in_the_release(folders: dict[str, Path]) -> None:
    config = json.loads((folders["whole"] / "config.json").read_text())
    assert str(folders["first"].parent) not in json.dumps(config)
    assert "transformers_version" not in config["connection"]["spaces"]["first"]["model"]
    assert MMPretrainConfig.from_pretrained(folders["whole"]).modalities == ["picture", "caption", "genes"]


def test_the_preflight_finds_what_does_not_fit(tmp_path: Path, folders: dict[str, Path]) -> None:
    first, second = str(folders["first"]), str(folders["second"])
    assert preflight.check(connection(first=first, second=second)).problems == []
    (problem,) = preflight.check(connection(first=second)).problems
    assert (
        "method.first: its embeddings are 6 (caption), 6 (genes) wide, and data.modalities says 8: set the sizes"
        in problem
    )
    (problem,) = preflight.check(connection(first=str(tmp_path))).problems
    assert problem.startswith("method.first: cannot open")
    (problem,) = preflight.check(connection(ProjectorsConfig(width=5, unprojected=ConnectedSpace.first))).problems
    assert problem.startswith("model.projectors: the space 'first' has 8 dimensions and the new one 5")


def test_the_whole_preflight_of_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    save_config(compose(["experiment=connection"]), path)
    monkeypatch.setattr("sys.argv", ["preflight", str(path), "2"])
    preflight.main()
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["problems"] == [] and "projectors: 2,106,368 parameters" in answer["notes"]


def test_a_damaged_release_is_refused(tmp_path: Path) -> None:
    broken = space(tmp_path / "broken", ("genes",), WIDTHS[ConnectedSpace.second], 1)
    (broken / "README.md").write_text("other")
    (problem,) = preflight.check(connection(second=str(broken))).problems
    assert problem.startswith("method.second: ") and "README.md has changed" in problem


def test_embeddings_of_another_release_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    config = connection(path=str(tmp_path), second=str(folders["second"]))
    made = {"second": {"release": "mine", "weights_sha256": weights_sha256(folders["second"])}}
    info = DatasetInfo("pairs", "pairs", "here", "none", {}, provenance=made)
    (tmp_path / "dataset.json").write_text(info.to_json())
    assert preflight.check(config).problems == []
    made["second"]["weights_sha256"] = "0"
    (tmp_path / "dataset.json").write_text(replace(info, provenance=made).to_json())
    (problem,) = preflight.check(config).problems
    assert "the data was embedded by mine" in problem
    # Not only before training: the release may be another one by the time it is shipped.
    with pytest.raises(UnusableError, match="the data was embedded by mine"):
        ship(config, tmp_path / "release")


def test_sizes_are_compared_with_those_of_the_pairs(tmp_path: Path, folders: dict[str, Path]) -> None:
    config = connection(path=str(tmp_path), first=str(folders["first"]))
    sizes = {"first_shared": [64], "first_partner": [64], "second_shared": [6], "second_partner": [6]}
    pairs = {name: {"kind": "vector", "size": size} for name, size in sizes.items()}
    (tmp_path / "dataset.json").write_text(DatasetInfo("pairs", "pairs", "here", "none", pairs).to_json())
    first, second = sorted(preflight.check(config).problems)
    assert first.endswith("set data.modalities.first_partner.size=[64]")
    assert second.endswith("set data.modalities.first_shared.size=[64]")


def test_a_modality_that_is_called_like_a_space(tmp_path: Path) -> None:
    config = small_config(ClipConfig(), embed_dim=WIDTHS[ConnectedSpace.first])
    config.data.modalities = {"second": config.data.modalities["genes"]}
    config.model.encoders = {"second": config.model.encoders["genes"]}
    model = build_model(config)
    export_release(model, model.state_dict(), build_processor(config), tmp_path / "odd", facts())
    (problem,) = preflight.check(connection(first=str(tmp_path / "odd"))).problems
    assert "give method.second a release too" in problem
