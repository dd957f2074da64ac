"""A hostile release runs no code: not by transformers' Auto classes without ``trust_remote_code``, not by our tools.

Whoever makes one can write its checksums too, so they are right here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmpretrain.assembly.release_encoder import OpenedRelease, ReleaseEncoder
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.embedding.spaces import open_space
from mmpretrain.files import sha256_of
from mmpretrain.hub.conversion import convert
from mmpretrain.hub.pushable import pushable_files
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import CHECKSUMS, drop_foreign_code, release_files, verify_release
from tests.hub.test_export import make_release
from tests.models.small import fresh_interpreter

AUTO = """
import transformers
for name in ("AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor", "AutoFeatureExtractor"):
    for path in sys.argv[1:]:
        for trust in ({}, {"trust_remote_code": False}):
            try:
                getattr(transformers, name).from_pretrained(path, **trust)
            except Exception:
                pass
"""


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.canary,)


def evil_code(canary: Path) -> str:
    """Code that touches a file when it is imported."""
    return f"import pathlib\npathlib.Path({str(canary)!r}).touch()\nclass Evil:\n    from_pretrained = None\n"


def change(path: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def code_in_every_file(folder: Path, canary: Path) -> None:
    for path in folder.glob("*.py"):
        path.write_text(evil_code(canary) + "MMPretrainConfig = MMPretrainModel = MMPretrainProcessor = Evil\n")


def code_of_another_repository(folder: Path, canary: Path) -> None:
    change(folder / "config.json", auto_map={"AutoConfig": "evil/code--evil.Evil", "AutoModel": "evil/code--evil.Evil"})


def pickled_weights_beside(folder: Path, canary: Path) -> None:
    torch.save({"x": Evil(canary)}, folder / "pytorch_model.bin")
    torch.save({"x": Evil(canary)}, folder / "training_args.bin")


def pickled_weights_alone(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil(canary)}, folder / "pytorch_model.bin")


def weights_with_a_huge_header(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes((10**18).to_bytes(8, "little") + b"{}")


def weights_that_overlap(folder: Path, canary: Path) -> None:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    header = json.dumps({"a": entry, "b": {**entry, "data_offsets": [8, 24]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))


def weights_from_outside(folder: Path, canary: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"classifier.layers.0.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def code_of_a_tokenizer(folder: Path, canary: Path) -> None:
    for config in [*folder.rglob("tokenizer_config.json"), folder / "tokenizer_config.json"]:
        (config.parent / "evil.py").write_text(evil_code(canary))
        change(config, auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, tokenizer_class="Evil")
    change(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.Evil"})
    change(folder / "processor_config.json", auto_map={"AutoProcessor": "evil.Evil"})


HOSTILE = [
    code_in_every_file,
    code_of_another_repository,
    pickled_weights_beside,
    pickled_weights_alone,
    weights_with_a_huge_header,
    weights_that_overlap,
    weights_from_outside,
    code_of_a_tokenizer,
]
OPENED = {"code_in_every_file", "pickled_weights_beside"}  # by the code of this installation, from safetensors
NEVER_PUSHED = {
    "code_of_another_repository",
    "weights_from_outside",
    "pickled_weights_beside",
    "pickled_weights_alone",
}
REFUSED = {
    "code_of_a_tokenizer": "cannot be opened",
    "code_of_another_repository": "takes its code from another repository",
    "pickled_weights_alone": "other formats are never loaded",
    "weights_with_a_huge_header": "cannot be opened",
    "weights_that_overlap": "cannot be opened",
    "weights_from_outside": "takes weights from outside of the release",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """By name: the release, and the canary that its code would touch."""
    root = tmp_path_factory.mktemp("hostile")
    make_release(root / "good")
    found = {}
    for spoil in HOSTILE:
        folder, canary = root / spoil.__name__ / "release", root / spoil.__name__ / "canary"
        shutil.copytree(root / "good", folder)
        spoil(folder, canary)
        sums = [f"{sha256_of(path)}  {name}\n" for name, path in release_files(folder)]
        (folder / CHECKSUMS).write_text("".join(sums))
        found[spoil.__name__] = folder, canary
    return found


@pytest.mark.processes
@pytest.mark.parametrize("ours", [False, True], ids=["alone", "beside this package"])
def test_auto_classes_run_nothing_without_being_told_to(
    hostile: dict[str, tuple[Path, Path]], tmp_path: Path, ours: bool
) -> None:
    start = "import mmpretrain\n" if ours else ""
    fresh_interpreter(start + AUTO, tmp_path, *(str(folder) for folder, _ in hostile.values()), ours=ours)
    assert not [name for name, (_, canary) in hostile.items() if canary.exists()]


@pytest.mark.parametrize("name", [spoil.__name__ for spoil in HOSTILE])
def test_our_tools_run_nothing(hostile: dict[str, tuple[Path, Path]], tmp_path: Path, name: str) -> None:
    folder, canary = hostile[name]
    if name in OPENED:
        assert open_space(str(folder), torch.device("cpu")).towers
    else:
        with pytest.raises(UnusableError, match=REFUSED[name]) as error:
            open_space(str(folder), torch.device("cpu"))
        assert len(error.value.problems) == 1
    with pytest.raises(UnusableError):
        convert(str(folder), tmp_path / "out", ("image", "text"))
    assert as_a_frozen_encoder(folder) == (name in OPENED)
    assert bool(pushable_files(folder)[1]) == (name in NEVER_PUSHED)
    assert not canary.exists()


def as_a_frozen_encoder(folder: Path) -> bool:
    """Ask everything of it that a run asks; whether it could be opened."""
    encoder = EncoderConfig(pretrained=str(folder), freeze=True)
    modality = ModalityConfig(Kind.image, [8, 4], channels=1)
    try:
        config = MMPretrainConfig.from_pretrained(folder)
        source = ReleaseEncoder("picture", encoder, modality, OpenedRelease(str(folder), "main", config))
        source.specification(None)
        source.release.model()
    except Exception:
        return False
    return True


def test_foreign_code_that_a_tokenizer_brought_is_not_written(tmp_path: Path) -> None:
    make_release(tmp_path / "release")
    config = tmp_path / "release" / "config.json"
    own = json.loads(config.read_text())["auto_map"]
    tokenizer = next((tmp_path / "release").rglob("tokenizer_config.json"))
    change(tokenizer, auto_map={"AutoTokenizer": ["evil/code--evil.Evil", None]}, kept=1)
    change(config, auto_map={**own, "AutoTokenizer": "evil/code--evil.Evil"})
    drop_foreign_code(tmp_path / "release")
    assert "auto_map" not in json.loads(tokenizer.read_text()) and json.loads(tokenizer.read_text())["kept"] == 1
    assert json.loads(config.read_text())["auto_map"] == own


def test_a_good_release_opens_and_has_no_foreign_code(tmp_path: Path) -> None:
    make_release(tmp_path / "release", max_shard_size="16KB")
    assert verify_release(tmp_path / "release") == []
    assert open_space(str(tmp_path / "release"), torch.device("cpu")).towers
