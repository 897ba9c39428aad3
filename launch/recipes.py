"""Named training runs: `train.py --recipe NAME`; flags after it change single values."""

from pathlib import Path

from corrflow import InputError
from corrflow.encoder import EncoderConfig
from corrflow.model import ModelConfig
from corrflow.training.config import TrainerConfig, TrainingConfig
from corrflow.training.schedule import ScheduleConfig
from launch.config import TrainJob
from shards.clip import ClipConfig
from shards.stream import StreamConfig

NOWHERE = Path()


def released() -> TrainJob:
    """The paper's training as released: 256x256 squashed, batch 6, Adam 2e-4 halving from 400,000 clips on.

    Lai & Xie, BMVC 2019: about a million clips of Kinetics; DAVIS-2017 val J&F 49.5 published.
    """
    return TrainJob("", NOWHERE)


def cpu() -> TrainJob:
    """The full model at a size that two CPU cores train in half an hour: 128x128 random crops, flips, 400 steps of 4 clips.

    The learning rate is four times the paper's, and halves thrice: so short a training is short of steps. Pack with `--size 168`.
    README.md has what it gave.
    """
    return TrainJob(
        "",
        NOWHERE,
        clip=ClipConfig(size=128, fit="crop", flip=True),
        training=TrainingConfig(
            schedule=ScheduleConfig(learning_rate=8e-4, base_batch=4, halve_after=(800, 1200, 1400), truth_clips=1600),
            trainer=TrainerConfig(steps=400, batch=4, save_every=50, pictures_every=100),
        ),
    )


def demo() -> TrainJob:
    """Minutes on two CPU cores: a quarter of the encoder's arithmetic, small crops, generated videos."""
    return TrainJob(
        "",
        NOWHERE,
        clip=ClipConfig(size=96, fit="crop", flip=True),
        stream=StreamConfig(workers=1),
        training=TrainingConfig(
            model=ModelConfig(encoder=EncoderConfig(widths=(32, 64, 128, 128))),
            schedule=ScheduleConfig(learning_rate=1e-3, base_batch=4, truth_clips=1000),
            trainer=TrainerConfig(steps=150, batch=4, log_every=5, save_every=50, pictures_every=50),
        ),
    )


RECIPES = {"released": released, "cpu": cpu, "demo": demo}


def find_recipe(name: str) -> TrainJob:
    """A recipe by its name; InputError lists the names."""
    if name not in RECIPES:
        raise InputError(f"recipe {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()
