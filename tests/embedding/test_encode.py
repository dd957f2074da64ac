"""Embedding shards: the model's own normalized outputs, the same bytes for any number of ranks, and after a kill."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.data import Kind
from mmpretrain.data.column_shards import Table
from mmpretrain.data.decode import decode
from mmpretrain.data.index import ShardError, load_index, modality_of, verify_shards
from mmpretrain.data.info import load_info
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.data.reader import Reader
from mmpretrain.data.writing import RawSample, npy
from mmpretrain.data.writing import write_split as write_shards
from mmpretrain.embedding.encode import embed_share
from mmpretrain.embedding.jobs import EmbedJob, VectorPrecision
from mmpretrain.embedding.output import Output
from mmpretrain.embedding.ranks import run_job
from mmpretrain.embedding.spaces import open_space
from tests.data.small_dataset import Sample, png, write_split
from tests.embedding.files import contents
from tests.embedding.spaces import (
    LACKS_GENES,
    SAMPLES,
    caption,
    genes,
    job,
    raw_sample,
    write_bert,
    write_clap,
    write_clip,
    write_siglip,
)
from tests.models.small import ROOT, small_config, small_model

CPU = torch.device("cpu")
TRAIN = range(SAMPLES["train"])


def read(folder: Path, modality: str) -> dict[str, np.ndarray]:
    """Key -> vector, as stored."""
    index = load_index(folder)
    samples = Reader(index).samples(range(len(index)))
    found = {}
    for sample in samples:
        for member in (name for name in sample if modality_of(name) == modality):
            value = decode(member, sample[member], Kind.vector)
            assert isinstance(value, np.ndarray)
            found[sample["__key__"]] = value
    return found


def normalized(rows: Tensor) -> np.ndarray:
    """Rows of unit norm."""
    return torch.nn.functional.normalize(rows, dim=1).detach().numpy()


def pictures(side: tuple[int, int]) -> list[Image.Image]:
    """The images of the train split, (height, width)."""
    return [Image.new("L", side[::-1], 7 * number % 256) for number in TRAIN]


def test_vectors_are_the_models_own_normalized_outputs(spaces: Path, tmp_path: Path) -> None:
    embed_share(job(spaces / "own" / "release", spaces / "data", tmp_path / "out"), 0, 1, CPU)
    processor = build_processor(small_config())
    inputs = processor(picture=pictures((8, 4)), caption=[caption(number) for number in TRAIN])
    having = [number for number in TRAIN if number % LACKS_GENES]
    inputs["genes"] = processor(genes=[genes(number) for number in having])["genes"]
    model = small_model()
    for name in ("picture", "caption", "genes"):
        expected = normalized(model(**{name: inputs[name]}).embeds[name])
        found = read(tmp_path / "out" / "train", name)
        rows = having if name == "genes" else list(TRAIN)
        assert list(found) == [f"s{number:04d}" for number in rows]
        np.testing.assert_allclose(np.stack(list(found.values())), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)


def test_the_dataset_says_what_it_is(spaces: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for split in SAMPLES:
        embed_share(job(spaces / "own" / "release", spaces / "data", out, split=split), 0, 1, CPU)
    info, index = load_info(out), load_index(out / "train")
    assert info.name == "small-in-own" and info.license == "MIT" and info.classes == ["x", "y", "z"]
    assert info.modalities == {n: {"kind": "vector", "size": [8]} for n in ("caption", "genes", "picture")}
    listed = (spaces / "own" / "release" / "SHA256SUMS").read_text()
    assert f"{info.provenance['weights_sha256']}  model.safetensors" in listed
    assert info.provenance["release"] == "own" and info.provenance["data"] == "small"
    assert "/" not in json.dumps(info.provenance)
    assert [shard.samples for shard in index.shards] == [5, 5, 5, 5, 3] and verify_shards(index) == []
    assert len(load_index(out / "test")) == SAMPLES["test"]
    labels = [sample["label.cls"] for sample in Reader(index).samples(range(4))]
    assert [label.strip() for label in labels] == [b"0", b"1", b"2", b"0"]


def test_a_siglip_model_is_a_space(spaces: Path, tmp_path: Path) -> None:
    """Its texts are padded as they were in its training, and have no mask."""
    model = write_siglip(tmp_path / "siglip")
    embed_share(job(tmp_path / "siglip", spaces / "data", tmp_path / "out"), 0, 1, CPU)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "siglip")
    tokens = tokenizer([caption(number) for number in TRAIN], padding="max_length", max_length=10, return_tensors="pt")
    found = read(tmp_path / "out" / "train", "caption")
    texts = model.get_text_features(tokens["input_ids"]).pooler_output
    np.testing.assert_allclose(np.stack(list(found.values())), normalized(texts), rtol=0, atol=1e-6)
    grey = torch.tensor([7 * number % 256 / 255 * 2 - 1 for number in TRAIN])[:, None, None, None]
    images = model.get_image_features(grey.expand(-1, 3, 8, 8)).pooler_output
    found = read(tmp_path / "out" / "train", "picture")
    np.testing.assert_allclose(np.stack(list(found.values())), normalized(images), rtol=0, atol=1e-5)


def test_a_clip_model_is_a_space(spaces: Path, tmp_path: Path) -> None:
    """Towers fit by kind, whatever the data calls its modalities."""
    embed_share(job(spaces / "clip", spaces / "data", tmp_path / "out"), 0, 1, CPU)
    model, tokenizer = write_clip(tmp_path / "clip"), AutoTokenizer.from_pretrained(spaces / "clip")
    tokens = tokenizer([caption(number) for number in TRAIN], padding="max_length", max_length=10, return_tensors="pt")
    texts = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
    found = read(tmp_path / "out" / "train", "caption")
    np.testing.assert_allclose(np.stack(list(found.values())), normalized(texts), rtol=0, atol=1e-6)
    # Flat pictures stay flat when they are resized, so CLIP's preprocessing is one line here.
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    grey = np.array([7 * number % 256 / 255 for number in TRAIN])[:, None]
    pixels = torch.tensor((grey - mean) / std, dtype=torch.float32)[:, :, None, None].expand(-1, 3, 8, 8)
    images = model.get_image_features(pixels).pooler_output
    found = read(tmp_path / "out" / "train", "picture")
    np.testing.assert_allclose(np.stack(list(found.values())), normalized(images), rtol=0, atol=1e-5)
    assert load_info(tmp_path / "out").provenance["towers"] == {"caption": "text", "picture": "image"}


@pytest.mark.parametrize("pool", ["mean", "cls", "pooler"])
def test_a_single_encoder_is_a_space(spaces: Path, tmp_path: Path, pool: str) -> None:
    embed_share(job(spaces / "bert", spaces / "data", tmp_path / "out", pool=pool), 0, 1, CPU)
    model, tokenizer = write_bert(tmp_path / "bert"), AutoTokenizer.from_pretrained(spaces / "bert")
    found = read(tmp_path / "out" / "train", "caption")
    for number in (0, 22):
        output = model(**tokenizer(caption(number), return_tensors="pt"))
        states = output.last_hidden_state
        expected = {"mean": states.mean(dim=1), "cls": states[:, 0], "pooler": output.pooler_output}[pool]
        np.testing.assert_allclose(found[f"s{number:04d}"], normalized(expected)[0], rtol=0, atol=1e-6)
    with pytest.raises(ShardError, match=f'provenance.pool is "{pool}".* "last"'):
        embed_share(job(spaces / "bert", spaces / "data", tmp_path / "out", pool="last"), 0, 1, CPU)


def test_float16_takes_half_the_bytes(spaces: Path, tmp_path: Path) -> None:
    for dtype in VectorPrecision:
        out = tmp_path / dtype.value
        embed_share(job(spaces / "clip", spaces / "data", out, modalities="caption", dtype=dtype), 0, 1, CPU)
    exact, rounded = (read(tmp_path / dtype / "train", "caption") for dtype in ("float32", "float16"))
    assert all(np.array_equal(exact[key].astype(np.float16), value) for key, value in rounded.items())
    sizes = [load_index(tmp_path / dtype / "train").sample(0).members for dtype in ("float32", "float16")]
    assert [members[name][1] for members, name in zip(sizes, ("caption.f32", "caption.f16"), strict=True)] == [48, 24]


def test_two_ranks_write_the_bytes_of_one(spaces: Path, tmp_path: Path) -> None:
    for size in (1, 2):
        for rank in range(size):
            embed_share(job(spaces / "own" / "release", spaces / "data", tmp_path / f"{size}" / "out"), rank, size, CPU)
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert set(one) >= {"out/dataset.json", "out/train/index.json", "out/train/shard-000004.tar"}
    assert one == two


def test_ranks_of_slurm_share_the_shards(spaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of an srun that run one after the other: the last one finds all shards and writes the index."""
    work = job(spaces / "clip", spaces / "data", tmp_path / "slurm", modalities="caption")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    for rank, shards in ((1, ["1", "3"]), (0, ["0", "1", "2", "3", "4"])):
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        run_job(work, None)
        found = sorted(path.stem[-1] for path in (tmp_path / "slurm" / "train").glob("*.tar"))
        assert found == shards
        assert (tmp_path / "slurm" / "train" / "index.json").exists() == (rank == 0)


