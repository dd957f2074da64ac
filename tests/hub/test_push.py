"""Pushing a release: one commit, whatever goes wrong; readers see the old release or the new one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import disable_progress_bars

from mmpretrain.embedding.spaces import open_space
from mmpretrain.hub import push
from mmpretrain.hub.hub_errors import PushError
from mmpretrain.hub.push import Pushed, Pusher, Target
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import release_files, renew_checksum
from tests.hub.server import Fault, HubServer, Wrong
from tests.hub.server_repos import Repo, blob_of
from tests.hub.test_export import make_release
from tests.small_runs import TOKEN

REPO = "org/demo"


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An old release in several files of weights, and a new one in a single file."""
    folder = tmp_path_factory.mktemp("releases")
    make_release(folder / "old", seed=0, max_shard_size="16KB")
    make_release(folder / "new", seed=1)
    return folder / "old", folder / "new"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub on which TOKEN may write; tries follow one another at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr(push, "WAITS", (0.0, 0.0))
    disable_progress_bars()
    with HubServer({TOKEN: "writer"}, readers={"hf_reader"}) as server:
        yield server


def api(hub: HubServer, token: str | bool = TOKEN) -> HfApi:
    """A client of this Hub."""
    return HfApi(endpoint=hub.url, token=token)


def pushed(hub: HubServer, folder: Path, **options: object) -> Pushed:
    """Push with TOKEN."""
    return Pusher(folder, Target(REPO, **options), api(hub)).push()  # type: ignore[arg-type]


def local(folder: Path) -> dict[str, str]:
    """Name -> sha256 of a release here."""
    files = {**dict(release_files(folder)), "SHA256SUMS": folder / "SHA256SUMS"}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def seen(hub: HubServer, cache: Path, revision: str = "main") -> dict[str, str]:
    """Name -> sha256 of what a reader gets."""
    shutil.rmtree(cache, ignore_errors=True)
    found = Path(snapshot_download(REPO, revision=revision, cache_dir=cache, endpoint=hub.url, token=TOKEN))
    return {
        path.relative_to(found).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found.rglob("*")
        if path.is_file() and path.name != ".gitattributes"
    }


