"""Everything that can be trained, by the config that asks for it."""

from collections.abc import Callable

from accelerate import Accelerator

from dacesr.train.config import RestorerTraining
from dacesr.train.extractor import ExtractorTask
from dacesr.train.recognition import ExtractorTraining, TaggerTraining
from dacesr.train.restorer import RestorerTask
from dacesr.train.tagger import TaggerTask
from dacesr.train.task import Task

Training = RestorerTraining | TaggerTraining | ExtractorTraining

TRAININGS: dict[str, type[Training]] = {
    kind.__name__: kind for kind in (RestorerTraining, TaggerTraining, ExtractorTraining)
}


def make_task(config: Training, accelerator: Accelerator, warn: Callable[[str], None]) -> Task:
    """The task of a config.

    Raises:
        ValueError: A file or folder that the config names is missing or unfit; the sentence says which.
    """
    match config:
        case ExtractorTraining():
            return ExtractorTask(config, accelerator, warn)
        case TaggerTraining():
            return TaggerTask(config, accelerator, warn)
        case RestorerTraining():
            return RestorerTask(config, accelerator, warn)
