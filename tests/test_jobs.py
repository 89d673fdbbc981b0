"""Which picture becomes which file, and calls that cannot be meant."""

from pathlib import Path

import pytest

from dacesr.jobs import JobError, plan_jobs, target_format


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "in/b.JPG", "in/notes.txt", "in/.hidden.png", "in/sub/c.webp", "in/sub/deep/d.tiff"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(jobs):
    return [(str(job.source), str(job.target)) for job in jobs]


def test_folders_and_files_go_to_a_folder(tree):
    assert names(plan_jobs(["a.png", "in"], "out")) == [("a.png", "out/a_x4.png"), ("in/b.JPG", "out/b_x4.JPG")]


def test_recursive_keeps_the_tree(tree):
    jobs = plan_jobs(["in"], "out", recursive=True, suffix="_big", extension="png")
    assert [target for _, target in names(jobs)] == ["out/b_big.png", "out/sub/c_big.png", "out/sub/deep/d_big.png"]


def test_one_picture_may_go_to_a_named_file(tree):
    assert names(plan_jobs(["a.png"], "big.jpg")) == [("a.png", "big.jpg")]
    assert names(plan_jobs(["a.png"], "big")) == [("a.png", "big/a_x4.png")]
    assert names(plan_jobs(["a.png"], "big.jpg/")) == [("a.png", "big.jpg/a_x4.png")]
    (tree / "dir.png").mkdir()
    assert names(plan_jobs(["a.png"], "dir.png")) == [("a.png", "dir.png/a_x4.png")]


def test_outputs_inside_the_input_are_not_input_again(tree):
    (tree / "in/out").mkdir()
    (tree / "in/out/b_x4.JPG").write_bytes(b"x")
    jobs = plan_jobs(["in"], "in/out", recursive=True)
    assert "in/out/b_x4.JPG" not in [source for source, _ in names(jobs)]
    assert len(jobs) == 3


def test_streams(tree):
    (job,) = plan_jobs(["-"], "-", extension="jpg")
    assert (job.source, job.target, job.extension, job.name) == (None, None, ".jpg", "standard input")
    (job,) = plan_jobs(["-"], "out")
    assert target_format(job, "webp") == (Path("out/stdin_x4.webp"), "webp")
    (job,) = plan_jobs(["-"], "x.png")
    assert target_format(job, "webp") == (Path("x.png"), "png")


def test_a_name_without_an_ending_gets_that_of_its_format(tree):
    (tree / "photo.v2").write_bytes(b"x")
    (job,) = plan_jobs(["photo.v2"], "out")
    assert target_format(job, "jpeg") == (Path("out/photo.v2_x4.jpg"), "jpeg")


@pytest.mark.parametrize(
    ("inputs", "output", "options", "words"),
    [
        (["in/sub/deep", "in/sub/deep/d.tiff"], "out", {}, "would both become out/d_x4.tiff"),
        (["a.png"], ".", {"suffix": ""}, "is an input and would be overwritten"),
        (["a.png"], "a.png", {}, "is an input and would be overwritten"),
        (["a.png", "in/b.JPG"], "a.png", {}, "a.png is a file, and several pictures need a folder"),
        (["in"], "in", {}, "input and output at once"),
        (["empty"], "out", {}, "no picture in empty; --recursive looks into"),
        (["a.png"], "out", {"extension": "xcf"}, "cannot be written as .xcf"),
        (["a.png"], "b.png", {"extension": "jpg"}, "b.png ends in .png, but --ext asks for .jpg"),
        (["-", "a.png"], "out", {}, "take one picture"),
        (["in"], "-", {}, "take one picture"),
    ],
)
def test_calls_that_cannot_be_meant(tree, inputs, output, options, words):
    (tree / "empty").mkdir()
    with pytest.raises(JobError, match=words):
        plan_jobs(inputs, output, **options)


def test_a_link_to_an_input_is_that_input(tree):
    (tree / "out").mkdir()
    (tree / "out/a_x4.png").symlink_to(tree / "a.png")
    with pytest.raises(JobError, match="is an input"):
        plan_jobs(["a.png"], "out")
