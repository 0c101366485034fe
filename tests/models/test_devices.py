import pytest
import torch

from core.errors import ConfigError
from models import choose_device, use_threads


def test_auto_is_a_device_that_is_here():
    assert choose_device("auto") in ("cpu", "cuda:0")
    assert choose_device("cpu") == "cpu"


def test_a_device_that_is_not_here_names_those_that_are():
    with pytest.raises(ConfigError, match=r"Device 'cuda:99' is not here\. Available: cpu"):
        choose_device("cuda:99")


def test_a_number_of_threads_is_obeyed_and_none_changes_nothing():
    before = torch.get_num_threads()
    try:
        use_threads(2)
        assert torch.get_num_threads() == 2
        use_threads(None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_container_s_quota_is_not_exceeded_unless_somebody_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr("models.cpus_granted", lambda: 2)
        use_threads(8)
        assert torch.get_num_threads() == 8
        use_threads(None)
        assert torch.get_num_threads() == 2
        monkeypatch.setattr("models.cpus_granted", lambda: 16)
        use_threads(None)
        assert torch.get_num_threads() == 2  # and never raised to it
    finally:
        torch.set_num_threads(before)
