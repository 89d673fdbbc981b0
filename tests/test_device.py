"""What is found out about the machine."""

import pytest

from dacesr import device


@pytest.mark.parametrize(
    ("found", "new"), [("3.2.1", False), ("3.3.0", True), ("3.10.0", True), ("4.0", True), ("git", True)]
)
def test_which_triton_is_new_enough(found, new, monkeypatch):
    monkeypatch.setattr(device, "version", lambda name: found)
    assert device._is_new("triton", 3, 3) == new
