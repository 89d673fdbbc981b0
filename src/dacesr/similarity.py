"""How much of what a recognition model sees in a picture is left when the picture is degraded (DACESR Eq. 1 and 2).

The reference extractor (RAM in the paper) names the clean pictures once. An extractor under test (RAM, DAPE, REE, ...)
names the degraded ones, and both sets of tags are compared by Jaccard's index, both embeddings by the cosine:

    J(A, A') = |A and A'| / |A or A'|, averaged over the pictures of each degradation
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.nets.tagger import Recognition
from dacesr.sources import sample_generator
from dacesr.tensorfile import CheckpointError, read_header, read_tensors, write_whole

BATCH = 32

Degrade = Callable[[Tensor, torch.Generator], Tensor]
"""(1, 3, h, w) in [0, 1] and a generator on its device -> (1, 3, h', w') in [0, 1]."""


class Recogniser(Protocol):
    """An extractor: pictures of any size to an embedding and tags."""

    def recognise(self, x: Tensor) -> Recognition:
        """Tokens and logits of pictures (b, 3, h, w) in [0, 1]."""
        ...

    def names(self, logits: Tensor) -> list[tuple[str, ...]]:
        """The tags that logits (b, tags) stand for."""
        ...


class Similarity(NamedTuple):
    """Of n pictures: `jaccard` (n,) and `cosine` (n,), fp64 on the CPU."""

    jaccard: Tensor
    cosine: Tensor


def jaccard(a: Iterable[str], b: Iterable[str]) -> float:
    """Jaccard's index of two sets of tags (Eq. 1): 1 where both are empty, 0 where one is."""
    one, other = set(a), set(b)
    return len(one & other) / len(one | other) if one or other else 1.0


