"""What decides scores is all there, and a change of it shows."""

import shutil
from pathlib import Path

import pytest

from dacesr.evaluate import version


def test_a_change_of_what_decides_scores_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "dacesr"
    for name in version.DECIDING:
        source, target = version.PACKAGE / name, copied / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    original = version.code_version()
    monkeypatch.setattr(version, "PACKAGE", copied)
    version.code_version.cache_clear()
    assert version.code_version() == original
    for name in ("nets/mamba.py", "featurefile.py"):
        (copied / name).write_text((copied / name).read_text() + "# changed\n")
        version.code_version.cache_clear()
        assert version.code_version() != original
    (copied / "imresize.py").unlink()
    version.code_version.cache_clear()
    with pytest.raises(FileNotFoundError):
        version.code_version()
    version.code_version.cache_clear()
