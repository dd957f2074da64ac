"""The config as a dry run shows it: what is not as usual."""

import yaml

from mmpretrain.config.compose import compose
from mmpretrain.config.folding import folded_text


def test_only_what_differs_from_the_defaults_is_shown() -> None:
    config = compose(["method=clip", "optim.lr=0.5", "run.name=mine", "seed=0"])
    shown = yaml.safe_load(folded_text(config))
    assert shown["optim"]["lr"] == 0.5 and "betas" not in shown["optim"]
    assert shown["method"] == {"name": "clip"} and shown["run"] == {"name": "mine"}
    assert shown["data"]["modalities"]["left"]["size"] == [8, 4] and "engine" not in shown and "seed" not in shown


def test_it_is_short_and_says_how_much_it_leaves_out() -> None:
    text = folded_text(compose(["method=m3col"]))
    assert len(text.splitlines()) < 60
    assert text.splitlines()[-1].startswith("# and ") and text.splitlines()[-1].endswith(" keys as usual")


def test_settings_of_a_method_are_compared_with_that_methods_own() -> None:
    shown = yaml.safe_load(folded_text(compose(["method=comm", "method.temperature=0.2"])))
    assert shown["method"] == {"name": "comm", "temperature": 0.2}


def test_texts_that_yaml_would_read_as_something_else_stay_texts() -> None:
    shown = yaml.safe_load(folded_text(compose(["method=clip", "run.name=2026_11_29", "data.build=no"])))
    assert shown["run"]["name"] == "2026_11_29" and shown["data"]["build"] == "no"
