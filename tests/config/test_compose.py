"""The config: composition order, strictness, and errors reported together."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import CONFIGS, ConfigError, compose, diff_configs, load_config, save_config
from mmpretrain.config.engine import OptimizerName
from mmpretrain.config.methods.names import ClipConfig, M3colConfig


def problems(*tokens: str) -> str:
    """All problems that refuse these tokens, one a line."""
    with pytest.raises(ConfigError) as caught:
        compose(tokens)
    return "\n".join(caught.value.problems)


def test_base_is_clip_on_digits() -> None:
    config = compose()
    assert isinstance(config.method, ClipConfig)
    assert config.data.name == "digits"
    assert config.run.name == "clip-digits"


def test_order_is_base_group_experiment_command_line() -> None:
    config = compose(["experiment=rosmap"])
    assert config.optim.name is OptimizerName.adam  # group chosen by the experiment
    assert config.optim.lr == 2e-3  # experiment over group
    assert compose(["experiment=rosmap", "optim.lr=7e-4"]).optim.lr == 7e-4  # command line over experiment
    assert compose(["experiment=rosmap", "optim=adamw"]).optim.name is OptimizerName.adamw


def test_the_model_follows_the_data() -> None:
    assert set(compose(["data=rosmap"]).model.encoders) == {"mrna", "methylation", "mirna"}


def test_method_brings_its_own_keys() -> None:
    config = compose(["method=m3col", "method.mix_level=embedding"])
    assert isinstance(config.method, M3colConfig)
    assert "method.beta: unknown key" in problems("method=clip", "method.beta=1")


def test_problems_are_reported_together_with_the_nearest_key() -> None:
    text = problems("optim.lrr=3", "optim.betas=x", "optm.lr=1", "seed", "data.modalities.left.kinds=image")
    assert "optim.lrr: unknown key (did you mean lr?)" in text
    assert "optim.betas=x" in text
    assert "optm.lr: unknown key (did you mean optim?)" in text
    assert "'seed': write group=choice or dotted.key=value" in text
    assert "data.modalities.left.kinds: unknown key (did you mean kind?)" in text


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("method=m3kol", "did you mean m3col"),
        ("optim.lr=abc", "is no number"),
        ("engine.zero=4", "stages 0, 1, 2 and 3"),
        ("optim.schedule=step", "needs optim.step_samples"),
        ("model=rosmap", "choose a matching pair"),
        ("model.encoders.caption.tokenizer=null", "a text encoder needs one"),
        ("model.encoders.left.pretrained=x/y", "exactly one of architecture"),
        ("data.classes=null & evaluation.final=[linear_probe]", "needs labels"),
        ("evaluation.final=[classification]", "needs logits"),
        ("run.name=../x", "use letters"),
        ("run.license=MIT License", "no license as the Hub spells them"),
        ("data.modalities.left.size=[8, 4, 2]", "[height, width]"),
        ("data.modalities.left.resize=stretch", "'stretch' is none of crop, pad, squash"),
        ("data.modalities.left.background=pink", 'use white, black, gray, or "#rrggbb" in quotes'),
        ("data.modalities.caption.resize=pad", "data.modalities.caption.resize is for images"),
        ("checkpoint.every_steps=0", "at least 1"),
        ("train.samples=0", "at least 1"),
    ],
)
def test_one_clear_message(token: str, message: str) -> None:
    assert message in problems(*token.split(" & "))


def test_several_combination_problems_come_together() -> None:
    text = problems("optim.lr=-1", "engine.zero=7", "data.global_batch=0")
    assert all(key in text for key in ("optim.lr", "engine.zero", "data.global_batch"))


# FactorCL takes two modalities, C-MCR embeddings.
FITTING = {
    "cmcr": ["data=connection", "evaluation.final=[retrieval]"],
    "factorcl": ["data.modalities.caption=null", "model.encoders.caption=null"],
}
CHOICES = [[f"experiment={path.stem}"] for path in sorted((CONFIGS / "experiment").glob("*.yaml"))]
CHOICES += [
    [f"method={path.stem}", "experiment=digits", *FITTING.get(path.stem, [])]
    for path in sorted((CONFIGS / "method").glob("*.yaml"))
]


@pytest.mark.parametrize("tokens", CHOICES, ids=lambda tokens: "-".join(t.partition("=")[2] for t in tokens[:2]))
def test_saved_config_gives_the_same_config(tmp_path: Path, tokens: list[str]) -> None:
    config = compose(tokens)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_diff_names_the_keys() -> None:
    changed = compose(["optim.lr=5e-4", "engine=zero3"])
    assert diff_configs(compose(), changed) == ["optim.lr: 0.001 -> 0.0005", "engine.zero: 1 -> 3"]


def test_every_group_has_a_file_for_every_method() -> None:
    from mmpretrain.config.methods.names import METHODS

    assert {path.stem for path in (CONFIGS / "method").glob("*.yaml")} == set(METHODS)


@pytest.mark.processes
def test_config_needs_no_torch() -> None:
    code = "import sys, mmpretrain.config.compose as c; c.compose(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_null_removes_an_entry_or_empties_a_mapping() -> None:
    config = compose(["data.modalities.caption=null", "model.encoders.caption=null"])
    assert set(config.model.encoders) == set(config.data.modalities) == {"left", "right"}
    tokens = ("architecture=null", "config=null", "tokenizer=null", "pretrained=some/bert")
    config = compose([f"model.encoders.caption.{token}" for token in tokens])
    assert config.model.encoders["caption"].config == {}


def test_numbers_in_scientific_notation() -> None:
    config = compose(["train.samples=1e9", "optim.lr=5e-4"])
    assert (config.train.samples, config.optim.lr) == (10**9, 5e-4)


def test_deepspeed_keys_that_the_config_decides_are_refused() -> None:
    text = problems("engine.deepspeed.fp16.enabled=true", "engine.deepspeed.zero_optimization.stage=2")
    assert "engine.deepspeed.fp16" in text and "use engine.zero" in text


def test_a_base_file_of_the_wrong_shape(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("defaults: [clip]\n")
    with pytest.raises(ConfigError, match="a mapping from group to choice"):
        compose(base=tmp_path / "base.yaml")


def test_a_group_chosen_on_top_of_a_resolved_config_replaces_its_section(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    save_config(compose(["method=m3col", "experiment=digits", "optim.lr=7e-4", "run.name=mine"]), saved)
    config = compose(["method=clip"], base=saved)
    assert isinstance(config.method, ClipConfig)
    assert (config.optim.lr, config.run.name) == (7e-4, "clip-digits")
    assert set(compose(["experiment=rosmap"], base=saved).data.modalities) == {"mrna", "methylation", "mirna"}
    moved = compose(["data=rosmap"], base=saved)
    assert set(moved.model.encoders) == set(moved.data.modalities) == {"mrna", "methylation", "mirna"}


@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_numbers_must_be_finite(value: str) -> None:
    assert f"optim.lr is {value[1:]}: a finite number is needed" in problems(f"optim.lr={value}")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder of choices: data ``mine`` with a model of the same name, and a method that hides ours."""
    folder = tmp_path / "own"
    for group in ("data", "model", "method"):
        (folder / group).mkdir(parents=True)
    shutil.copy(CONFIGS / "model" / "digits.yaml", folder / "model" / "mine.yaml")
    written = (CONFIGS / "data" / "digits.yaml").read_text()
    (folder / "data" / "mine.yaml").write_text(written.replace("name: digits", "name: mine"))
    (folder / "method" / "clip.yaml").write_text("name: siglip\n")
    return folder


