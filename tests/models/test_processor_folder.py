"""The processor's files: what the Auto classes open, earlier layouts, what a hostile folder cannot do, and the Hub."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from PIL import Image
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizer,
    CLIPTokenizer,
)

from mmpretrain.models.folder_mmpretrain import AT_ROOT, IMAGE, SOUND
from mmpretrain.models.image_processing_mmpretrain import MMPretrainImageProcessor
from mmpretrain.models.inputs_mmpretrain import MULTIPLE
from mmpretrain.models.processing_mmpretrain import FILE_NAME, MMPretrainProcessor
from tests.data.tones import RATE, tone
from tests.models.small import fresh_interpreter, small_model
from tests.models.test_audio import ENTRY, EXTRACTORS
from tests.small_tokenizer import small_tokenizer

PICTURES = [
    Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, 9, 3), dtype=np.uint8)) for side in (8, 11)
]
IMAGE_ENTRY = {"kind": "image", "size": [8, 6], "channels": 3, "mean": [0.1, 1 / 3, 0.5], "std": [0.3, 0.2, 1 / 7]}
WORDS = ["a seven", "a bold light digit"]
MODALITIES: dict[str, Any] = {
    "left": IMAGE_ENTRY | {"resize": "pad", "background": "gray"},
    "right": {"kind": "image", "size": [4, 4], "channels": 1, "shortest_edge": 6},
    "caption": {"kind": "text", "max_length": 20},
    "title": {"kind": "text", "max_length": 6},
    "noise": ENTRY,
    "song": ENTRY | {"seconds": 0.3},
    "genes": {"kind": "vector", "size": [2], "minimum": [0.1, 0.2], "maximum": [1 / 3, 7.0]},
}
SAMPLES: dict[str, Any] = {
    "left": PICTURES,
    "right": PICTURES,
    "caption": WORDS,
    "title": WORDS,
    "noise": [tone(0), tone(1)],
    "song": [tone(1), tone(0)],
    "genes": np.ones((2, 2)),
}
# What opens a folder where this package is absent, and what it needs for that.
OPEN = """
import pickle
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer
folder, samples, expected = sys.argv[1], *pickle.load(open(sys.argv[2], "rb"))
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(**samples, sampling_rate=16000)
assert type(processor).__module__.startswith("transformers_modules."), processor
assert all((inputs[m][k] == t).all() for m, group in expected.items() for k, t in group.items())
images = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
assert (images(samples["left"], return_tensors="pt")["pixel_values"] == expected["left"]["pixel_values"]).all()
sounds = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
assert (sounds(samples["noise"], sampling_rate=16000)["input_values"] == expected["noise"]["input_values"]).all()
for trust in (None, False, True):  # nothing can be typed into this process
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    assert type(tokenizer).__module__.startswith("transformers.")
    tokens = tokenizer(samples["caption"], padding="max_length", truncation=True, return_tensors="pt")
    assert all((tokens[key] == expected["caption"][key]).all() for key in expected["caption"])
"""


def processor(modalities: dict[str, Any] = MODALITIES) -> MMPretrainProcessor:
    """With two modalities of every kind that has a tokenizer or a feature extractor."""
    kinds = {name: entry["kind"] for name, entry in modalities.items()}
    tokenizers = {n: AutoTokenizer.from_pretrained(small_tokenizer()) for n, kind in kinds.items() if kind == "text"}
    return MMPretrainProcessor(
        modalities, tokenizers, {name: EXTRACTORS["wav2vec2"] for name, kind in kinds.items() if kind == "audio"}
    )


def earlier_layout(folder: Path) -> None:
    """As 0.1 wrote it: no file of a tokenizer or feature extractor lies at the root, and the config has modalities."""
    own = processor()
    for name, reader in {**own.tokenizers, **own.feature_extractors}.items():
        reader.save_pretrained(folder / f"{'tokenizer' if name in own.tokenizers else 'feature_extractor'}_{name}")
    (folder / FILE_NAME).write_text(json.dumps({"processor_class": "MMPretrainProcessor", "modalities": MODALITIES}))


def same(one: Any, other: Any) -> bool:
    """Whether two answers hold the same tensors, to the bit."""
    return list(one) == list(other) and all(
        torch.equal(other[m][k], t) and len(other[m]) == len(group)
        for m, group in one.items()
        for k, t in group.items()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved processor beside a model's config, that the tests below only read or copy."""
    found: Path = tmp_path_factory.mktemp("processor") / "release"
    small_model().save_pretrained(found)
    processor().save_pretrained(found)
    return found