def embedding_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean over tokens of the cosine between embeddings (b, t, c) of the same pictures: (b,), in fp32.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(
            f"embeddings (b, t, c) of one shape can be compared, not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return F.cosine_similarity(a.float(), b.float(), dim=-1).mean(1)


@dataclass(frozen=True)
class CleanReference:
    """What the reference extractor finds in clean pictures, computed once.

    Attributes:
        tags: Of each picture.
        tokens: (n, t, c) fp16 on the CPU.
    """

    tags: tuple[tuple[str, ...], ...]
    tokens: Tensor

    @classmethod
    def of(
        cls, extractor: Recogniser, pictures: Sequence[Tensor], *, cache: Path | None = None, batch: int = BATCH
    ) -> "CleanReference":
        """Recognise clean pictures, or read what was found in an earlier call.

        Args:
            extractor: The reference; to be kept in files it has to be a module (see `fingerprint`).
            pictures: (3, h, w) in [0, 1] each, of any sizes, on the device of the extractor.
            cache: Folder of files named by the extractor's weights and the pictures' values; none is kept unless given.
            batch: Pictures of one size that are recognised at a time.

        Raises:
            ValueError: There is no picture, or the folder holds a damaged file.
            OSError: The folder cannot be written.
        """
        if not pictures:
            raise ValueError("there is no clean picture to recognise")
        if cache is None:
            return cls(*_recognised(extractor, pictures, batch))
        path = cache / f"{fingerprint(extractor)[:16]}-{digest(pictures)[:16]}.safetensors"
        if path.exists():
            return cls._read(path, len(pictures))
        found = cls(*_recognised(extractor, pictures, batch))
        cache.mkdir(parents=True, exist_ok=True)
        header = {"tags": json.dumps(found.tags, ensure_ascii=False)}
        write_whole(path, safetensors.torch.save({"tokens": found.tokens}, metadata=header))
        return found

    @classmethod
    def _read(cls, path: Path, count: int) -> "CleanReference":
        tensors, header = read_tensors(path).tensors, read_header(path)
        tokens = tensors.get("tokens")
        if tokens is None or len(tokens) != count or "tags" not in header:
            raise CheckpointError(f"{path} does not hold the tags and tokens of {count} pictures: delete it")
        return cls(tuple(tuple(names) for names in json.loads(header["tags"])), tokens)

    def compare(self, extractor: Recogniser, degraded: Sequence[Tensor], *, batch: int = BATCH) -> Similarity:
        """Hold what an extractor finds in the degraded pictures against the reference.

        Args:
            extractor: The one under test.
            degraded: (3, h, w) in [0, 1] each, in the order of the clean ones, of any sizes.
            batch: Pictures of one size that are recognised at a time.

        Raises:
            ValueError: Another number of pictures, or the extractor's embedding has another shape.
        """
        if len(degraded) != len(self.tags):
            raise ValueError(f"{len(self.tags)} clean pictures cannot be held against {len(degraded)} degraded ones")
        index, cosine = (torch.zeros(len(degraded), dtype=torch.float64) for _ in range(2))
        for members, found, names in _in_batches(extractor, degraded, batch):
            for member, tags in zip(members, names, strict=True):
                index[member] = jaccard(self.tags[member], tags)
            cosine[members] = (
                embedding_cosine(found.tokens, self.tokens[members].to(found.tokens.device)).cpu().double()
            )
        return Similarity(index, cosine)


def similarity(
    reference: CleanReference,
    extractors: Mapping[str, Recogniser],
    pictures: Sequence[Tensor],
    degrade: Degrade,
    *,
    seed: int = 0,
    batch: int = BATCH,
) -> dict[str, Similarity]:
    """The protocol (Eq. 2): degrade every picture once, name it by every extractor, compare with the clean one.

    Args:
        reference: Of the clean pictures.
        extractors: Those under test, by name; all see the same degraded pictures.
        pictures: The clean ones, (3, h, w) in [0, 1] each.
        degrade: Gets each picture as a batch of one, in threads of their own.
        seed: With a picture's place in the list it decides the picture's generator.
        batch: Pictures of one size that are recognised at a time.

    Returns:
        For each extractor a similarity per picture.
    """
    degraded = _degraded(pictures, degrade, seed)
    return {name: reference.compare(extractor, degraded, batch=batch) for name, extractor in extractors.items()}


def _degraded(pictures: Sequence[Tensor], degrade: Degrade, seed: int) -> list[Tensor]:
    """Each picture degraded once, several at a time: each is too small to be shared by threads."""
    threads = torch.get_num_threads()

    def one(place: int, picture: Tensor) -> Tensor:
        generator = torch.Generator(picture.device).manual_seed(sample_generator(seed, place).initial_seed())
        return degrade(picture[None], generator)[0]

    try:
        with ThreadPoolExecutor(threads, "degrading", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(one, range(len(pictures)), pictures))
    finally:
        torch.set_num_threads(threads)  # threads that start later take the number that was set last


def _recognised(
    extractor: Recogniser, pictures: Sequence[Tensor], batch: int
) -> tuple[tuple[tuple[str, ...], ...], Tensor]:
    """Tags and fp16 tokens of all pictures."""
    tags: list[tuple[str, ...]] = [()] * len(pictures)
    tokens: list[Tensor] = [torch.empty(0)] * len(pictures)
    for members, found, names in _in_batches(extractor, pictures, batch):
        for member, own, embedding in zip(members, names, found.tokens.half().cpu(), strict=True):
            tags[member], tokens[member] = own, embedding
    return tuple(tags), torch.stack(tokens)


def _in_batches(
    extractor: Recogniser, pictures: Sequence[Tensor], batch: int
) -> Iterator[tuple[list[int], Recognition, list[tuple[str, ...]]]]:
    """Which pictures, what was found in them, and their tags; pictures of one size are recognised together."""
    by_size: dict[torch.Size, list[int]] = {}
    for place, picture in enumerate(pictures):
        by_size.setdefault(picture.shape, []).append(place)
    for places in by_size.values():
        for start in range(0, len(places), batch):
            members = places[start : start + batch]
            with torch.inference_mode():
                found = extractor.recognise(torch.stack([pictures[i] for i in members]))
                names = extractor.names(found.logits)
            yield members, found, names


def fingerprint(extractor: Recogniser) -> str:
    """SHA-256 of all that decides what an extractor says: its weights, and the tags and thresholds of its parts.

    Raises:
        ValueError: It is no module.
    """
    if not isinstance(extractor, nn.Module):
        raise ValueError(f"a {type(extractor).__name__} has no weights by which to know it")
    hashed = hashlib.sha256()
    for name, tensor in extractor.state_dict().items():
        hashed.update(name.encode())
        _hash_tensor(hashed, tensor)
    for part in extractor.modules():
        hashed.update("\n".join(getattr(part, "tag_names", ())).encode())
        thresholds = getattr(part, "thresholds", None)
        if isinstance(thresholds, Tensor):
            _hash_tensor(hashed, thresholds)
    return hashed.hexdigest()


def digest(pictures: Sequence[Tensor]) -> str:
    """SHA-256 of the pictures' sizes and values."""
    hashed = hashlib.sha256()
    for picture in pictures:
        _hash_tensor(hashed, picture)
    return hashed.hexdigest()


def _hash_tensor(hashed: "hashlib._Hash", tensor: Tensor) -> None:
    hashed.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    hashed.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
