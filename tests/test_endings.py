"""Every end of a run has its own number and meaning."""

from mmpretrain.endings import Ending, ending_of


class _FullError(OSError):
    ending = Ending.disk_full


def test_an_error_says_what_it_means_for_the_run() -> None:
    assert ending_of(_FullError()) is Ending.disk_full
    assert ending_of(ValueError()) is Ending.failed
    assert Ending.preempted.code == 75
