"""The runs that the words of a sweep stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.sweeps.values import MOST, SweepError, several_values, wanted


def own(*tokens: str) -> list[tuple[str, ...]]:
    """The tokens of each run's own."""
    return list(wanted(tokens, None, several=True).own)


def problem(*tokens: str, file: Path | None = None) -> str:
    """What is wrong with a sweep."""
    with pytest.raises(SweepError) as caught:
        wanted(tokens, file, several=True)
    return str(caught.value)


def test_values_make_a_run_for_each_combination() -> None:
    found = wanted(["method=clip", "optim.lr=1e-3,3e-4", "seed=0..2"], None, several=True)
    assert found.shared == ("method=clip",)
    assert found.own[:2] == (("optim.lr=1e-3", "seed=0"), ("optim.lr=1e-3", "seed=1")) and len(found.own) == 6
    assert found.keys == ["optim.lr", "seed"]


def test_commas_in_lists_mappings_and_quotes_separate_nothing() -> None:
    assert own("optim.betas=[0.9,0.95],[0.9,0.999]") == [("optim.betas=[0.9,0.95]",), ("optim.betas=[0.9,0.999]",)]
    assert own("a={b: 1, c: [2,3]},null") == [("a={b: 1, c: [2,3]}",), ("a=null",)]
    assert own("a='x, y',z") == [("a='x, y'",), ("a=z",)]
    assert own("a=don't,do") == [("a=don't",), ("a=do",)]
    assert own("a=['x,]',y],2") == [("a=['x,]',y]",), ("a=2",)]
    assert own('a="0..4",1..2') == [('a="0..4"',), ("a=1",), ("a=2",)]


def test_a_token_without_several_values_reaches_all_runs_as_it_stands() -> None:
    assert wanted(["a= x ", "seed=0,1"], None, several=True).shared == ("a= x ",)
    assert not several_values("optim.betas=[0.9,0.95]") and several_values("optim.lr=1,2")


def test_a_file_has_a_run_on_each_line_and_multiplies_with_values(tmp_path: Path) -> None:
    file = tmp_path / "runs.txt"
    file.write_text(
        "# what I don't know yet\n"
        "optim.lr=1e-3 optim.weight_decay=0.1   # the usual\n"
        "\n"
        "data.path='/data # 1' method=m3col\n"
    )
    found = wanted(["a=1,2"], file, several=False)
    assert found.shared == ("a=1,2",), "without --sweep a comma is a comma"
    assert found.own == (("optim.lr=1e-3", "optim.weight_decay=0.1"), ("data.path=/data # 1", "method=m3col"))
    assert len(wanted(["seed=0..2"], file, several=True).own) == 6


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["seed=0,,1"], "seed=0,,1: there is no value before or after a comma"),
        (["a=[1,2"], "a=[1,2: ] is missing at its end"),
        (["seed=4..0,1"], "4..0 is no range: the smaller number comes first"),
        (["seed=0,1", "seed=2"], "seed is given twice, once with several values"),
        (["seed=0"], "a sweep of one run: give a key several values"),
        ([f"seed=0..{MOST - 1}", "a=1,2"], "the sweep has 2,000 runs, and 1000 at most are possible"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_fix(tokens: list[str], said: str) -> None:
    assert said in problem(*tokens)


def test_lines_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "runs.txt"
    file.write_text("seed=0\nseed 1\na='x\n")
    text = problem("seed=1,2", file=file)
    assert f"{file}:2: 'seed': write group=choice or key=value" in text and f"{file}:3: no closing quotation" in text
    assert f"seed has several values on the command line and is set in {file}, too" in text
    file.write_text("# nothing\n")
    assert "has no runs: write one on each line" in problem(file=file)
    assert "cannot be read: No such file" in problem(file=tmp_path / "none.txt")
