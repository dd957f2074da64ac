"""Tokens of the command line and of files become what their keys take, or one line that names place, key and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import ConfigError, compose, load_config, save_config
from mmpretrain.config.root import Config

LEFT = "data.modalities.left"
HOME = "/home/us"
TAKEN: list[tuple[str, Any]] = [
    ("run.name=2026_11_29", "2026_11_29"),
    ("run.name=007", "007"),
    ("run.name=no", "no"),
    ("run.name=1e5", "1e5"),
    ("run.name='null'", "null"),
    ("run.name=null", "clip-digits"),
    ("run.root=/data # 1/runs", "/data # 1/runs"),
    ("run.root='my folder'", "my folder"),
    ("run.root='mine", "'mine"),
    ("run.root=[a]", "[a]"),
    ("run.root=~/runs", f"{HOME}/runs"),
    ("run.root=~", HOME),
    ("data.path='~/x y'", f"{HOME}/x y"),
    ("model.encoders.caption.tokenizer=~/bert", f"{HOME}/bert"),
    ("train.samples=1e9", 10**9),
    ("optim.lr=5e-4", 5e-4),
    ("optim.betas=[0.9, 1e-1]", [0.9, 0.1]),
    (f"{LEFT}.size=64", [64, 64]),
    (f"{LEFT}.load_size=16", [16, 16]),
    ("evaluation.during=retrieval", ["retrieval"]),
    ("model.encoders.left.config.image_size=8", 8),
    ('model.encoders.left.config={hidden_act: "no", layers: [{a: 1}]}', {"hidden_act": "no", "layers": [{"a": 1}]}),
]
REFUSED = [
    ("optim.lr=12:30", "optim.lr=12:30: '12:30' is a time"),
    ("optim.betas=0.9,0.95", "optim.betas=0.9,0.95: a list is needed: write [0.9,0.95]"),
    ("optim.betas=[0.9, 0x1]", "optim.betas[1]=0x1: '0x1' is no plain decimal number: write 1"),
    ("optim.betas=[0.9", "optim.betas=[0.9: this is no valid YAML"),
    ("optim.betas={a: 1}", "a list is needed"),
    ("optim.decay_all=yes", "write true"),
    ("engine.precision=bf16", "is none of float32, bfloat16, float16 (did you mean bfloat16?)"),
    ("run.root=", "run.root=: a value is needed"),
    ("run.root=null", "needs quotes: 'run.root=\"null\"'"),
    ("run.root=${HOME}/x", "let the shell expand it"),
    ("engine.deepspeed.wall_clock_breakdown=no", "write false, or put it in quotes"),
    ("engine.deepspeed.wall_clock_breakdown=${X}", "let the shell expand it"),
    ("data.modalities=5", "a mapping is needed, such as {key: value}, not one value"),
    ("seed.x=1", "seed: one value is needed, not a mapping"),
    ("model.fusion=null", "model.fusion=null: a value is needed"),
    ("data.modalities.x=null", "data.modalities.x=null: there is no such entry to take out"),
]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of everybody who runs these tests."""
    monkeypatch.setenv("HOME", HOME)


def at(config: Config, key: str) -> Any:
    """What a config says at a dotted key."""
    tree: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    for part in key.split("."):
        tree = tree[part]
    return tree


def problems(*tokens: str, base: Path | None = None) -> list[str]:
    """What is said of these tokens or this file."""
    with pytest.raises(ConfigError) as caught:
        compose(tokens, base=base)
    return caught.value.problems


@pytest.mark.parametrize(("token", "value"), TAKEN)
def test_a_token_of_the_command_line_is_what_its_key_takes(token: str, value: Any) -> None:
    found = at(compose(["data=digits", token]), token.partition("=")[0])
    assert found.items() >= value.items() if isinstance(value, dict) else found == value


@pytest.mark.parametrize(("token", "message"), REFUSED)
def test_what_does_not_fit_is_one_line_with_the_fix(token: str, message: str) -> None:
    (problem,) = problems(token)
    assert message in problem and "\n" not in problem


def test_a_file_is_read_by_the_same_rules_and_named_with_the_line(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    head = "defaults: {method: clip, data: digits, model: '@data', optim: adamw, engine: zero0}\n"
    base.write_text(head + "run: {name: 0012345, root: ~}\nexperiment: no # ours\n")
    config = compose(base=base)
    assert (config.run.name, config.run.root, config.experiment) == ("0012345", HOME, "no")
    base.write_text(head + "run: {name: a}\noptim:\n  lr: 1:30\n  lrr: 1\n  betas:\n  - 0.9\n  - yes\ntrain: [1]\n")
    assert problems(base=base) == [
        f"{base}:4: optim.lr: '1:30' is a time, or a number in base 60: write one decimal number",
        f"{base}:5: optim.lrr: unknown key (did you mean lr?); optim has {', '.join(vars(config.optim))}",
        f"{base}:8: optim.betas[1]: 'yes' is no number",
        f"{base}:9: train: a mapping is needed, such as {{key: value}}, not a list",
    ]


def test_a_choice_of_another_encoding_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("lr: 1e-4\n", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"mine\.yaml is UTF-16: save it as UTF-8"):
        compose(["optim=mine"], choices=Choices(tmp_path))
    (tmp_path / "optim" / "mine.yaml").write_text("lr: 1e-4\n", encoding="utf-8-sig")
    assert compose(["optim=mine"], choices=Choices(tmp_path)).optim.lr == 1e-4


def test_texts_of_a_run_read_back_from_its_folder(tmp_path: Path) -> None:
    for text in ("007", "no", "1_000", "12:30:45", "2026-11-29", "null", "~", "# x", "a: b", "é", " ", "", "[a]"):
        config = compose()
        config.data.name = text
        config.model.encoders["left"].config["hidden_act"] = text
        save_config(config, tmp_path / "config.yaml")
        assert load_config(tmp_path / "config.yaml") == config


def test_the_config_of_an_earlier_run_still_loads(tmp_path: Path) -> None:
    """As OmegaConf wrote it."""
    config = compose(["method=m3col", "experiment=digits", "run.name=007", "optim.lr=1e-8", "engine.threads=null"])
    config.data.name = "1e5"
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
