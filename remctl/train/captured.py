"""Training steps without what stands around their arithmetic: compiled layers, and on GPUs whole steps as CUDA graphs.

Compiled, the elementwise operations of a layer are a few loops, on a CPU too, and its dropout keeps no masks.

REM's networks are small: launched one by one, a step's thousands of kernels leave the GPU idle. A captured step is launched
whole. What a step needs for that holds for every step of `Learner`: shapes never change, nothing is read back, and what it
reads and writes stays where it is.
"""

from __future__ import annotations

import gc
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from remctl.config import RunConfig
from remctl.errors import Interrupted, MachineError, one_line
from remctl.train.learner import Learner
from remctl.train.phases import steps_left
from remctl.train.repayment import try_compiled_layer

WARM_UP_CALLS = 3  # before a capture: compilation, the optimiser's state, tables, the libraries' workspaces
COMPILE_OPTIONS: dict[str, Any] = {"dynamic": False}
LEAST_REPAID_WORK = 2.5e10  # weights x segments; an epoch of `paper` has 5.4e10, of which two cores save 4 minutes
# Of torch's heuristics of what the forward pass keeps for the gradient those that would keep dropout's masks: on a CPU a
# mask takes longer to write than to compute anew.
MASK_KEEPING_HEURISTICS = ("ban_recompute_used_far_apart", "ban_recompute_long_fusible_chains")
UNCOMPILED = "layers run uncompiled, and slower: "
RECOMPILE_LIMIT = 32  # of one function: as many combinations of shapes and modes are compiled, others run as they are


class Recorded(NamedTuple):
    """`replay()` runs the recorded work on the tensors that were its inputs, and writes to `outputs`."""

    replay: Callable[[], None]
    outputs: Any


Work = Callable[..., Any]  # of tensors
Wrap = Callable[[Work], Work]
Record = Callable[[Callable[..., Any], tuple[Tensor, ...]], Recorded]


class Captured:
    """`step` as one launch: a function of tensors whose shapes are the same in every call, and which runs in every call.

    The first calls run as they are, the next one is recorded (which runs nothing) and replayed, as all that follow.
    What a call returns holds until the next call of any captured step: they share their memory.
    """

    def __init__(self, step: Callable[..., Any], record: Record, aside: Callable[..., Any] | None = None) -> None:
        """`aside(step, inputs)` runs a call of the warm-up, if it has to run in a place of its own."""
        self._step, self._record = step, record
        self._aside = aside or (lambda step, inputs: step(*inputs))
        self._calls = 0
        self._inputs: tuple[Tensor, ...] = ()
        self._recorded: Recorded | None = None

    def __call__(self, *inputs: Tensor) -> Any:
        if self._recorded is None and self._calls < WARM_UP_CALLS:
            self._calls += 1
            return self._aside(self._step, inputs)
        if self._recorded is None:
            self._inputs = tuple(x.clone() for x in inputs)
            self._recorded = self._record(self._step, self._inputs)
        for place, x in zip(self._inputs, inputs, strict=True):
            assert place.shape == x.shape, f"a captured step of {tuple(place.shape)} was given {tuple(x.shape)}"
            assert place.dtype == x.dtype, f"a captured step of {place.dtype} was given {x.dtype}"
            place.copy_(x)
        self._recorded.replay()
        return self._recorded.outputs


class GraphRecorder:
    """Records a learner's steps as CUDA graphs, on one stream and in one pool of memory: they never run at the same time.

    Inputs may have any shape, but the same in every call.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._stream = torch.cuda.Stream(learner.agent.device)
        self._pool = torch.cuda.graph_pool_handle()

    def captured(self, step: Work) -> Work:
        """`step` as one launch."""
        return Captured(step, self.record, self.aside)

    def aside(self, step: Work, inputs: tuple[Tensor, ...]) -> Any:
        """Run `step` on the stream that it will be captured on."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = step(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def record(self, step: Work, inputs: tuple[Tensor, ...]) -> Recorded:
        """Capture `step`; nothing of it runs. Raises MachineError with the remedy."""
        graph = torch.cuda.CUDAGraph()
        with warnings.catch_warnings():  # torch since 2.14 finds out by itself, and warns
            warnings.simplefilter("ignore")
            for generator in self._learner.streams:
                graph.register_generator_state(generator)
        with (
            _remedy(RuntimeError),
            _capturable(self._learner.optimizers.values()),
            _no_garbage_collection(),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
        ):
            outputs = step(*inputs)
        return Recorded(graph.replay, outputs)


