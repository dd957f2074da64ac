"""Sources of a mixture in the config: how they are written, and what stands against them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.config.compose import ConfigError, compose, config_text, save_config
from mmpretrain.config.data import Mixing

DIGITS = ("method=clip", "data=digits", "data.path=null")
TWO = (*DIGITS, "data.sources.a.path=one", "data.sources.b.path=two")


def problems(*tokens: str) -> str:
    """What is wrong with a config of these tokens."""
    with pytest.raises(ConfigError) as caught:
        compose(tokens)
    return "\n".join(caught.value.problems)


def test_sources_are_written_on_the_command_line_or_in_yaml(tmp_path: Path) -> None:
    config = compose([*TWO, "data.sources.a.weight=0.7", "data.sources.b.weight_from={2000: 0.1}", "data.mixing=size"])
    again = compose([*DIGITS, "data.sources={a: {path: one, weight: 0.7}, b: {path: two}}", "data.mixing=size",
                     "data.sources.b.weight_from.2000=0.1"])  # fmt: skip
    assert config == again and config.data.mixing is Mixing.size
    assert [config.data.sources["b"].weight_at(p) for p in (0, 1999, 2000)] == [1.0, 1.0, 0.1]
    assert config.data.paths == ["one", "two"] and config.data.place == "one (source a) and two (source b)"
    save_config(config, tmp_path / "config.yaml")
    assert config_text(compose(base=tmp_path / "config.yaml")) == config_text(config)
    assert list(compose([*TWO, "data.sources.a=null"]).data.sources) == ["b"]


def test_a_source_is_a_data_set_of_its_own_with_its_own_layout() -> None:
    tokens = [*TWO, "data.sources.b.modalities.caption.member=[alt.txt]", "data.sources.b.label.member=[cls]"]
    parts = compose(tokens).data.parts
    assert [(part.path, part.sources) for part in parts.values()] == [("one", {}), ("two", {})]
    assert [part.modalities["caption"].member for part in parts.values()] == [[], ["alt.txt"]]
    assert [part.label.member for part in parts.values()] == [[], ["cls"]]
    assert compose(DIGITS[:2]).data.parts[""].path == "data/digits"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (
            ("method=clip", "data=digits", "data.sources.a.path=one"),
            "data.path is data/digits and data.sources names a, and a run reads one or the other: set data.path=null",
        ),
        ((*TWO, "data.more_paths=[three]"), "data.more_paths is ['three'] and data.sources names a, b, and a run"),
        (DIGITS, "data.path has no value"),
        ((*DIGITS, "data.sources.a.weight=2"), "data.sources.a.path has no value"),
        ((*TWO, "data.sources.a.weight=-1"), "data.sources.a.weight is -1.0: it must be a number of 0 or more"),
        ((*TWO, "data.sources.a.weight_from={x: 1}"), "data.sources.a.weight_from: 'x' is no position"),
        ((*TWO, "data.sources.a.weight_from={0: 1}"), "data.sources.a.weight_from: '0' is no position"),
        ((*TWO, "data.sources.a.weight_from={5: -1}"), "data.sources.a.weight_from.5 is -1.0: it must be"),
        (
            (*TWO, "data.sources.a.weight=0", "data.sources.b.weight_from={40: 0}"),
            "data.sources: no source has a weight above 0 at position 40 of the stream",
        ),
        ((*TWO, "data.sources.b.path=one"), "data.sources names 'one' twice: its samples would count twice"),
        ((*TWO, "data.sources.b.path=pipe:x"), "data.sources.b.path is 'pipe:x', which is not read"),
        ((*DIGITS, "data.sources={a b: {path: one}}"), "data.sources.a b: use letters, digits, '_' and '-'"),
        ((*TWO, "data.sources.a.modalities.sound.member=[wav]"), "data.sources.a.modalities.sound: data.modal"),
        ((*TWO, "data.temperature=0"), "data.temperature is 0.0: it must be above 0"),
        ((*TWO, "data.mixing=sizes"), "'sizes' is none of weight, size, temperature (did you mean size?)"),
        ((*TWO, "method=m3col", "data.modalities.left.optional=true"), "leave out the modality or the sources"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tokens: tuple[str, ...], said: str) -> None:
    assert said in problems(*tokens)