def test_own_choices_come_before_the_shipped_ones(own: Path) -> None:
    choices = Choices(own)
    config = compose(["data=mine", "method=clip", "engine=zero3"], choices=choices)
    assert (config.data.name, config.run.name, config.method.name) == ("mine", "siglip-mine", "siglip")
    assert set(config.model.encoders) == {"left", "right", "caption"}  # @data took the model of the same name
    assert config.engine.zero == 3  # where there is no file of one's own, the shipped one counts
    assert choices.notes() == [
        f"method=clip is {own / 'method' / 'clip.yaml'}, which hides the clip of mmpretrain",
        f"data=mine is {own / 'data' / 'mine.yaml'}",
        f"model=mine is {own / 'model' / 'mine.yaml'}",
    ]
    assert compose(["method=clip"]).method.name == "clip"  # nothing is looked for unasked


def test_an_experiment_and_a_base_of_ones_own_may_name_own_choices(own: Path) -> None:
    (own / "experiment").mkdir()
    (own / "experiment" / "paper.yaml").write_text("defaults: {data: mine}\nseed: 7\n")
    config = compose(["experiment=paper"], choices=Choices(own))
    assert (config.data.name, config.seed, config.experiment) == ("mine", 7, "paper")
    (own / "base.yaml").write_text(
        "defaults: {method: m3col, data: mine, model: '@data', optim: adamw, engine: zero0}\n"
    )
    config = compose(base=own / "base.yaml", choices=Choices(own))
    assert (config.run.name, config.engine.zero) == ("m3col-mine", 0)


def test_a_wrong_choice_lists_what_there_is_and_where(own: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["data=mien", "optim=adm"], choices=Choices(own))
    text = "\n".join(caught.value.problems)
    assert f"data=mien: no such choice (did you mean mine?); there are mine in {own / 'data'} and " in text
    assert ", connection, digits" in text and f"world in {CONFIGS / 'data'}" in text
    assert f"optim=adm: no such choice (did you mean adam?); there are none in {own / 'optim'} and adam, adamw," in text


def test_a_choice_is_a_name_and_no_path(own: Path) -> None:
    for token in ("data=../data/mine", f"data={own / 'data' / 'mine'}", "data="):
        with pytest.raises(ConfigError, match="no such choice"):
            compose([token], choices=Choices(own))


def test_a_saved_config_needs_no_choices(own: Path, tmp_path: Path) -> None:
    """As a job on another machine reads it, and `--config runs/NAME/config.yaml`: the user's folder may be gone."""
    saved = tmp_path / "config.yaml"
    config = compose(["data=mine", "method=clip"], choices=Choices(own))
    save_config(config, saved)
    shutil.rmtree(own)
    assert load_config(saved) == config
    again = compose(["run.name=again", "seed=1"], base=saved, choices=Choices(own))
    assert (again.data.name, again.run.name, again.seed) == ("mine", "again", 1)


def test_in_a_clone_the_default_folder_is_the_shipped_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`./configs` is then no second place: nothing is listed twice, nothing is noted."""
    monkeypatch.chdir(CONFIGS.parent)
    choices = Choices(Path("configs"))
    with pytest.raises(ConfigError) as caught:
        compose(["engine=zero9"], choices=choices)
    assert caught.value.problems[0].endswith(f"; there are gpu, zero0, zero1, zero2, zero3 in {CONFIGS / 'engine'}")
    compose(choices=choices)
    assert choices.notes() == []