@contextmanager
def _remedy(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        # A capture that was cut off fails once more at its end: the first failure says why.
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__
        if isinstance(cause, torch.OutOfMemoryError):
            raise cause from None
        raise MachineError(
            f"a training step cannot be compiled or captured here: {_reason(cause)}; use --set runtime.compile=off"
        ) from error


def _reason(cause: BaseException) -> str:
    """One line: of a compiler that failed, its own first error."""
    if not isinstance(cause, subprocess.CalledProcessError) or not cause.output:
        return one_line(cause)
    output = cause.output.decode(errors="replace") if isinstance(cause.output, bytes) else cause.output
    lines = [line.strip() for line in output.splitlines() if line.strip()] or [one_line(cause)]
    return next((line for line in lines if "error" in line.lower()), lines[-1])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nothing of an older graph may be freed while another is captured."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _capturable(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Optimisers refuse to be captured without being told; told all the time they would warn, and a checkpoint keep it."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False


def is_fast(config: RunConfig, device: torch.device) -> bool:
    """Whether a run's steps may be compiled, and are captured on CUDA: unless `runtime.compile` is off.

    On a CPU only where compiling, which takes a minute or two, may be repaid: by half an epoch of `paper`. Whether it is
    there, its first layer shows (`remctl.train.repayment`).
    """
    if config.runtime.compile == "off":
        return False
    is_retnet = config.world_model.architecture == "retnet"
    return device.type == "cuda" or (is_retnet and layer_work(config) >= LEAST_REPAID_WORK)


def layer_work(config: RunConfig) -> float:
    """Weights of M's layers times the segments that a run trains M on: multiplications for one token of each."""
    m = config.world_model
    weights = m.num_layers * m.embed_dim * (5 * m.embed_dim + 2 * m.ffn_dim)  # q, k, v, g, out; the FFN
    return weights * m.training.batch_size * steps_left(config, "world_model", 0)


def accelerate(
    learner: Learner,
    log: Callable[[str], None],
    form_before: str | None = None,
    epochs_done: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Wrap:
    """From now on `learner`'s steps run compiled, where this machine can compile and is repaid, and on CUDA captured.

    `form_before`: of the steps of a run that is resumed after `epochs_done`, which on a CPU stays; None where it starts.
    `check` is called between measurements, and may raise to leave. Returns what that makes of a step.
    """
    device, wraps = learner.agent.device, dict[str, Wrap]()
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs are made on the current device
    if device.type == "cuda" or _is_repaid(learner, log, form_before, epochs_done, check):
        if reason := why_not_compiled(device):
            log(UNCOMPILED + reason)
        else:
            log("the first steps take longer: layers are compiled")
            wraps["compiled"] = compile_layers(learner, with_tokenizer=device.type == "cuda")
    if device.type == "cuda":
        wraps["captured"] = GraphRecorder(learner).captured

    def fast(step: Work) -> Work:
        for wrap in wraps.values():
            step = wrap(step)
        return step

    learner.form = " and ".join(wraps) or "plain"
    learner.steps = {name: fast(step) for name, step in learner.steps.items()}
    return fast


def _is_repaid(
    learner: Learner,
    log: Callable[[str], None],
    form_before: str | None,
    epochs_done: int,
    check: Callable[[], None],
) -> bool:
    """Whether compiling is repaid on a CPU. A resumed run is not asked again: its form stays, and so its roundings."""
    if form_before is not None:
        return form_before != "plain"
    _prepare_compiler(learner.agent.device)
    try:
        trial = try_compiled_layer(learner.agent, epochs_done, check, **COMPILE_OPTIONS)
    except Interrupted:
        raise
    except Exception as error:  # whatever a missing part of a tool chain raises
        check()
        log(UNCOMPILED + one_line(error))
        return False
    log(str(trial))
    return trial.is_repaid


def _prepare_compiler(device: torch.device) -> None:
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    if device.type == "cpu":
        for heuristic in MASK_KEEPING_HEURISTICS:
            setattr(torch._functorch.config, heuristic, False)


def compile_layers(learner: Learner, with_tokenizer: bool = True, **options: Any) -> Wrap:
    """What makes a step run M's layers compiled (`options` as torch.compile's); elsewhere they run as ever.

    `with_tokenizer`: V's loss is compiled too (on CPUs it would be slower). A step raises MachineError, with the remedy,
    where it cannot be compiled.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second, which short runs on a CPU do not need

    _prepare_compiler(learner.agent.device)
    options = COMPILE_OPTIONS | options
    if with_tokenizer:
        learner.tokenizer_loss = torch.compile(learner.tokenizer_loss, **options)
    compiled = learner.agent.world_model.sequence_model.compiled(**options)

    def within(step: Work) -> Work:
        def run(*inputs: Tensor) -> Any:
            with compiled(), _remedy(TorchDynamoException):
                return step(*inputs)

        return run

    return within


def why_not_compiled(device: torch.device) -> str | None:
    """What torch.compile fails with on this machine (no compiler, no Triton); None where it works."""
    try:
        torch.compile(lambda x: (x + 1) * x, **COMPILE_OPTIONS)(torch.ones(8, device=device))
    except Exception as error:  # whatever a missing part of a tool chain raises
        return one_line(error)
    return None