def test_a_new_repository_then_a_new_release_in_one_commit_each(
    hub: HubServer, releases: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = releases
    first = pushed(hub, old, private=True, tag="v1")
    assert first.created and first.committed and hub.repos[REPO].private
    assert seen(hub, tmp_path / "cache") == local(old) and hub.commits(REPO) == 1
    second = pushed(hub, new, tag="v2")
    assert not second.created and "model.safetensors.index.json" in second.plan.deleted
    assert seen(hub, tmp_path / "cache") == local(new) and hub.commits(REPO) == 2
    assert seen(hub, tmp_path / "cache", "v1") == local(old) and hub.repos[REPO].tags["v2"] == second.commit
    again = pushed(hub, new, tag="v2")
    assert not again.committed and again.plan.is_empty and hub.commits(REPO) == 2


def test_a_lost_answer_of_the_commit_makes_no_second_one(hub: HubServer, releases: tuple[Path, Path]) -> None:
    pushed(hub, releases[0])
    hub.faults = [Fault(0, Wrong.lost_answer, "POST .*/commit/")]
    assert pushed(hub, releases[1]).committed and hub.commits(REPO) == 2


@pytest.mark.parametrize("wrong", [Wrong.error, Wrong.too_many, Wrong.refused])
def test_a_commit_that_failed_is_tried_again(hub: HubServer, releases: tuple[Path, Path], wrong: Wrong) -> None:
    pushed(hub, releases[0])
    hub.faults = [Fault(0, wrong, "POST .*/commit/", times=2)]
    assert pushed(hub, releases[1]).committed and hub.commits(REPO) == 2


def test_a_dry_run_needs_no_right_to_write_and_changes_nothing(hub: HubServer, releases: tuple[Path, Path]) -> None:
    nowhere = Pusher(releases[0], Target(REPO), api(hub, False)).dry_run()
    assert nowhere.created and len(nowhere.plan.added) == len(nowhere.contents) and not hub.repos
    pushed(hub, releases[0])
    made = Pusher(releases[1], Target(REPO), api(hub, False)).dry_run()
    assert {"config.json", "README.md"} & {*made.plan.unchanged, *made.plan.changed}
    assert "model.safetensors" in made.plan.added and made.plan.deleted and hub.commits(REPO) == 1


def test_a_branch_of_its_own(hub: HubServer, releases: tuple[Path, Path], tmp_path: Path) -> None:
    pushed(hub, releases[0])
    pushed(hub, releases[1], branch="next")
    assert seen(hub, tmp_path / "cache", "next") == local(releases[1])
    assert seen(hub, tmp_path / "cache") == local(releases[0])


def test_somebody_elses_push_is_not_overwritten(
    hub: HubServer, releases: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(hub, releases[0])

    def theirs(number: int) -> None:
        if hub.requests[-1].endswith("/batch"):
            repo = hub.repos[REPO]
            repo.commit("main", {**repo.tree("main"), "note.md": blob_of(b"theirs")}, "theirs")
            hub.before = lambda number: None

    hub.before = theirs
    with pytest.raises(PushError, match="somebody pushed to main of org/demo meanwhile"):
        pushed(hub, releases[1])
    assert hub.commits(REPO) == 2 and "note.md" in hub.repos[REPO].tree("main")


def test_files_that_no_release_brought_stay_unless_asked(hub: HubServer, releases: tuple[Path, Path]) -> None:
    pushed(hub, releases[0])
    repo = hub.repos[REPO]
    hub.content[blob_of(b"x")["sha256"]] = b"x"
    repo.commit("main", {**repo.tree("main"), "pytorch_model.bin": blob_of(b"x")}, "theirs")
    with pytest.raises(PushError, match=r"holds pytorch_model.bin, which no release brought .*--delete-others"):
        pushed(hub, releases[1])
    pushed(hub, releases[1], delete_foreign=True)
    assert "pytorch_model.bin" not in repo.tree("main") and hub.commits(REPO) == 3


def test_tags_never_move(hub: HubServer, releases: tuple[Path, Path]) -> None:
    pushed(hub, releases[0], tag="v1")
    with pytest.raises(PushError, match="has a tag v1, of another release"):
        pushed(hub, releases[1], tag="v1")
    assert hub.commits(REPO) == 1


@pytest.mark.parametrize(
    ("token", "message"),
    [(False, "set HF_TOKEN, or run `hf auth login`"), ("hf_reader", "give it the write permission for org")],
)
def test_rights_that_are_missing_are_named(
    hub: HubServer, releases: tuple[Path, Path], token: str | bool, message: str
) -> None:
    for there in (False, True):
        if there:
            hub.repos[REPO] = Repo(REPO, private=False)
        with pytest.raises(PushError, match=message):
            Pusher(releases[0], Target(REPO), api(hub, token)).push()


def test_a_hub_that_stays_down_is_said_in_one_sentence(hub: HubServer, releases: tuple[Path, Path]) -> None:
    pushed(hub, releases[0])
    hub.faults = [Fault(0, Wrong.unavailable, ".", times=99)]
    with pytest.raises(PushError, match=r"the Hub cannot be reached .* push again") as error:
        pushed(hub, releases[1])
    assert len(error.value.problems) == 1 and TOKEN not in str(error.value)


def test_a_public_repository_does_not_become_private_unnoticed(hub: HubServer, releases: tuple[Path, Path]) -> None:
    pushed(hub, releases[0])
    with pytest.raises(PushError, match="exists and is public"):
        pushed(hub, releases[1], private=True)


def test_an_edited_card(hub: HubServer, releases: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(releases[0], tmp_path / "release")
    (tmp_path / "release" / "README.md").open("a").write("\nMore.\n")
    with pytest.raises(PushError, match="has changed"):
        pushed(hub, tmp_path / "release")
    renew_checksum(tmp_path / "release", "README.md")
    assert pushed(hub, tmp_path / "release").committed


def test_a_download_with_another_byte_is_caught_in_one_sentence(
    hub: HubServer, releases: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(hub, releases[1])
    download = partial(snapshot_download, endpoint=hub.url, cache_dir=tmp_path)
    monkeypatch.setattr("mmpretrain.assembly.fetched.snapshot_download", download)
    assert open_space(REPO, torch.device("cpu")).towers
    shutil.rmtree(tmp_path)
    hub.flip = {"model.safetensors"}
    with pytest.raises(UnusableError, match=r"model.safetensors has changed: its sha256") as error:
        open_space(REPO, torch.device("cpu"))
    assert len(error.value.problems) == 1


def spoiled(release: Path, folder: Path, name: str) -> Path:
    """A copy of a release with something that must not leave this machine."""
    shutil.copytree(release, folder)
    if name == "a link out":
        (folder / "more.txt").symlink_to(release / "README.md")
    elif name == "git":
        (folder / ".git").mkdir()
    elif name == "pickled":
        torch.save({}, folder / "model.txt")
    else:
        (folder / "README.md").write_text(f"Log in with {TOKEN}\n")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in release_files(folder)]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a link out", "is a link that leads out of the release"),
        ("git", ".git is no part of a release"),
        ("pickled", "holds pickled objects"),
        ("token", "holds an access token"),
    ],
)
def test_what_must_not_be_pushed(releases: tuple[Path, Path], tmp_path: Path, name: str, message: str) -> None:
    folder = spoiled(releases[1], tmp_path / "release", name)
    with pytest.raises(PushError, match=message) as error:
        Pusher(folder, Target(REPO))
    assert len(error.value.problems) == 1 and TOKEN not in str(error.value)
