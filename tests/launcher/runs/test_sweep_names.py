"""Names and identities of a sweep's runs."""

from __future__ import annotations

from launcher.runs.sweep_names import LONGEST, Settings, names_of, settings_of, sweep_name
from mmpretrain.config.compose import compose


def settings(tokens: list[str], keys: list[str]) -> Settings:
    """Of a run on the digits."""
    return settings_of(compose(["experiment=digits", *tokens]), tokens, keys)


def test_a_name_says_what_differs_in_the_order_of_the_config() -> None:
    keys = ["seed", "optim.lr"]
    runs = [settings([f"seed={seed}", f"optim.lr={lr}"], keys) for lr in ("1e-3", "3e-4") for seed in (0, 1)]
    assert names_of(runs) == [
        "clip-digits-lr0.001-seed0",
        "clip-digits-lr0.001-seed1",
        "clip-digits-lr0.0003-seed0",
        "clip-digits-lr0.0003-seed1",
    ]


def test_equal_settings_have_one_name_however_they_are_written() -> None:
    keys = ["optim.lr", "seed"]
    runs = [settings(tokens, keys) for tokens in (["optim.lr=1e-3", "seed=0"], ["optim.lr=0.001"], ["seed=1"])]
    assert runs[0].identity == runs[1].identity and runs[0].digest == runs[1].digest != runs[2].digest
    assert names_of(runs)[0] == names_of(runs)[1] != names_of(runs)[2]


def test_the_name_and_place_of_a_run_are_no_settings_and_what_changes_no_result_is_one_if_it_is_swept() -> None:
    one, other = (settings([f"run.root={root}", f"data.workers={n}"], ["seed"]) for root, n in (("a", 1), ("b", 2)))
    assert one.identity == other.identity
    one, other = (settings([f"data.workers={n}"], ["data.workers"]) for n in (1, 2))
    assert one.identity != other.identity and names_of([one, other])[0].endswith("-workers1")


def test_groups_and_texts_are_named_by_their_values_and_like_keys_apart() -> None:
    keys = ["method", "objective.negatives"]
    runs = [settings([f"method={name}", "objective.negatives=ring"], keys) for name in ("clip", "m3col")]
    assert names_of(runs) == ["clip-digits", "m3col-digits"], "the method is in the name already"
    assert sweep_name([run.base for run in runs]) == "digits-sweep"
    keys = ["model.encoders.left.freeze", "model.encoders.right.freeze"]
    pairs = (("true", "false"), ("false", "true"))
    runs = [settings([f"{key}={value}" for key, value in zip(keys, pair, strict=True)], keys) for pair in pairs]
    assert names_of(runs)[0] == "clip-digits-left.freeze-true-right.freeze-false"


def test_long_names_are_cut_and_names_that_would_be_equal_told_apart() -> None:
    runs = [Settings("x" * 90, {"a": n}, {"a": n}) for n in (1, 2)]
    names = names_of(runs)
    assert len(set(names)) == 2 and all(len(name) <= LONGEST for name in names)
    runs = [Settings("x", {"a": text}, {"a": text}) for text in ("p q", "p?q")]
    assert len(set(names_of(runs))) == 2 and all(name.startswith("x-a-p-q-") for name in names_of(runs))
