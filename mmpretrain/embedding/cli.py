"""``mmpretrain embed`` and ``mmpretrain pair`` (no torch here: the work's modules are imported by who does it)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors
from mmpretrain.data.index import INDEX_NAME, load_index
from mmpretrain.data.info import load_info
from mmpretrain.embedding.jobs import (
    SAMPLES_PER_SHARD,
    EmbeddingJob,
    EmbedJob,
    PairJob,
    ShardForm,
    VectorPrecision,
)
from mmpretrain.embedding.perplexity import figure_lines, read_perplexity, read_top1_counts
from mmpretrain.embedding.ranks import run_job

Out = Annotated[Path, typer.Option(help="Folder to make, or to continue.")]
Split = Annotated[str, typer.Option(help="Split to read and to write.")]
Ranks = Annotated[int | None, typer.Option(help="Local processes (default 1; under srun: its tasks).")]
Dtype = Annotated[VectorPrecision, typer.Option(help="Type of the vectors in the shards.")]
Form = Annotated[
    ShardForm | None, typer.Option(help="Of the shards (default: columns, or as a folder that was begun has it).")
]
PerShard = Annotated[int, typer.Option(help="Source samples behind each shard.")]


def embed_command(
    release: Annotated[str, typer.Argument(help="Release folder, transformers model, or a name on the Hub.")],
    data: Annotated[str, typer.Option(help="Data set: a folder with a folder of tars per split, or a URL.")],
    out: Out,
    split: Split = "train",
    modalities: Annotated[str | None, typer.Option(help="NAME or NAME=TOWER, ... (default: all that fit).")] = None,
    ranks: Ranks = None,
    dtype: Dtype = VectorPrecision.float32,
    batch: Annotated[int, typer.Option(help="Samples per forward pass.")] = 256,
    pool: Annotated[
        str | None, typer.Option(help="Of a single transformers encoder: mean (default), cls, last, pooler.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Loader processes per rank.")] = 0,
    samples_per_shard: PerShard = SAMPLES_PER_SHARD,
    form: Form = None,
    max_bad_fraction: Annotated[float, typer.Option(help="Share of unreadable samples that may be left out.")] = 0.0,
    json_flag: JsonFlag = False,
) -> None:
    """Encode a data set by a frozen release into embedding shards; the same command goes on where it was killed."""
    common: dict[str, Any] = {"out": str(out), "split": split, "dtype": dtype, "form": form}
    common["samples_per_shard"] = samples_per_shard
    own: dict[str, Any] = {"modalities": modalities, "pool": pool, "workers": workers}
    _run(
        EmbedJob(**common, batch=batch, release=release, data=data, max_bad_fraction=max_bad_fraction, **own),
        ranks,
        json_flag,
    )


def pair_command(
    first: Annotated[str, typer.Option(help="The corpus in space 1: embedding shards.")],
    second: Annotated[str, typer.Option(help="The same corpus in space 2.")],
    shared: Annotated[str, typer.Option(help="The modality of the corpus that both spaces know.")],
    first_memory: Annotated[str, typer.Option(help="Space 1's other modality: FOLDER or FOLDER:MODALITY.")],
    second_memory: Annotated[str, typer.Option(help="Space 2's other modality: FOLDER or FOLDER:MODALITY.")],
    out: Out,
    split: Split = "train",
    temperature: Annotated[float, typer.Option(help="Of the retrieval's softmax.")] = 0.01,
    allow_other_data: Annotated[
        bool, typer.Option("--allow-other-data", help="The corpora are of different data with the same keys.")
    ] = False,
    ranks: Ranks = None,
    dtype: Dtype = VectorPrecision.float32,
    samples_per_shard: PerShard = SAMPLES_PER_SHARD,
    form: Form = None,
    json_flag: JsonFlag = False,
) -> None:
    """Find each text's pseudo partners in the memories of two spaces: training data of method=cmcr."""
    common: dict[str, Any] = {"out": str(out), "split": split, "dtype": dtype, "form": form}
    common["samples_per_shard"] = samples_per_shard
    corpora: dict[str, Any] = {"first": first, "second": second, "shared": shared, "allow_other_data": allow_other_data}
    memories: dict[str, Any] = {"first_memory": first_memory, "second_memory": second_memory}
    _run(PairJob(**common, **corpora, **memories, temperature=temperature), ranks, json_flag)


def _run(job: EmbeddingJob, ranks: int | None, json_flag: bool) -> None:
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        if problems := job.problems():
            raise CommandError(problems)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        run_job(job, ranks)
        result = _result(job)
        answer(form, result, _view(result))


def _result(job: EmbeddingJob) -> dict[str, Any]:
    """What is there now, as far as this process can tell."""
    folder = Path(job.out) / job.split
    done: dict[str, Any] = {"path": str(folder), "complete": (folder / INDEX_NAME).exists()}
    if done["complete"]:
        index = load_index(folder)
        sizes = {name: entry["size"][0] for name, entry in load_info(job.out).modalities.items()}
        done |= {"samples": len(index), "shards": len(index.shards), "widths": sizes, "fingerprint": index.fingerprint}
        for key, found in (("effective", read_perplexity(folder)), ("top1_counts", read_top1_counts(folder))):
            done |= {key: found} if found else {}
    return done


def _view(result: dict[str, Any]) -> str:
    if not result["complete"]:
        return f"{result['path']}: this rank's share is done; the last rank to finish writes the index"
    widths = ", ".join(f"{name} [{width}]" for name, width in result["widths"].items())
    lines = [f"{result['path']}: {result['samples']} samples in {result['shards']} shards: {widths}"]
    lines += figure_lines(result.get("effective", {}), result.get("top1_counts"))
    return "\n".join(lines)