@pytest.mark.processes
def test_loader_processes_change_nothing(spaces: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        work = job(spaces / "clip", spaces / "data", tmp_path / str(workers) / "out", workers=workers)
        embed_share(work, 0, 1, CPU)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def stop_at_third(work: EmbedJob, reached: Event) -> None:
    """Embed, and stand still with the third shard half written."""
    write = Output.write

    def slow(self: Output, number: int, table: Table) -> None:
        if number == 2:
            (self.folder / f".shard-{number:06d}.tar.half.tmp").write_bytes(b"half a shard")
            reached.set()
            time.sleep(60)
        write(self, number, table)

    Output.write = slow  # type: ignore[method-assign]  # of this process, which was forked for it
    embed_share(work, 0, 1, CPU)


@pytest.mark.processes
def test_killed_in_the_middle_the_same_command_goes_on(spaces: Path, tmp_path: Path) -> None:
    """SIGKILL, then two ranks: the bytes are those of one process that ran through."""
    embed_share(job(spaces / "own" / "release", spaces / "data", tmp_path / "whole" / "out"), 0, 1, CPU)
    work = job(spaces / "own" / "release", spaces / "data", tmp_path / "killed" / "out")
    fork = multiprocessing.get_context("fork")
    reached = fork.Event()
    process = fork.Process(target=stop_at_third, args=(work, reached), daemon=True)
    process.start()
    assert reached.wait(60)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    train = tmp_path / "killed" / "out" / "train"
    assert [path.name for path in sorted(train.glob("*.tar"))] == ["shard-000000.tar", "shard-000001.tar"]
    assert not (train / "index.json").exists()
    untouched = {path: path.stat().st_mtime_ns for path in train.glob("*.tar")}
    for rank in (1, 0):
        embed_share(work, rank, 2, CPU)
    assert all(path.stat().st_mtime_ns == time for path, time in untouched.items())
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.processes
@pytest.mark.slow
def test_local_processes_are_killed_and_go_on(spaces: Path, tmp_path: Path) -> None:
    """Two ranks of a killed command end with it; two new ones complete the bytes of one process."""
    embed_share(job(spaces / "clip", spaces / "data", tmp_path / "whole" / "out", samples_per_shard=1), 0, 1, CPU)
    work = job(spaces / "clip", spaces / "data", tmp_path / "killed" / "out", samples_per_shard=1)
    start = "import sys; from mmpretrain.embedding.jobs import job_from_json as read;"
    start += "from mmpretrain.embedding.ranks import run_job; run_job(read(sys.argv[1]), 2)"
    with subprocess.Popen([sys.executable, "-c", start, work.to_json()], cwd=ROOT) as process:
        while not list((tmp_path / "killed").glob("out/train/*.tar")):
            assert process.poll() is None, "it ended without a shard"
            time.sleep(0.01)
        children = psutil.Process(process.pid).children()
        process.kill()
    assert len(children) == 2 and not psutil.wait_procs(children, timeout=60)[1]
    run_job(work, 2)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def spoiled(folder: Path, numbers: Iterable[int]) -> Path:
    """A data set of ten captions, these of them unreadable."""

    def spoil(number: int, sample: Sample) -> Sample:
        return {**sample, "caption.txt": b"\xff"} if number in numbers else sample

    write_split(folder / "train", (6, 4), spoil)
    return folder


def test_unreadable_samples_end_it_or_are_left_out(spaces: Path, tmp_path: Path) -> None:
    """The first one too, which shows how wide the embeddings are."""
    data = spoiled(tmp_path / "data", [0])
    work = job(spaces / "clip", data, tmp_path / "strict", modalities="caption")
    with pytest.raises(BadDataError, match=r"1 of 10 .*--max-bad-fraction 0 .*'s0000'.*not UTF-8"):
        embed_share(work, 0, 1, CPU)
    assert not (tmp_path / "strict" / "train" / "index.json").exists()
    work = job(spaces / "clip", data, tmp_path / "lenient", modalities="caption", max_bad_fraction=0.1)
    embed_share(work, 0, 1, CPU)
    assert list(read(tmp_path / "lenient" / "train", "caption")) == [f"s{n:04d}" for n in range(1, 10)]


def test_repeating_and_more_ranks_do_not_raise_the_limit(spaces: Path, tmp_path: Path) -> None:
    """One unreadable sample in each of two shards: either rank stays within the limit, both do not."""
    data = spoiled(tmp_path / "data", [2, 7])
    work = job(spaces / "clip", data, tmp_path / "out", modalities="caption", max_bad_fraction=0.1)
    embed_share(work, 0, 2, CPU)
    for _ in range(2):
        with pytest.raises(BadDataError, match=r"2 of 10 samples .*--max-bad-fraction 0\.1 allows"):
            embed_share(work, 1, 2, CPU)
        assert not (tmp_path / "out" / "train" / "index.json").exists()
    embed_share(replace(work, max_bad_fraction=0.2), 0, 1, CPU)
    assert len(load_index(tmp_path / "out" / "train")) == 8


def test_a_damaged_first_vector_shows_no_size(spaces: Path, tmp_path: Path) -> None:
    """The next one does, and no substitute, which may lack the modality. Samples that lack it are no bad ones."""
    samples = [raw_sample(number) for number in range(12)]
    for sample in samples[:-1]:
        sample.pop("genes.npy", None)
    samples[1]["genes.npy"] = b"no array"
    write_shards(tmp_path / "data" / "train", samples, 6)
    work = job(spaces / "own" / "release", tmp_path / "data", tmp_path / "both", modalities="caption,genes")
    embed_share(replace(work, max_bad_fraction=0.1), 0, 1, CPU)
    assert list(read(tmp_path / "both" / "train", "genes")) == ["s0011"]
    assert len(read(tmp_path / "both" / "train", "caption")) == 11
    alone = replace(work, out=str(tmp_path / "alone"), modalities="genes")
    with pytest.raises(BadDataError, match="1 of 2 samples"):
        embed_share(alone, 0, 1, CPU)


@pytest.mark.parametrize("damaged", [0, 2])
def test_a_modality_of_few_samples_may_have_a_bad_one(spaces: Path, tmp_path: Path, damaged: int) -> None:
    """Three of sixty samples have a vector: nearly all that could stand in for a damaged one lack it too."""
    having = (7, 29, 52)
    samples = [raw_sample(number) for number in range(60)]
    for number, sample in enumerate(samples):
        sample.pop("genes.npy", None)
        if number in having:
            sample["genes.npy"] = b"no array" if number == having[damaged] else npy(genes(number))
    write_shards(tmp_path / "data" / "train", samples, 20)
    work = job(spaces / "own" / "release", tmp_path / "data", tmp_path / "out", modalities="genes")
    embed_share(replace(work, max_bad_fraction=0.4), 0, 1, CPU)
    kept = [f"s{number:04d}" for number in having if number != having[damaged]]
    assert list(read(tmp_path / "out" / "train", "genes")) == kept
    with pytest.raises(BadDataError, match=r"1 of 3 samples .*--max-bad-fraction 0\.3 allows"):
        embed_share(replace(work, out=str(tmp_path / "strict"), max_bad_fraction=0.3), 0, 1, CPU)


def test_a_text_tower_beside_one_of_sounds(spaces: Path, tmp_path: Path) -> None:
    """CLAP. Its texts end at the last position behind RoBERTa's padding index, whatever the tokenizer allows."""
    model = write_clap(tmp_path / "clap")
    embed_share(job(tmp_path / "clap", spaces / "data", tmp_path / "out"), 0, 1, CPU)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "clap")
    tokens = tokenizer(caption(3), return_tensors="pt")
    expected = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
    found = read(tmp_path / "out" / "train", "caption")["s0003"]
    np.testing.assert_allclose(found, normalized(expected)[0], rtol=0, atol=1e-6)
    space = open_space(str(tmp_path / "clap"), CPU)
    assert list(space.towers) == ["text"]
    tensors = space.tensors("text", ["a seven " * 40])
    assert tensors["input_ids"].shape == (1, 14) and space.features("text", tensors).isfinite().all()


