"""``mmpretrain shards preview`` (no torch at the top: --help answers at once)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpretrain.config.choices import USER_CONFIGS
from mmpretrain.console import AnswerForm, JsonFlag, answer, command_errors, progress_bar
from mmpretrain.files import replace_text

if TYPE_CHECKING:
    from mmpretrain.preview.preview import Preview

MOST_PROBLEMS = 8

Tokens = Annotated[
    list[str] | None,
    typer.Argument(metavar="[GROUP=CHOICE | KEY=VALUE]...", help="As after `mmpretrain train`."),
]


def preview_command(
    folder: Annotated[str, typer.Argument(help="A dataset (with train/, test/) or one folder of tars.")],
    tokens: Tokens = None,
    data: Annotated[str | None, typer.Option(help="The same as data=NAME.")] = None,
    split: Annotated[str | None, typer.Option(help="Whose samples are shown (default: train).")] = None,
    samples: Annotated[int, typer.Option(min=1, max=500, help="Samples that are shown.")] = 16,
    scan: Annotated[int, typer.Option(min=0, help="Samples of each split that are counted; 0: all.")] = 1000,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("preview.html"),
    config: Annotated[Path | None, typer.Option(help="Start from this config, e.g. runs/NAME/config.yaml.")] = None,
    config_dir: Annotated[Path, typer.Option(help="Your own choices, GROUP/CHOICE.yaml.")] = USER_CONFIGS,
    json_flag: JsonFlag = False,
) -> None:
    """Write a page that shows a dataset as it is decoded, as the model sees it and as views augment it."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from mmpretrain.preview.page import page
        from mmpretrain.preview.preview import composed, make_preview

        chosen = [*([f"data={data}"] if data else []), *(tokens or [])]
        notes: list[str] = []
        settings = composed(folder, chosen, config, config_dir, notes)
        with progress_bar(form) as advance:
            preview = make_preview(folder, settings, split, samples, scan or None, advance)
        preview.notes[:0] = notes
        text = page(preview)
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, text)
        answer(form, {"page": str(out), **preview.numbers()}, _view(preview, out, len(text.encode())))


def _view(preview: Preview, out: Path, size: int) -> str:
    lines = [f"{out}: {len(preview.samples)} samples of {preview.split}, {size / 1e6:.1f} MB; open it in a browser"]
    for name, counts in preview.splits.items():
        lines.append(f"{name}: {counts.usable:,} of {counts.looked_at:,} samples that were read can be used")
        lines += [f"  {cause.count:,} cannot: {cause.cause}" for cause in counts.causes[:MOST_PROBLEMS]]
    lines += [f"problem: {problem}" for problem in preview.problems[:MOST_PROBLEMS]]
    lines += [f"note: {note}" for note in preview.notes[:MOST_PROBLEMS]]
    return "\n".join(lines)
