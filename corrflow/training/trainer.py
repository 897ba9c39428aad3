"""The training loop: takes an iterable of clips, and writes checkpoints and a log. It knows neither
where clips come from nor who may stop it.

Shapes: b clips of this rank, t frames per clip, k colour classes, h w pixels or cells.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from corrflow.augmentation import Draws, step_draws
from corrflow.device import Precision
from corrflow.distillation import DistillationLoss
from corrflow.inputs import ClipBatch, InputPipeline, StepInput
from corrflow.loss import CorrespondenceLoss
from corrflow.model import CorrFlow, seeded_model
from corrflow.training.checkpoint import (
    checkpoint_path,
    is_better,
    keep_best,
    load_ema,
    load_initial_model,
    prune,
    restore,
    restore_best,
    save_checkpoint,
)
from corrflow.training.config import TrainingConfig
from corrflow.training.distributed import DistributedContext
from corrflow.training.ema import EMA
from corrflow.training.failures import ErrorSync
from corrflow.training.monitor import ClipVisualization, Monitor, draw_clip
from corrflow.training.steplog import OnStep, StepLog
from corrflow.training.timing import StepTimer
from corrflow.training.tracing import Tracer
from corrflow.training.validation import Validator


class Trainer:
    """A model in training: weights, optimizer and step."""

    def __init__(
        self,
        run: Path,
        config: TrainingConfig,
        context: DistributedContext,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Make a new model, or resume from the newest checkpoint of `run`; `log` receives warnings,
        which go to stderr by default."""
        config.trainer.check(context.world_size, context.device)
        self.run, self.config, self.context = run, config, context
        self.errors = ErrorSync(context, log)
        self.timer = StepTimer(context.device)
        self.validator = Validator(config.validation, context)
        self.compute = config.compute.choose(context.device)
        self.model = self.new_model()
        self.input_pipeline = InputPipeline.of(self.model, config.target, config.augmentation)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.schedule.learning_rate, fused=True
        )
        self.ema = EMA(self.model, config.trainer.ema_clips) if config.trainer.ema_clips else None
        self.step, self.clips_seen, self.previous_batch = self.resume()
        self.saved = self.step
        self.best = restore_best(run, self.step, self.errors.warn) if context.is_main else None
        self.validation: dict[str, Any] | None = None  # the present step's, if it was validated
        # becomes 1 at the first gradient that is not finite, and stays so
        self.found_inf = torch.zeros((), device=context.device)
        self.loss_module = self.wrap_ddp(self.new_loss())

    def new_model(self) -> CorrFlow:
        """A model with random weights or those of `trainer.start`, on its device and in its
        layout."""
        # the initial weights are the same on every rank
        model = seeded_model(self.config.model, self.config.trainer.seed, self.compute.attention)
        if start := self.config.trainer.start:
            model.load_state_dict(load_initial_model(start, self.config.model).state_dict())
        if self.config.trainer.sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        device = self.context.device
        model.to(device).encoder.accelerate(
            device,
            half=self.compute.precision == torch.bfloat16,
            winograd=self.compute.winograd,
        )
        return model

    def new_loss(self) -> nn.Module:
        """The loss of copying colours, or of distillation if there is a teacher."""
        model, loss = self.model.train(), self.config.loss
        module: nn.Module
        if loss.teacher:
            precision: Precision = (
                "bfloat16" if self.compute.precision == torch.bfloat16 else "float32"
            )
            module = DistillationLoss(model, loss.teacher, self.context.device, precision)
        else:
            module = CorrespondenceLoss(model, loss, self.input_pipeline.targets)
        if self.compute.compiled:
            module.compile(dynamic=False)  # all batches have the same size
        return module

    def resume(self) -> tuple[int, int, int]:
        """Load the newest checkpoint; returns the steps done, the clips seen and the batch size
        when it was saved; zeros for a new run."""
        # rank 0 chooses the checkpoint, so that all ranks load the same one
        warn, state = self.errors.warn, None
        if self.context.is_main:
            state = restore(self.run, self.model, self.optimizer, warn)
        step = self.context.broadcast_number(state["step"] if state else 0)
        if step and not self.context.is_main:
            state = restore(self.run, self.model, self.optimizer, warn, only=step)
        if not state:
            return 0, 0, 0
        if self.ema:
            load_ema(self.ema.model, state, self.run, step)
        return step, state["clips"], state["batch"]

    def wrap_ddp(self, loss_module: nn.Module) -> nn.Module:
        """Wrap the loss by DDP if there are several processes."""
        if self.context.world_size == 1:
            return loss_module
        devices = [self.context.device.index] if self.context.device.type == "cuda" else None
        # BatchNorm's running statistics do not influence training; those of rank 0 are saved, and
        # validation broadcasts them
        with warnings.catch_warnings():
            # torch 2.15 warns of a new name, which earlier versions don't have
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = DistributedDataParallel(loss_module, devices, broadcast_buffers=False)
        wrapped.register_comm_hook(None, self.timer.reduce)
        return wrapped

    @property
    def next_batch(self) -> int:
        """The index of the first global batch without clips already seen, if the order of clips is
        divided into batches of the present size."""
        return -(-self.clips_seen // self.config.trainer.batch)

    def fit(
        self, batches: Iterator[ClipBatch], should_stop: Callable[[], bool], on_step: OnStep
    ) -> bool:
        """Train to the last step, or until any rank should stop; saves a checkpoint at the end in
        both cases.

        Args:
            batches: this rank's batches, starting with that of the next step.
            should_stop: called before each step; if it is true on one rank, all stop at the same
                step.
            on_step: called on rank 0 with the newest line of each write to the log; for a progress
                bar.

        Returns:
            Whether the last step was reached.

        Raises:
            RecurringError: on all ranks, if a loss is not finite (weights and checkpoints are then
                unchanged), or at a spike with `on_spike` stop.
            WriteError: on rank 0, if the log or a checkpoint can't be written; the others raise
                OtherRankError.
            Exception: what `batches` raised, on that rank; the others raise OtherRankError.
        """
        settings, monitor = self.config.trainer, None
        if self.context.is_main:
            with self.errors.capture(writing=str(self.run)):
                monitor = Monitor(self.run, self.step)
        log = self.step_log(monitor, on_step)
        tracer = (
            Tracer(self.run, settings.profile, self.step, self.context.device)
            if self.context.is_main
            else None
        )
        self.timer.restart()
        try:
            while self.step < settings.steps:
                with self.timer.part("data"), self.errors.capture():
                    batch = next(batches)
                if self.errors.raise_on_all_ranks(stop=should_stop()):
                    break
                self.train_step(batch, log)
                self.log_validate_save(log, tracer)
            log.flush()
            self.finish(monitor, tracer)
        finally:
            if monitor:
                with suppress(OSError) if self.errors.error else nullcontext():
                    monitor.close()
        return self.step >= settings.steps

    def train_step(self, batch: ClipBatch, log: StepLog) -> None:
        """Do one forward, backward and optimizer step, without waiting for the device."""
        settings, schedule = self.config.trainer, self.config.schedule
        draws = step_draws(settings.seed, self.step)
        teacher_forcing = schedule.teacher_forcing_at(self.clips_seen)
        rate = schedule.learning_rate_at(self.clips_seen, settings.batch)
        with self.timer.part("copy"):
            data = self.prepare(batch.clips, draws)
        hops = data.inputs_bt3hw.shape[1] - 2  # those that may be teacher forced
        forced = torch.rand(hops, generator=draws("teacher_forcing")) < teacher_forcing
        losses = self.backward(data, tuple(forced.tolist()))
        with self.timer.part("optimizer"):
            norm = self.update(rate)
        log.add(
            torch.cat([losses, norm[None]]),
            {
                "step": self.step,
                "clips": self.clips_seen,
                "teacher_forcing": teacher_forcing,
                "learning_rate": rate,
            },
            batch.keys,
        )
        every = settings.pictures_every
        if every and (self.step % every == 0 or self.step == 1):
            self.log_pictures(data, log)

    def prepare(self, clips_bt3hw: Tensor, draws: Draws) -> StepInput:
        """Compute the encoder's input and the target colours of this rank's clips."""
        context = self.context
        return self.input_pipeline.prepare(
            clips_bt3hw, draws, context.device, context.rank, context.world_size
        )

    def backward(self, data: StepInput, teacher_forced: tuple[bool, ...]) -> Tensor:
        """Compute gradients, averaged over clips and ranks, in `accumulate` parts; returns this
        rank's losses: the total and each term."""
        self.optimizer.zero_grad()
        parts, losses = data.parts(self.config.trainer.accumulate), []
        for number, part in enumerate(parts, 1):
            with self.no_sync(number < len(parts)):
                with (
                    self.timer.part("forward"),
                    torch.autocast(
                        self.context.device.type,
                        torch.bfloat16,
                        enabled=self.compute.precision == torch.bfloat16,
                    ),
                ):
                    total, terms = self.loss_module(
                        part.inputs_bt3hw, part.colors_btkhw, part.classes_btmhw, teacher_forced
                    )
                with self.timer.part("backward"):
                    (total / len(parts)).backward()
            losses.append(torch.stack([total, *terms.values()]).detach())
        return torch.stack(losses).mean(dim=0)

    def no_sync(self, yes: bool) -> AbstractContextManager[None]:
        """A context in which gradients are accumulated on this rank without all-reduce, if
        `yes`."""
        return (
            self.loss_module.no_sync()
            if yes and isinstance(self.loss_module, DistributedDataParallel)
            else nullcontext()
        )

    def update(self, rate: float) -> Tensor:
        """Do the optimizer's step; returns the norm of the gradient before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        settings, trained = (
            self.config.trainer,
            [p for p in self.model.parameters() if p.grad is not None],
        )
        norm = get_total_norm([p.grad for p in trained if p.grad is not None])
        if settings.clip_norm:
            clip_grads_with_norm_(trained, settings.clip_norm, norm)
        # fused Adam skips the step if `found_inf` is 1, as with GradScaler, so the host need not
        # wait for the device to check. It stays 1, so that no step follows the bad one. DDP has
        # reduced the gradients, so norm and decision are the same on every rank
        self.found_inf = torch.maximum(self.found_inf, (~norm.isfinite()).float())
        self.optimizer.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.optimizer.step()
        self.step += 1
        self.clips_seen += settings.batch
        if self.ema:
            self.ema.update(self.model, settings.batch, self.clips_seen)
        return norm

    def log_validate_save(self, log: StepLog, tracer: Tracer | None) -> None:
        """Do what is due after a step: log, validate, save a checkpoint, trace."""
        settings, last = self.config.trainer, self.step == self.config.trainer.steps
        save, validate = self.step % settings.save_every == 0, self.validator.is_due(self.step)
        if last or save or validate or self.step % settings.log_every == 0:
            log.synchronize()
            log.write(self.validate(log.monitor) if validate else {})
        if (save and not last) or self.is_best:
            self.save(log.monitor)
        if tracer:
            with self.errors.capture(writing=str(self.run)):
                self.report_trace(tracer.after(self.step))

    def validate(self, monitor: Monitor | None) -> dict[str, Any]:
        """Validate the weights that a user would get; returns the figures for the step's line of
        the log. A collective."""
        model = self.ema.model if self.ema else self.model
        # the BatchNorm statistics of rank 0 are the ones that go into checkpoints
        self.context.broadcast(*model.buffers())
        result = self.validator.validate(model)
        self.validation = {"step": self.step, "jf": result.mean, "of": self.validator.identity}
        if monitor:
            with self.errors.capture(writing=str(self.run)):
                monitor.pictures("validation", result.pictures, self.step)
        self.timer.restart()  # validation must not count as step time
        return result.log_line()

    @property
    def is_best(self) -> bool:
        """Whether this step was validated and is the best so far; False except on rank 0."""
        now = self.validation
        return (
            self.context.is_main
            and now is not None
            and now["step"] == self.step
            and is_better(now, self.best)
        )

    def log_pictures(self, data: StepInput, log: StepLog) -> None:
        """Log pictures of the step's first clip, on rank 0. The losses are checked first, since a
        bad step can't be drawn."""
        log.synchronize()
        if log.monitor:
            palette = self.input_pipeline.targets[0].palette
            scene = ClipVisualization(
                data.frames_bt3hw[0], data.inputs_bt3hw[0], data.colors_btkhw[0, :, : len(palette)]
            )
            # a single frame in eval mode is not worth compiling
            with torch.compiler.set_stance("force_eager"):
                pictures = draw_clip(self.model, scene, palette)
            with self.errors.capture(writing=str(self.run)):
                log.monitor.pictures("clip", pictures, self.step)

    def step_log(
        self, monitor: Monitor | None = None, on_step: OnStep = lambda line: None
    ) -> StepLog:
        """Make the log of the steps from now on. A collective."""
        return StepLog(
            self.config.trainer,
            self.context,
            self.timer,
            self.errors,
            monitor,
            on_step,
            self.config.loss.terms,
        )

    def save(self, monitor: Monitor | None) -> None:
        """Write a checkpoint of this step on rank 0. The other ranks go on, and learn in the next
        collective if it failed."""
        if not monitor or self.saved == self.step or self.errors.error:
            return
        more: dict[str, Any] = {"clips": self.clips_seen, "batch": self.config.trainer.batch}
        if self.ema:
            more["ema"] = self.ema.model.state_dict()
        if self.validation and self.validation["step"] == self.step:
            more["validation"] = self.validation
        with self.errors.capture(writing=str(checkpoint_path(self.run, self.step))):
            monitor.flush()
            save_checkpoint(self.run, self.step, self.model, self.optimizer, more)
            self.saved = self.step
            if self.is_best:
                keep_best(self.run, self.step)
                self.best = self.validation
            settings = self.config.trainer
            prune(self.run, self.step, settings.keep, settings.keep_every)

    def finish(self, monitor: Monitor | None, tracer: Tracer | None) -> None:
        """Save the last checkpoint, and end all ranks together: a rank that left early would be
        taken for a failed one."""
        self.save(monitor)
        if tracer:
            with self.errors.capture(writing=str(self.run)):
                self.report_trace(tracer.close(self.step))
        self.errors.raise_on_all_ranks()

    def report_trace(self, trace: Path | None) -> None:
        """Report where a trace was written."""
        if trace:
            self.errors.log(f"trace for chrome://tracing or ui.perfetto.dev: {trace}")
