"""Named training runs: `train.py --recipe NAME`; flags after it change single values."""

import argparse
from dataclasses import replace
from pathlib import Path

from corrflow import InputError
from corrflow.augmentation import AugmentationConfig
from corrflow.encoders import find_encoder
from corrflow.loss import LossConfig
from corrflow.model import ModelConfig
from corrflow.palette import LAB64, TargetConfig
from corrflow.training.config import TrainerConfig, TrainingConfig
from corrflow.training.schedule import ScheduleConfig
from launch.configs.train import TrainJob
from shards.reading.clip import ClipConfig
from shards.reading.stream import StreamConfig

NOWHERE = Path()
# pixels: the crops of two frames may differ by up to 32, so a static scene moves by that much, and
# mostly stays within the attention window's radius of 24; docs/ablations.md
SHIFT = 16
# better than as released: an inverse temperature of 1/sqrt(64) keeps the copy soft; both settings
# are compared in docs/ablations.md
LAB_MODEL = ModelConfig(inverse_temperature=0.125, input="lab")
# the published colour classes and 64 classes of Lab: docs/ablations.md
TWO_PALETTES = TargetConfig(second_palette=str(LAB64), second_share=0.4, lightness=0.3)


def released() -> TrainJob:
    """The paper's training as released, on Kinetics: frames squashed to 256x256, batch 6, Adam with
    a rate of 2e-4 that is halved from 400,000 clips on.

    `launch/shard.py --source kinetics --every 4 --size 256x256 --out shards`,
    `launch/train.py --recipe released --data shards --run RUN`. Cost: not yet run; by count 426
    GFLOP a clip, 5.1e17 in all. Expected: DAVIS-2017 val J&F 49.5 (Lai & Xie, BMVC 2019).

    On OxUvA (`--source oxuva --size 256x256`) the paper has 50.3. The script that was released for
    it fails at an option that it does not define, so whether its schedule is this one is unknown.
    """
    return TrainJob("", NOWHERE)


def gpu() -> TrainJob:
    """The default: as many clips as the paper, with what helped in ablations: Lab input, a soft
    copy, shifted crops, two targets, an EMA of the weights; batch 48.

    `launch/shard.py --source VIDEOS --out shards`,
    `launch/train.py --data shards --run RUN --validation.root DAVIS`. Crops of 192 pixels leave
    room in the packed 256 to lie anywhere, and to be shifted in both directions. The rate is 2e-4 *
    sqrt(48 / 6), because at 2e-4 an eighth of the steps would learn too little. Cost: not yet run;
    by count of operations alone: 1.2 million clips of 240 GFLOP are 2.9e17, an hour at 80 TFLOP/s,
    8 % of a Hopper's dense bfloat16. Expected: at least the accuracy of `large` without enlarged
    frames: `large` is this recipe's model after 60,000 clips, two minutes on an H200
    (docs/model.md).
    """
    return TrainJob(
        "",
        NOWHERE,
        clip=ClipConfig(size=192, fit="crop", flip=True, shift=SHIFT),
        stream=StreamConfig(workers=8),
        training=TrainingConfig(
            model=LAB_MODEL,
            target=TWO_PALETTES,
            loss=LossConfig(batch_frames=True),
            schedule=ScheduleConfig(warmup_clips=20_000),
            trainer=TrainerConfig(steps=25_000, batch=48, ema_clips=20_000),
        ),
    )


def gpus64() -> TrainJob:
    """The default's training on 64 GPUs and four times as many clips: a global batch of 384, with a
    longer warm-up.

    `launch/train.py --recipe gpus64 --data shards --run RUN --validation.root DAVIS`, on 64
    processes. Each holds 6 clips, the released batch: enough for BatchNorm's statistics.
    Synchronising them, an exchange for each of 19 normalisations, would gain nothing
    (`--trainer.sync-batch-norm` is for 1 or 2 clips a process). The rate is 2e-4 * sqrt(384 / 6) =
    1.6e-3. The schedule's milestones and length are four times the paper's, since a batch 64 times
    as large takes fewer steps. Cost: not yet run; by count 1.2e18 operations in all. Expected: not
    yet run.
    """
    one = gpu()
    schedule = ScheduleConfig(
        halve_after=(1_600_000, 2_400_000, 3_200_000, 4_000_000),
        teacher_forcing_clips=4_000_000,
        warmup_clips=200_000,
    )
    trainer = TrainerConfig(
        steps=12_500, batch=384, ema_clips=100_000, save_every=500, pictures_every=500
    )
    return replace(
        one,
        stream=StreamConfig(workers=6),
        training=replace(one.training, schedule=schedule, trainer=trainer),
    )