DOWNLOADED = {
    "a file of text": lambda number: {"txt": caption(number).encode(), "json": b'{"url": "x"}'},
    "a field of JSON": lambda number: {"json": json.dumps({"url": "x", "caption": caption(number)}).encode()},
}


@pytest.mark.parametrize("texts", DOWNLOADED)
def test_downloaded_tars_are_embedded_as_they_are(texts: str, spaces: Path, tmp_path: Path) -> None:
    """``KEY.png`` beside ``KEY.txt`` is found as training finds it, in a folder of tars without splits."""
    samples: list[RawSample] = [
        {"__key__": f"{n:05d}", "png": png(7 * n % 256, (8, 4)), **DOWNLOADED[texts](n)}
        for n in range(SAMPLES["train"])
    ]
    write_shards(tmp_path / "tars", samples, 8)
    embed_share(job(spaces / "clip", tmp_path / "tars", tmp_path / "plain"), 0, 1, CPU)
    embed_share(job(spaces / "clip", spaces / "data", tmp_path / "named", modalities="caption"), 0, 1, CPU)
    plain, named = (read(tmp_path / folder / "train", "caption") for folder in ("plain", "named"))
    assert np.array_equal([*plain.values()], [*named.values()])
    assert len(read(tmp_path / "plain/train", "image")) == SAMPLES["train"]


@pytest.mark.parametrize("label", ["[0, 2]", "-1.8"])
def test_labels_that_are_not_one_class_are_left_out_and_said(
    label: str, spaces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extra = {"label.cls": label.encode(), "pose.json": b"[1.5, 2]"}
    samples = [{**raw_sample(number), **extra} for number in range(4)]
    write_shards(tmp_path / "data" / "train", samples, 4)
    work = job(spaces / "own" / "release", tmp_path / "data", tmp_path / "out", modalities="genes")
    embed_share(work, 0, 1, CPU)
    assert list(read(tmp_path / "out" / "train", "genes")) == ["s0001", "s0002"]
    assert "label.cls" not in load_index(tmp_path / "out" / "train").extensions
    assert [line for line in caplog.messages if f"labels such as {label} are not passed on" in line]
    (left,) = [line for line in caplog.messages if "since embedding shards hold embeddings and one class" in line]
    assert "pose.json" in left and "genes" not in left and "label.cls" not in left
