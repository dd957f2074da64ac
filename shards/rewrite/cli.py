"""``mmpretrain shards reshard|shuffle|merge``: data sets made of data sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from mmpretrain.console import AnswerForm, JsonFlag, answer, command_errors, progress_bar, table
from mmpretrain.data.writing import BuildError
from shards.own_cli import Workers, hint_if_stopped
from shards.rewrite.commands import Keys, merge, reshard, shuffle
from shards.rewrite.keys import Progress
from shards.rewrite.pieces import ShardSize
from shards.rewrite.rewrite import Rewritten

Source = Annotated[str, typer.Argument(help="A dataset (with train/, test/), one folder of tars, or the URL of one.")]
Target = Annotated[Path, typer.Argument(help="Folder to make.")]
Samples = Annotated[int | None, typer.Option("--samples-per-shard", min=1, help="Samples of each new shard.")]
Megabytes = Annotated[
    float | None, typer.Option("--mb-per-shard", min=1, help="Size of each new shard in MB (10^6 bytes), about.")
]
PrefixKeys = Annotated[bool, typer.Option("--prefix-keys", help="Put the name of its shard before each key.")]


def reshard_command(
    source: Source,
    target: Target,
    samples: Samples = None,
    megabytes: Megabytes = None,
    prefix_keys: PrefixKeys = False,
    workers: Workers = None,
    json_flag: JsonFlag = False,
) -> None:
    """Write the same samples in the same order into shards of another size; SOURCE stays as it is."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        if samples is None and megabytes is None:
            raise BuildError("say how large the new shards are: --samples-per-shard N or --mb-per-shard M")
        size, keys = ShardSize.of(samples, megabytes), _keys(prefix_keys)
        _run(form, target, lambda bar: reshard(source, target, size, keys, _processes(workers), bar))


def shuffle_command(
    source: Source,
    target: Target,
    seed: Annotated[int, typer.Option(help="Of the order: the same seed gives the same shards.")],
    samples: Samples = None,
    megabytes: Megabytes = None,
    prefix_keys: PrefixKeys = False,
    workers: Workers = None,
    json_flag: JsonFlag = False,
) -> None:
    """Mix the samples of all shards of each split; SOURCE stays as it is (shards of about 128 MiB by default)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        size, keys = ShardSize.of(samples, megabytes), _keys(prefix_keys)
        _run(form, target, lambda bar: shuffle(source, target, seed, size, keys, _processes(workers), bar))


def merge_command(
    sources: Annotated[list[str], typer.Argument(help="Datasets, folders of tars or URLs, in this order.")],
    target: Target,
    samples: Samples = None,
    megabytes: Megabytes = None,
    prefix_keys: Annotated[
        bool, typer.Option("--prefix-keys", help="Put the name of its source before each key.")
    ] = False,
    workers: Workers = None,
    json_flag: JsonFlag = False,
) -> None:
    """Write several datasets into one, one after the other, train to train and test to test (shards of about 128 MiB
    by default); SOURCES stay as they are."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        size, keys = ShardSize.of(samples, megabytes), _keys(prefix_keys)
        _run(form, target, lambda bar: merge(sources, target, size, keys, _processes(workers), bar))


def add_rewrite_commands(app: typer.Typer) -> None:
    """Add the three commands."""
    app.command("reshard", epilog="Example: mmpretrain shards reshard data/mine data/large --mb-per-shard 500")(
        reshard_command
    )
    app.command("shuffle", epilog="Example: mmpretrain shards shuffle data/mine data/mixed --seed 0")(shuffle_command)
    app.command("merge", epilog="Example: mmpretrain shards merge data/photos data/scans data/all --prefix-keys")(
        merge_command
    )


def _keys(prefix: bool) -> Keys:
    return Keys.prefix if prefix else Keys.keep


def _processes(workers: int | None) -> int:
    return workers or len(os.sched_getaffinity(0))


def _run(form: AnswerForm, target: Path, work: Callable[[Progress], Rewritten]) -> None:
    with progress_bar(form) as bar, hint_if_stopped():
        done = work(bar)
    rows = [
        (split or ".", count, done.shards[split], done.fingerprints[split]) for split, count in done.samples.items()
    ]
    kept = f"; {done.kept} finished shards of the run before were kept" if done.kept else ""
    asides = [Text(f"{reason}: {', '.join(examples)}") for reason, _, examples in done.asides]
    result = {
        "path": str(target),
        "samples": {split or ".": count for split, count in done.samples.items()},
        "shards": {split or ".": count for split, count in done.shards.items()},
        "fingerprints": {split or ".": text for split, text in done.fingerprints.items()},
        "kept_shards": done.kept,
        "asides": done.asides.to_json(),
    }
    view = table("", ("split", "samples", "shards", "fingerprint"), rows)
    answer(form, result, Group(Text(f"{target} is written{kept}"), *asides, view))
