"""Methods from how they are named, and the results of others in folders."""

from pathlib import Path

import pytest
import torch

from dacesr import Upscaler
from dacesr.checkpoint import bundled_names
from dacesr.evaluate.methods import Method, find_methods, find_results, results_of, short_name
from dacesr.image import imresize, write

PICTURE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def find(*names: str, scale: int = 4) -> list[Method]:
    return find_methods(names, scale=scale, device="cpu", precision="fp32", tile=0)


def enlarge(method: Method) -> torch.Tensor:
    assert method.enlarge is not None
    return method.enlarge(PICTURE)


def test_classical_enlargement_is_matlabs() -> None:
    bicubic, lanczos = find("bicubic", "lanczos")
    torch.testing.assert_close(enlarge(bicubic), imresize(PICTURE, 4).clamp(0, 1))
    torch.testing.assert_close(enlarge(lanczos), imresize(PICTURE, 4, kernel="lanczos3").clamp(0, 1))
    assert bicubic.key != lanczos.key


def test_all_stands_for_the_bundled_models() -> None:
    assert [method.name for method in find("bicubic", "all")] == ["bicubic", *bundled_names()]
    assert [method.name for method in find("all", "light")] == bundled_names()


def test_files_are_called_by_their_stem_or_their_run(bilinear_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run7" / "model.safetensors"
    run.parent.mkdir()
    run.write_bytes(bilinear_file.read_bytes())
    one, two, three = find(str(bilinear_file), str(run), f"mine={run}")
    assert [one.name, two.name, three.name] == [bilinear_file.stem, "run7", "mine"]
    assert one.key == two.key == three.key  # the same weights, whatever they are called
    torch.testing.assert_close(enlarge(one), Upscaler.load(str(bilinear_file), precision="fp32")(PICTURE, tile=0))


def test_a_strength_makes_another_method() -> None:
    faithful, crisp = find("light@0", "light@1")
    assert (faithful.name, crisp.name) == ("light@0", "light@1")
    assert faithful.key != crisp.key
    torch.testing.assert_close(enlarge(crisp), Upscaler.load("light", strength=1.0, precision="fp32")(PICTURE, tile=0))
    assert not torch.equal(enlarge(faithful), enlarge(crisp))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["nothing"], "nothing does not exist"),
        (["FOLDER"], "is a folder: say what made its pictures, as in NAME="),
        (["x=bicubic.safetensors"], "bicubic.safetensors does not exist"),
        (["bicubic", "bicubic=FILE"], "two methods are called bicubic"),
        (["bilinear@0.5"], "bilinear does not exist"),
        (["FILE@0.5"], "has one set of weights"),
    ],
)
def test_what_is_no_method(names: list[str], sentence: str, bilinear_file: Path, tmp_path: Path) -> None:
    for word, place in {"FILE": bilinear_file, "FOLDER": tmp_path}.items():
        names = [name.replace(word, str(place)) for name in names]
    with pytest.raises(ValueError, match=sentence):
        find(*names)


def test_models_of_another_scale_are_refused(bilinear_file: Path) -> None:
    with pytest.raises(ValueError, match="enlarges 4 times, and the pictures are to be enlarged 2 times"):
        find(str(bilinear_file), scale=2)


# --- folders of results


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, PICTURE)
    return folder


@pytest.mark.parametrize("file", ["a1.png", "a1_x4.png", "a1x4.png", "a1_SeeSR_out.png", "a1-0.jpg", "a1.out.png"])
def test_a_result_is_found_by_the_name_of_its_picture(tmp_path: Path, file: str) -> None:
    folder = tree(tmp_path, file, "a10_x4.png", "a11.png", "b1.png")
    assert find_results(folder, ["a1"]) == {"a1": folder / file}


def test_the_exact_name_comes_first_and_others_are_not_guessed(tmp_path: Path) -> None:
    folder = tree(tmp_path, "a.png", "a_x4.png", "b_1.png", "b_2.png")
    found = find_results(folder, ["a", "b", "c"])
    assert found["a"] == folder / "a.png"
    assert "holds 2 files (b_1.png, b_2.png, ...) for the picture b" in str(found["b"])
    assert "holds no file for the picture c" in str(found["c"])


def test_a_result_is_that_of_the_longest_name(tmp_path: Path) -> None:
    folder = tree(tmp_path, "tree_2_out.png", "sub/tree_out.png")
    found = find_results(folder, ["tree", "tree_2", "sub/tree"])
    assert found["tree_2"] == folder / "tree_2_out.png"
    assert "holds no file for the picture tree" in str(found["tree"])
    assert found["sub/tree"] == folder / "sub/tree_out.png"


def test_subfolders_of_the_set_and_version_come_first(tmp_path: Path) -> None:
    folder = tree(tmp_path, "a.png", "Set5/a.png", "Set5/level1/a.png", "level2/a.png")
    for chosen, version, place in (
        ("Set5", "level1", "Set5/level1/a.png"),
        ("Set5", "level2", "level2/a.png"),
        ("Set5", "level3", "Set5/a.png"),
        ("Set14", "level3", "a.png"),
    ):
        assert find_results(folder, ["a"], chosen, version)["a"] == folder / place


def test_short_names(tmp_path: Path, bilinear_file: Path) -> None:
    assert [short_name(name) for name in ("default", "light", "owner/name")] == ["dacesr-light", "light", "owner/name"]
    assert short_name(str(bilinear_file)) == "bilinear"


def test_a_folder_is_a_method(tmp_path: Path) -> None:
    (tmp_path / "seesr").mkdir()
    (method,) = find(f"SeeSR={tmp_path / 'seesr'}")
    assert (method.name, method.folder, method.enlarge) == ("SeeSR", tmp_path / "seesr", None)
    assert results_of(tmp_path / "seesr").name == "seesr"
    with pytest.raises(ValueError, match="is not a folder of pictures"):
        results_of(tmp_path / "none")
