"""What a configuration says about epochs: which steps they have, and after which the agent is tested. Imports no torch."""

from __future__ import annotations

from remctl.config import RunConfig, TrainingPhase


def num_steps(phase: TrainingPhase, epoch: int) -> int:
    """Optimisation steps of a component in `epoch` (from 1); 0 where it is not trained."""
    if epoch <= phase.start_after_epoch or (phase.stop_after_epoch is not None and epoch > phase.stop_after_epoch):
        return 0
    return phase.steps_per_epoch + phase.first_epoch_extra_steps * (epoch == phase.start_after_epoch + 1)


def is_due(config: RunConfig, epoch: int) -> bool:
    """Whether the agent of this epoch is tested."""
    return epoch > 0 and epoch % config.evaluation.every_epochs == 0 and controller_trained(config, epoch)


def controller_trained(config: RunConfig, epoch: int) -> bool:
    """Whether C has been trained by the end of `epoch`; before that actions are uniform."""
    return epoch > config.controller.training.start_after_epoch
