"""Similarity of tags and embeddings: conventions, the protocol, and clean references that are kept."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recogniser import EdgeRecogniser, checks

from dacesr.degradation.sweeps import SWEEPS
from dacesr.similarity import CleanReference, digest, embedding_cosine, fingerprint, jaccard, similarity
from dacesr.tensorfile import CheckpointError

TAGS = st.lists(st.sampled_from("abcdefgh"))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((), (), 1),
        (("sky",), (), 0),
        ((), ("sky",), 0),
        (("sky", "sea"), ("sea", "sky"), 1),
        (("sky", "sea"), ("sea", "sun"), 1 / 3),
        (("sky", "sky"), ("sky",), 1),
        (("sky", "sea", "sun", "bay"), ("sea",), 1 / 4),
    ],
)
def test_jaccard(one: tuple[str, ...], other: tuple[str, ...], expected: float) -> None:
    assert jaccard(one, other) == expected


@given(a=TAGS, b=TAGS)
def test_jaccard_is_symmetric_and_1_for_equal_sets_only(a: list[str], b: list[str]) -> None:
    assert jaccard(a, b) == jaccard(b, a)
    assert 0 <= jaccard(a, b) <= 1
    assert (jaccard(a, b) == 1) == (set(a) == set(b))


def test_cosine_is_a_mean_over_tokens() -> None:
    a = torch.tensor([[[1.0, 0], [0, 2]], [[1, 1], [3, 0]]])
    b = torch.tensor([[[5.0, 0], [1, 0]], [[-1, -1], [1, 0]]])
    torch.testing.assert_close(embedding_cosine(a, b), torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(embedding_cosine(a.half(), a.half()), torch.ones(2))
    with pytest.raises(ValueError, match=r"not \(2, 2, 2\) and \(2, 1, 2\)"):
        embedding_cosine(a, b[:, :1])


def test_a_clean_picture_is_like_itself() -> None:
    pictures, extractor = checks(5), EdgeRecogniser()
    found = CleanReference.of(extractor, pictures).compare(extractor, pictures)
    assert torch.equal(found.jaccard, torch.ones(5, dtype=torch.float64))
    assert (found.cosine > 0.9999).all()


def test_pictures_of_one_size_are_recognised_together() -> None:
    extractor = EdgeRecogniser()
    CleanReference.of(extractor, checks(9), batch=3)
    assert extractor.batches == [(3, 3, 48, 64), (2, 3, 48, 64), (3, 3, 64, 48), (1, 3, 64, 48)]


def test_results_stand_in_the_order_of_the_pictures() -> None:
    pictures, extractor = checks(6), EdgeRecogniser()
    together = CleanReference.of(extractor, pictures)
    for place, picture in enumerate(pictures):
        alone = CleanReference.of(extractor, [picture])
        assert alone.tags == (together.tags[place],)
        torch.testing.assert_close(alone.tokens[0], together.tokens[place])
    others = [picture.flip(-1) * 0.5 for picture in pictures]
    all_of_them = together.compare(extractor, others)
    for place, (picture, other) in enumerate(zip(pictures, others, strict=True)):
        found = CleanReference.of(extractor, [picture]).compare(extractor, [other])
        assert found.jaccard[0] == all_of_them.jaccard[place] < 1
        torch.testing.assert_close(found.cosine[0], all_of_them.cosine[place])


@pytest.mark.parametrize("name", ["blur", "noise"])
def test_similarity_falls_with_the_level(name: str) -> None:
    pictures, extractor, sweep = checks(6), EdgeRecogniser(), SWEEPS[name]
    reference = CleanReference.of(extractor, pictures)
    means = []
    for level in sweep.levels:
        found = similarity(reference, {"it": extractor}, pictures, lambda x, g, at=level: sweep.apply(x, at, g))
        means.append([part.mean().item() for part in found["it"]])
    by_tags, by_embedding = (list(column) for column in zip(*means, strict=True))
    assert by_tags == sorted(by_tags, reverse=True)
    assert by_embedding == sorted(by_embedding, reverse=True)
    assert by_tags[-1] < by_tags[0] - 0.1


def test_all_extractors_see_the_same_pictures() -> None:
    pictures, reference, seen = checks(4), EdgeRecogniser(), []

    def degrade(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(torch.rand((), generator=generator).item())
        return SWEEPS["noise"].apply(x, 20, generator)

    clean, threads = CleanReference.of(reference, pictures), torch.get_num_threads()
    found = similarity(clean, {"a": reference, "b": EdgeRecogniser(), "c": EdgeRecogniser(12)}, pictures, degrade)
    assert list(found) == ["a", "b", "c"]
    assert len(set(seen)) == len(seen) == 4
    assert torch.get_num_threads() == threads
    assert torch.equal(found["a"].jaccard, found["b"].jaccard)
    assert not torch.equal(found["a"].jaccard, found["c"].jaccard)
    again = similarity(clean, {"a": reference}, pictures, degrade)
    assert torch.equal(found["a"].cosine, again["a"].cosine)
    other = similarity(clean, {"a": reference}, pictures, degrade, seed=1)
    assert not torch.equal(found["a"].cosine, other["a"].cosine)


def test_a_reference_is_kept(tmp_path: Path) -> None:
    pictures, extractor = checks(4), EdgeRecogniser()
    first = CleanReference.of(extractor, pictures, cache=tmp_path / "clean")
    extractor.batches.clear()
    again = CleanReference.of(extractor, pictures, cache=tmp_path / "clean")
    assert extractor.batches == []
    assert again.tags == first.tags
    assert torch.equal(again.tokens, first.tokens)
    assert first.tokens.dtype == torch.float16
    CleanReference.of(extractor, pictures[:3], cache=tmp_path / "clean")
    CleanReference.of(EdgeRecogniser(12), pictures, cache=tmp_path / "clean")
    files = sorted((tmp_path / "clean").iterdir())
    assert len(files) == 3
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty, not a checkpoint"):
        CleanReference.of(extractor, pictures, cache=tmp_path / "clean")


def test_what_decides_a_fingerprint() -> None:
    one, other = EdgeRecogniser(), EdgeRecogniser()
    assert fingerprint(one) == fingerprint(other)
    other.tag_names = tuple(reversed(other.tag_names))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) != fingerprint(EdgeRecogniser(highest=0.13))
    one.thresholds = torch.ones(3)
    assert fingerprint(one) != fingerprint(EdgeRecogniser())
    pictures = checks(3)
    assert digest(pictures) == digest(checks(3))
    assert digest(pictures) != digest(pictures[::-1])


def test_impossible_calls_are_told() -> None:
    extractor, pictures = EdgeRecogniser(), checks(2)
    with pytest.raises(ValueError, match="no clean picture"):
        CleanReference.of(extractor, [])
    with pytest.raises(ValueError, match="2 clean pictures cannot be held against 1 degraded"):
        CleanReference.of(extractor, pictures).compare(extractor, pictures[:1])
    with pytest.raises(ValueError, match="embeddings"):
        CleanReference(((),) * 2, torch.zeros(2, 16, 3)).compare(extractor, pictures)