def test_every_auto_class_gives_the_tensors_of_the_whole(folder: Path) -> None:
    expected = processor()(**SAMPLES, sampling_rate=RATE)
    assert same(AutoProcessor.from_pretrained(folder)(**SAMPLES, sampling_rate=RATE), expected)
    images = AutoImageProcessor.from_pretrained(folder)
    assert torch.equal(images(PICTURES, return_tensors="pt")["pixel_values"], expected["left"]["pixel_values"])
    assert (images(PICTURES, return_tensors="np")["pixel_values"] == expected["left"]["pixel_values"].numpy()).all()
    sounds = AutoFeatureExtractor.from_pretrained(folder)(SAMPLES["noise"], sampling_rate=RATE, padding=True)
    assert same({"noise": dict(sounds)}, {"noise": expected["noise"]})
    for inside, name in (("", "caption"), ("tokenizer_title", "title")):
        tokenizer = AutoTokenizer.from_pretrained(folder, subfolder=inside)
        tokens = tokenizer(WORDS, padding="max_length", truncation=True, return_tensors="pt")
        assert same({name: dict(tokens)}, {name: expected[name]})


@pytest.mark.parametrize("kind", [BertTokenizer, CLIPTokenizer])
def test_a_tokenizer_of_other_habits_opens_with_those_of_the_processor(tmp_path: Path, kind: Any) -> None:
    """BERT's names token types too, and either may pad on the left and take longer texts."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<|startoftext|>", "<|endoftext|>"]
    words = {word: number for number, word in enumerate([*special, "a</w>", "a", "seven"])}
    tokenizer = kind(vocab=words, merges=[], padding_side="left", model_max_length=77)
    own = MMPretrainProcessor({"caption": {"kind": "text", "max_length": 12}}, {"caption": tokenizer})
    own.save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    tokens = opened(["a seven", "a"], padding="max_length", truncation=True, return_tensors="pt")
    assert type(opened) is kind and same({"caption": dict(tokens)}, own(text=["a seven", "a"]))
    assert same(MMPretrainProcessor.from_pretrained(tmp_path)(text=["a"]), own(text=["a"]))
    assert tokenizer.padding_side == "left"  # the one that was given stays as it is


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_feature_extractor_opens_at_the_root(tmp_path: Path, name: str) -> None:
    own = MMPretrainProcessor({"noise": ENTRY}, {}, {"noise": EXTRACTORS[name]})
    own.save_pretrained(tmp_path)
    sounds = [tone(0, seconds=s) for s in (0.1, 2.0)]
    expected = own(audio=sounds, sampling_rate=RATE)
    assert same(MMPretrainProcessor.from_pretrained(tmp_path)(audio=sounds, sampling_rate=RATE), expected)
    found = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert same({"noise": dict(found(sounds, sampling_rate=RATE))}, expected)
    assert found.model_input_names == own.model_input_names and found.sampling_rate == RATE
    with pytest.raises(ValueError, match="has no keyword max_length"):
        found(sounds, sampling_rate=RATE, max_length=3)


def test_waveforms_need_no_feature_extractor(tmp_path: Path) -> None:
    own = MMPretrainProcessor({"noise": ENTRY | {"waveform": True, "optional": True}})
    own.save_pretrained(tmp_path)
    sounds = [None, {"array": tone(0), "sampling_rate": RATE}]
    expected = own(noise=sounds)
    assert same(MMPretrainProcessor.from_pretrained(tmp_path)(noise=sounds), expected)
    assert same({"noise": dict(AutoFeatureExtractor.from_pretrained(tmp_path)(sounds))}, expected)


def test_the_image_processor_alone_is_saved_and_refuses_what_it_does_not_do(folder: Path, tmp_path: Path) -> None:
    images = AutoImageProcessor.from_pretrained(folder)
    images.save_pretrained(tmp_path)
    again = MMPretrainImageProcessor.from_pretrained(tmp_path)
    assert again.entry == images.entry and torch.equal(
        again(PICTURES)["pixel_values"], images(PICTURES)["pixel_values"]
    )
    with pytest.raises(ValueError, match="has no keyword do_resize: it does what training did"):
        images(PICTURES, do_resize=False)
    with pytest.raises(ValueError, match="has no setting do_normalize"):
        AutoImageProcessor.from_pretrained(folder, do_normalize=False)


def test_the_earlier_layout_opens_with_the_same_tensors(tmp_path: Path) -> None:
    earlier_layout(tmp_path)
    opened = MMPretrainProcessor.from_pretrained(tmp_path)
    assert same(opened(**SAMPLES, sampling_rate=RATE), processor()(**SAMPLES, sampling_rate=RATE))
    opened.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new" / "tokenizer_caption").exists()
    again = MMPretrainProcessor.from_pretrained(tmp_path / "new")
    assert same(again(**SAMPLES, sampling_rate=RATE), processor()(**SAMPLES, sampling_rate=RATE))


@pytest.mark.processes
def test_auto_classes_open_it_where_this_package_is_absent(folder: Path, tmp_path: Path) -> None:
    expected = {name: dict(group) for name, group in processor()(**SAMPLES, sampling_rate=RATE).items()}
    (tmp_path / "expected.pkl").write_bytes(pickle.dumps((SAMPLES, expected)))
    fresh_interpreter(OPEN, tmp_path, str(folder), str(tmp_path / "expected.pkl"), ours=False)


@pytest.mark.parametrize("layout", ["root", "folders"])
def test_code_that_a_folder_names_is_never_run_and_nobody_is_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Whether auto_map names the folder's own code, or another repository's, in any of its files."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    strange = tmp_path / "strange"
    if layout == "root":
        shutil.copytree(folder, strange)
    else:
        strange.mkdir()
        earlier_layout(strange)
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n"
    kinds = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor", "AutoFeatureExtractor")
    for path in strange.rglob("*.json"):
        if path.name.endswith("config.json"):
            content = json.loads(path.read_text())
            there = "other/repository--evil.Evil" if path.parent == strange else "evil.Evil"
            auto_map = {kind: [there, there] if kind == "AutoTokenizer" else there for kind in kinds}
            for part in (content, *(content.get(key, {}) for key in (IMAGE, SOUND))):
                part["auto_map"] = auto_map
            path.write_text(json.dumps(content))
            (path.parent / "evil.py").write_text(evil)
    opened = MMPretrainProcessor.from_pretrained(strange)
    assert same(opened(**SAMPLES, sampling_rate=RATE), processor()(**SAMPLES, sampling_rate=RATE))
    if layout == "root":  # after `import mmpretrain` the Auto classes take ours, too
        for auto in (AutoProcessor, AutoImageProcessor, AutoFeatureExtractor):
            assert type(auto.from_pretrained(strange)).__module__.startswith("mmpretrain.")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modalities": None}, "has no modalities: it is not the processor of a release"),
        ({"modalities": {"x": 3}}, "has no modalities"),
        ({"modalities": {"../x": {"kind": "text", "max_length": 4}}}, "cannot be that of a folder"),
        ({"modalities": {"x": {"kind": "smell"}}}, "'x' is a smell: this version knows"),
        ({SOUND: {"extractor": {"feature_extractor_type": "AutoModel"}}}, "its feature extractor is a 'AutoModel'"),
        ({AT_ROOT: None}, None),
    ],
)
def test_damaged_and_strange_configs_are_refused(folder: Path, tmp_path: Path, change: dict, said: str | None) -> None:
    shutil.copytree(folder, tmp_path / "x")
    path = tmp_path / "x" / FILE_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises((ValueError, OSError), match=said):
        MMPretrainProcessor.from_pretrained(tmp_path / "x")


def test_a_part_of_a_folder_and_a_folder_of_something_else(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "a" / "b")
    opened = MMPretrainProcessor.from_pretrained(
        str(tmp_path / "a"),
        subfolder="b",
        revision="main",
        cache_dir=str(tmp_path / "cache"),
        token="unused",
        local_files_only=True,
        force_download=False,
        trust_remote_code=True,
    )
    assert same(opened(caption=WORDS, title=WORDS), processor()(caption=WORDS, title=WORDS))
    with pytest.raises(OSError, match=FILE_NAME):
        MMPretrainProcessor.from_pretrained(tmp_path)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is committed to the Hub, in place of doing so."""
    found: list[dict[str, Any]] = []

    def create_repo(self: HfApi, repo_id: str, **kwargs: Any) -> Any:
        assert kwargs.pop("exist_ok")
        found.append({"repo": repo_id, "client": self.token, **kwargs})
        return type("Repo", (str,), {"repo_id": repo_id})(repo_id)

    def create_commit(self: HfApi, repo_id: str, operations: list[CommitOperationAdd], **kwargs: Any) -> None:
        found[-1] |= {"files": {op.path_in_repo for op in operations}, "commit": repo_id, **kwargs}

    for call in (create_repo, create_commit):
        monkeypatch.setattr(HfApi, call.__name__, call)
    monkeypatch.setattr(HfApi, "create_branch", lambda *_, **kwargs: found[-1].update(kwargs))
    return found


