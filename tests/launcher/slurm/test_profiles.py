"""Cluster profiles are read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.slurm import profiles
from launcher.slurm.profiles import Profile, ProfileError, load_profile, profile_notes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles of our own."""
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    return tmp_path


def test_the_shipped_profile_documents_every_key_and_asks_for_nothing_special() -> None:
    assert load_profile("default") == Profile()
    written = (profiles.FOLDER / "default.yaml").read_text()
    assert all(f"\n{name}:" in written for name in vars(Profile()))


def test_values_arrive(folder: Path) -> None:
    (folder / "big.yaml").write_text(
        "partition: a100\ngpus_per_node: 8\nsetup: [module load cuda]\nsbatch: {exclusive: true}\n"
    )
    profile = load_profile("big")
    assert (profile.partition, profile.gpus_per_node, profile.setup) == ("a100", 8, ["module load cuda"])
    assert profile.sbatch == {"exclusive": True}


def test_every_problem_is_named_with_the_file(folder: Path) -> None:
    (folder / "bad.yaml").write_text("partitoin: a100\ngpus_per_node: many\ntime_limit_min: 0\n")
    with pytest.raises(ProfileError) as caught:
        load_profile("bad")
    text = str(caught.value)
    assert text.count(str(folder / "bad.yaml")) == len(caught.value.problems) == 4
    assert "partitoin: unknown key (did you mean partition?)" in text
    assert "gpus_per_node: 'many' is no number" in text
    assert "time_limit_min is 0: it must be at least 1" in text
    assert "signal_lead_s is 120, the whole time limit of 0 min or more" in text


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [\n", "just words\n", "", "# nothing\n", "mem: 1\nmem: 2\n"])
def test_a_file_that_is_no_profile(folder: Path, content: str) -> None:
    (folder / "odd.yaml").write_text(content)
    with pytest.raises(ProfileError, match=r"odd\.yaml") as caught:
        load_profile("odd")
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_texts_times_and_shell_lines_are_taken_as_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/us")
    (folder / "big.yaml").write_bytes(
        b"\xef\xbb\xbfaccount: 0012345\nqos: no\nconstraint: 1e5\nmem: 0\ntime_limit_min: 1-00:00:30\n"
        b"setup: 'cd ~ && export X=${Y} # z'\n"
        b"sbatch: {begin: 12:30:45, exclusive: true, hold: false, bbf: ~/x, comment: null, nodelist: 007}\n"
    )
    profile = load_profile("big")
    assert (profile.account, profile.qos, profile.constraint, profile.mem) == ("0012345", "no", "1e5", "0")
    assert profile.time_limit_min == 1441
    assert profile.setup == ["cd ~ && export X=${Y} # z"]
    options = {"begin": "12:30:45", "exclusive": True, "bbf": "/home/us/x", "nodelist": "007"}
    assert profile.sbatch_options() == options


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("sbatch: [exclusive]", "sbatch: a mapping is needed, such as {key: value}, not a list"),
        ("sbatch: {exclusive: [a]}", "sbatch.exclusive: one value is needed, not a list"),
        ("partition: [a, b]", "partition: one value is needed, not a list"),
        ("setup: {a: b}", "setup: a list is needed, such as [a, b], not a mapping"),
        ("gpus_per_node: yes", "gpus_per_node: 'yes' is no number"),
        ("time_limit_min: a day", "time_limit_min: 'a day' is no time: write minutes, or, as Slurm does"),
        ("account: ${USER}", "account: variables (${...}) are not read"),
        ("mem: 64", "mem is 64, which Slurm takes for MB: write the unit, such as 64G"),
        ("srun_args: null", "srun_args: a value is needed"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line(folder: Path, line: str, reason: str) -> None:
    (folder / "odd.yaml").write_text(f"# ours\n{line}\n")
    with pytest.raises(ProfileError) as caught:
        load_profile("odd")
    (problem,) = caught.value.problems
    assert str(folder / "odd.yaml") in problem and reason in problem


def test_an_unknown_profile_names_those_there_are(folder: Path) -> None:
    (folder / "jupiter.yaml").write_text("")
    with pytest.raises(ProfileError, match=r"jupitr.*did you mean jupiter\?.*auto, local, slurm"):
        load_profile("jupitr")


def test_own_profiles_come_before_the_shipped_ones(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "slurm").mkdir(parents=True)
    (own / "slurm" / "default.yaml").write_text("partition: mine\n")
    (folder / "default.yaml").write_text("partition: shipped\n")
    (folder / "jupiter.yaml").write_text("partition: far\n")
    assert load_profile("default", own).partition == "mine"
    assert load_profile("default").partition == "shipped"
    assert load_profile("jupiter", own).partition == "far"
    path = own / "slurm" / "default.yaml"
    assert profile_notes("default", own) == [f"profile default is {path}, which hides the default of mmpretrain"]
    assert profile_notes("jupiter", own) == profile_notes("default") == []


def test_an_unknown_profile_says_where_it_was_looked_for(folder: Path, tmp_path: Path) -> None:
    (folder / "jupiter.yaml").write_text("")
    with pytest.raises(ProfileError) as caught:
        load_profile("saturn", tmp_path / "own")
    assert f"none in {tmp_path / 'own' / 'slurm'} and jupiter in {folder}" in str(caught.value)
