"""Everything that can be trained, by the config that asks for it."""

from collections.abc import Callable

from accelerate import Accelerator

from dacesr.train.config import RestorerTraining
from dacesr.train.recognition import TaggerTraining
from dacesr.train.restorer import RestorerTask
from dacesr.train.tagger import TaggerTask
from dacesr.train.task import Task

Training = RestorerTraining | TaggerTraining


def make_task(config: Training, accelerator: Accelerator, warn: Callable[[str], None]) -> Task:
    """The task of a config.

    Raises:
        ValueError: A file or folder that the config names is missing or unfit; the sentence says which.
    """
    if isinstance(config, TaggerTraining):
        return TaggerTask(config, accelerator, warn)
    return RestorerTask(config, accelerator, warn)
