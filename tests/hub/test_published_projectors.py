"""C-MCR's published heads between two models: the same numbers as their own code computes, and nothing is unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from mmpretrain.cli import app
from mmpretrain.config.model import ConnectedSpace
from mmpretrain.hub.published_projectors import connect_published
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import verify_release
from tests.methods.test_cmcr_release import WIDTHS, embeds, space
from tests.models.small import small_samples

FIRST, SECOND = ConnectedSpace.first, ConnectedSpace.second
NEW = 10


class Heads(nn.Module):
    """Both heads in the layout of the published files. sizes: of Head_A's and Head_B's inputs."""

    def __init__(self, sizes: tuple[int, int], half: bool) -> None:
        super().__init__()
        self.Head_A, self.Head_B = (Head(size, half) for size in sizes)


class Head(nn.Module):
    """Linear, batch norm, ReLU; and of two layers Linear, batch norm."""

    def __init__(self, size: int, half: bool) -> None:
        super().__init__()
        width = NEW if half else 12
        first = nn.Sequential(nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU())
        if half:
            self.net = first
        else:
            self.net1, self.net2 = first, nn.Sequential(nn.Linear(width, NEW), nn.BatchNorm1d(NEW))

    def forward(self, rows: Tensor) -> Tensor:
        """As the published code does."""
        return self.net(rows) if hasattr(self, "net") else self.net2(self.net1(rows))


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Releases of (picture, caption) and of (caption, genes)."""
    root = tmp_path_factory.mktemp("spaces")
    return {
        "first": space(root / "first", ("picture", "caption"), WIDTHS[FIRST], 0),
        "second": space(root / "second", ("caption", "genes"), WIDTHS[SECOND], 1),
    }


def heads(half: bool) -> Heads:
    """With batch norms that have seen something. Of one layer, Head_A is the first space's; of two, the second's."""
    torch.manual_seed(0)
    order = (FIRST, SECOND) if half else (SECOND, FIRST)
    made = Heads((WIDTHS[order[0]], WIDTHS[order[1]]), half)
    for head, size in ((made.Head_A, WIDTHS[order[0]]), (made.Head_B, WIDTHS[order[1]])):
        head(torch.randn(40, size))
    return made.eval()


@pytest.mark.parametrize("half", [False, True])
def test_the_release_gives_what_their_code_gives(half: bool, spaces: dict[str, Path], tmp_path: Path) -> None:
    made = heads(half)
    file = tmp_path / ("heads.pt" if half else "heads.safetensors")
    torch.save(made.state_dict(), file) if half else save_file(made.state_dict(), file)
    connect_published(spaces["first"], spaces["second"], file, tmp_path / "whole")
    assert verify_release(tmp_path / "whole") == []
    samples = small_samples()
    found = embeds(tmp_path / "whole", samples)
    held = {"first": ("picture", "caption"), "second": ("caption", "genes")}
    inner = {side: embeds(folder, {n: samples[n] for n in held[side]}) for side, folder in spaces.items()}
    of_space = {"first": made.Head_A, "second": made.Head_B} if half else {"first": made.Head_B, "second": made.Head_A}
    for name, side in (("picture", "first"), ("caption", "first"), ("genes", "second")):
        with torch.no_grad():
            expected = of_space[side](nn.functional.normalize(inner[side][name], dim=1))
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-5)


def test_the_command_says_what_it_made(spaces: dict[str, Path], tmp_path: Path) -> None:
    torch.save(heads(half=False).state_dict(), tmp_path / "heads.pt")
    given = [f"--{side}={folder}" for side, folder in spaces.items()]
    arguments = ["connect", *given, f"--projectors={tmp_path / 'heads.pt'}", f"--out={tmp_path / 'whole'}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "picture, caption, genes, embeddings of 10 numbers" in done.stdout
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "projected into one space by heads.pt. Nothing was trained" in " ".join(card.split())
    assert "exists: remove it" in CliRunner().invoke(app, arguments).output
    refused = CliRunner().invoke(app, [*arguments[:-1], f"--out={tmp_path / 'other'}", "--head-a=first"])
    assert refused.exit_code == 1 and "embeddings are" in " ".join(refused.output.split())


class Hostile:
    """Would run code where it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state | {"x": Hostile()}, "more than tensors|no plain tensors"),
        (lambda state: {"a.weight": torch.zeros(2)}, "projectors of C-MCR are called"),
        (lambda state: state | {"Head_C.net1.0.weight": torch.zeros(2)}, "no part of the two heads"),
        (lambda state: state | {"Head_A.net1.1.bias": torch.zeros(3)}, "does not fit"),
        (lambda state: {key: value for key, value in state.items() if key != "Head_B.net2.1.bias"}, "does not fit"),
        (lambda state: [1], "no state dict"),
    ],
)
def test_other_files_are_refused_and_run_nothing(
    change: Callable[[dict[str, Any]], Any], said: str, spaces: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    torch.save(change(heads(half=False).state_dict()), tmp_path / "heads.pt")
    with pytest.raises(UnusableError, match=said):
        connect_published(spaces["first"], spaces["second"], tmp_path / "heads.pt", tmp_path / "whole")
    assert "run" not in capsys.readouterr().out and not (tmp_path / "whole").exists()


def test_a_plain_pickle_is_refused(spaces: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "heads.pt").write_bytes(pickle.dumps({"Head_A": [1.0]}))
    with pytest.raises(UnusableError, match="holds"):
        connect_published(spaces["first"], spaces["second"], tmp_path / "heads.pt", tmp_path / "whole")