def test_it_is_pushed_in_one_commit_with_all_of_its_files(tmp_path: Path, commits: list[dict[str, Any]]) -> None:
    own, place = processor(), tmp_path / "name"
    own.save_pretrained(place)
    own.save_pretrained(place, push_to_hub=True, repo_id="org/name", token="secret", private=True, revision="v1")
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert {FILE_NAME, "tokenizer.json", "tokenizer_title/tokenizer.json", "processing_mmpretrain.py"} < files
    (commit,) = commits
    assert commit["files"] == files and commit["repo"] == commit["commit"] == "org/name"
    assert commit["client"] == "secret" and commit["private"] and commit["revision"] == commit["branch"] == "v1"
    own.save_pretrained(place, push_to_hub=True)
    assert commits[1]["repo"] == "name"


def test_push_to_hub_pushes(commits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.hub.create_and_tag_model_card", lambda *_, **__: Card())
    processor().push_to_hub("org/name", token="secret")
    assert {FILE_NAME, "tokenizer_title/tokenizer.json", "calls_mmpretrain.py"} < commits[0]["files"]


class Card:
    """A model card that was there."""

    def save(self, path: str) -> None:
        """Into the folder that is pushed."""
        Path(path).write_text("")


def test_a_multiple_is_known_to_the_release(tmp_path: Path) -> None:
    own = processor({"caption": MODALITIES["caption"] | {MULTIPLE: 8}})
    own.save_pretrained(tmp_path)
    assert MMPretrainProcessor.from_pretrained(tmp_path)(text=WORDS).input_ids.shape == (2, 8)