def cpu() -> TrainJob:
    """Training without a GPU, on one core: random crops of 96x96 that are shifted in each frame,
    Lab input, two targets.

    `launch/shard.py --source VIDEOS --size 168 --out shards`,
    `launch/train.py --recipe cpu --data shards --run RUN`,
    `launch/export.py --inverse-temperature 0.1`. The learning rate is four times the paper's,
    because the training has few steps, and is halved three times. Cost: about 26 minutes on one
    core (Intel Xeon, AVX-512) beside another training. Result: J&F 0.540 on DAVIS-2016 val, with
    the memory protocol 0.673 (docs/results.md).
    """
    return TrainJob(
        "",
        NOWHERE,
        clip=ClipConfig(size=96, fit="crop", flip=True, shift=SHIFT),
        stream=StreamConfig(workers=1),
        training=TrainingConfig(
            model=LAB_MODEL,
            target=TWO_PALETTES,
            loss=LossConfig(batch_frames=True),
            schedule=ScheduleConfig(
                learning_rate=8e-4,
                base_batch=4,
                halve_after=(2400, 3600, 4200),
                teacher_forcing_clips=4800,
            ),
            trainer=TrainerConfig(
                steps=1200, batch=4, ema_clips=400, save_every=100, pictures_every=100
            ),
        ),
    )


def resnet34() -> TrainJob:
    """The default's training with a larger encoder: a ResNet-34's blocks, at stride 4; its
    checkpoint can be used wherever the small one's can.

    `launch/train.py --recipe resnet34 --data shards --run RUN`; in another recipe,
    `--model.encoder resnet34`. Cost: not yet run; by count 2.2 times that of `gpu`.
    Expected: not yet run; after 880 clips of the recipe `ablation` it is worse than the small one
    (docs/ablations.md).
    """
    small = gpu()
    larger = replace(LAB_MODEL, encoder=find_encoder("resnet34"))
    return replace(small, training=replace(small.training, model=larger))


def fast() -> TrainJob:
    """The model `fast`: an encoder of stride 8, with a sixth of the arithmetic, is distilled from
    `large` on two CPU cores.

    `launch/shard.py --source VIDEOS --out shards`,
    `launch/train.py --recipe fast --data shards --run RUN --compute.precision bfloat16`,
    `launch/export.py --inverse-temperature 0.37`. The loss uses neither colours nor masks, only the
    features of `large`. The two frames of a clip are a second apart, so that they differ. Cost: 39
    minutes on two cores (Intel Xeon with AMX) beside other work. Result: J&F with the memory
    protocol 0.802 on the development set (docs/results.md).
    """
    return TrainJob(
        "",
        NOWHERE,
        clip=ClipConfig(frames=2, interval=(6,), size=160, fit="crop", flip=True),
        stream=StreamConfig(workers=1),
        training=TrainingConfig(
            model=replace(LAB_MODEL, encoder=find_encoder("resnet18-stride8")),
            augmentation=AugmentationConfig(keep_channels=1.0, color_jitter=0.0),
            loss=LossConfig(teacher="large"),
            schedule=ScheduleConfig(
                learning_rate=2e-3,
                base_batch=8,
                halve_after=(4800, 7200, 8400, 9000),
                warmup_clips=400,
            ),
            trainer=TrainerConfig(
                steps=1200, batch=8, ema_clips=400, save_every=50, pictures_every=0
            ),
        ),
    )


def base() -> TrainJob:
    """The model `base`: it starts from the weights of `large`, and learns to compute from frames of
    their own size the features that `large` computes from frames enlarged 1.5 times.

    `launch/shard.py --source VIDEOS --out shards`,
    `launch/train.py --recipe base --data shards --run RUN --compute.precision bfloat16`,
    `launch/export.py --inverse-temperature 0.22`. Cost: 18 minutes on two cores (Intel Xeon with
    AMX) beside other work. Result: J&F with the memory protocol 0.824 on the development set, where
    the weights of `large` without enlarged frames have 0.813 (docs/results.md).
    """
    small = fast()
    schedule = ScheduleConfig(
        learning_rate=5e-4, base_batch=8, halve_after=(1600, 2400, 2800), warmup_clips=400
    )
    trainer = replace(small.training.trainer, steps=400, start="large")
    return replace(
        small,
        training=replace(small.training, model=LAB_MODEL, schedule=schedule, trainer=trainer),
    )


def ablation() -> TrainJob:
    """The short training with which docs/ablations.md compares settings: `cpu` with one target and
    only 220 steps of 4 clips.

    `launch/shard.py --source VIDEOS --size 168 --out shards`,
    `launch/train.py --recipe ablation --data shards --run RUN`. Cost: about 9 minutes on one core
    (AMD EPYC, Zen 3) while another ran the same. Expected: docs/ablations.md.
    """
    long = cpu()
    schedule = replace(
        long.training.schedule, halve_after=(440, 660, 770), teacher_forcing_clips=880
    )
    trainer = replace(long.training.trainer, steps=220, ema_clips=100)
    return replace(
        long,
        training=replace(long.training, target=TargetConfig(), schedule=schedule, trainer=trainer),
    )


def demo() -> TrainJob:
    """Training on generated videos that takes minutes on two CPU cores: small crops, and an encoder
    with a quarter of the arithmetic.

    `make demo`. Cost: 115 s on two cores of an Intel Xeon for the whole demo (249 s on an AMD
    EPYC). Result: J&F 0.468 on held-out generated videos (README.md; 0.455 on the AMD EPYC), where
    the identity baseline has 0.272.
    """
    return TrainJob(
        "",
        NOWHERE,
        clip=ClipConfig(size=96, fit="crop", flip=True),
        stream=StreamConfig(workers=1),
        training=TrainingConfig(
            model=ModelConfig(encoder=find_encoder("resnet18-half")),
            schedule=ScheduleConfig(learning_rate=1e-3, base_batch=4, teacher_forcing_clips=1000),
            # the last step of so short a training is noisy: with two seeds, the EMA weights have
            # J&F 0.46 and 0.47, those of the last step 0.37 and 0.28
            trainer=TrainerConfig(
                steps=150, batch=4, ema_clips=100, log_every=5, save_every=50, pictures_every=50
            ),
        ),
    )


def smoke() -> TrainJob:
    """A test that training works on this machine and these shards: a tiny model, with all features
    that a large run uses.

    `launch/train.py --recipe smoke --data shards --run RUN`. Cost: 200 steps in 70 s, one thread on
    two busy cores. Expected: the loss falls (3.4 to 2.1 on eight generated segments). The model is
    too weak to track.
    """
    return TrainJob(
        "",
        NOWHERE,
        clip=ClipConfig(size=48, fit="crop", flip=True),
        stream=StreamConfig(workers=1),
        training=TrainingConfig(
            model=ModelConfig(encoder=find_encoder("resnet10-tiny")),
            schedule=ScheduleConfig(
                learning_rate=1e-3, base_batch=8, teacher_forcing_clips=800, warmup_clips=80
            ),
            trainer=TrainerConfig(
                steps=200,
                batch=8,
                accumulate=2,
                clip_norm=100.0,
                ema_clips=200,
                log_every=5,
                save_every=50,
                pictures_every=100,
                profile=2,
            ),
        ),
    )


RECIPES = {
    "gpu": gpu, "released": released, "gpus64": gpus64, "cpu": cpu, "resnet34": resnet34,
    "base": base, "fast": fast, "ablation": ablation, "demo": demo, "smoke": smoke,
}  # fmt: skip


def take_recipe(argv: list[str]) -> tuple[TrainJob, list[str]]:
    """The recipe that `--recipe NAME` chooses (by default `gpu`), and the other flags."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--recipe", nargs="?", default="gpu", const="")
    chosen, rest = chooser.parse_known_args(argv)
    return find_recipe(chosen.recipe), rest


def find_recipe(name: str) -> TrainJob:
    """A recipe by its name; InputError lists the names."""
    if name not in RECIPES:
        raise InputError(f"recipe {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()
