"""A process of a run of several, for the tests; one start imports, and forks those that it needs.

`python processes.py` reads commands, a line each: JSON with `environment`, `output` and `arguments`
of `act`, and answers each with the number of the process it has forked, and of each that ended with
its status.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo.config.run import PbtRun
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import Interrupted, Lost, UsageError
from jaxhpo.nn.config import DropoutConfig, ModelConfig
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population.config import DistributedConfig, ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import PbtConfig

DEVICES = 4
"""Of all processes together."""


def model(out: Path, devices: int = DEVICES, **distributed: Any) -> Any:
    """Six segments of a population of three language models."""
    from jaxhpo.study import execute

    return execute(
        PbtRun(
            steps=60,
            seed=5,
            model=ModelConfig(num_layers=1, d_model=16, num_heads=2, context=16),
            dropout=DropoutConfig(residual=0.1),
            schedule=ScheduleConfig(warmup_steps=3),
            optimizer=OptimizerConfig(kind="sgd"),
            space={"schedule.peak_lr": "log(1e-3, 1e-1)"},
            data=DataConfig(source="synthetic", batch_size=2, eval_batches=2),
            pbt=PbtConfig(members=3, interval=10, beside=False, fitness="loss"),
            **common(out, devices, distributed),
        )
    )


def function(out: Path, devices: int = DEVICES, **distributed: Any) -> Any:
    """The same, with probes, of a function that compiles in no time."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxhpo.study.function import search_function

    def batch_at(step: int, steps: int) -> np.ndarray:
        drawn = [np.random.default_rng(step + i).normal(size=(2, 5)) for i in range(steps)]
        return np.stack(drawn).astype(np.float32)

    def loss(params: Any, batch: Any, hyperparams: Any, key: Any) -> Any:
        return jnp.mean((batch @ params["w"] - batch.sum(-1, keepdims=True)) ** 2)

    return search_function(
        init=lambda key: {"w": jax.random.normal(key, (5, 1))},
        loss=loss,
        optimizer=lambda values: optax.sgd(values["lr"]),
        batch_at=batch_at,
        held_out=batch_at(1000, 2),
        space={"lr": "log(1e-3, 1e-1)"},
        steps=60,
        seed=5,
        scheduler="pbt",
        pbt=PbtConfig(members=3, interval=10, beside=False),
        **common(out, devices, distributed),
    )


def common(out: Path, devices: int, distributed: dict[str, Any]) -> dict[str, Any]:
    return dict(
        out=str(out),
        resume="auto",
        checkpoint=CheckpointConfig(every_seconds=0),
        tracker=TrackerConfig(console="off"),
        execution=ExecutionConfig(devices=devices, chunk=1),
        distributed=DistributedConfig(**distributed),
    )


def act(
    out: str, at: int | None = None, do: str = "", run: str = "function", **distributed: Any
) -> int:
    """Begins a run or resumes it; when plan `at` is due, this process does what is said."""
    from jaxhpo.study.loop import Study

    step, what_next = Study.step, Study._next

    def misbehaving(study: Any, plan: Any) -> Any:
        if study.index == at and do in ACTS:
            print("now", time.time(), flush=True)
            ACTS[do]()
        return step(study, plan)

    def differing(study: Any, plan: Any) -> Any:
        fields = what_next(study, plan)
        if study.index + 1 == at and do == "differ":
            fields["assignments"][1]["point"]["lr"] *= 1 + 1e-15
        if study.index + 1 == at and do == "fail":
            raise ZeroDivisionError("a bug")
        return fields

    Study.step, Study._next = misbehaving, differing
    try:
        {"model": model, "function": function}[run](Path(out), **distributed)
        print("done", flush=True)
        return 0
    except Interrupted as error:
        print("stopped", error, flush=True)
        return 75
    except (UsageError, Lost, ZeroDivisionError) as error:
        print(type(error).__name__, error, flush=True)
        return 2
    finally:
        Study.step, Study._next = step, what_next


ACTS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hang": lambda: time.sleep(600),
    "stop": lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0.2)),
}


def shifted_clock() -> None:
    """This process believes in another time."""
    now = time.time
    time.time = lambda: now() + 1e7


def serve() -> None:
    """Forks a process for each command, and tells how each ends."""
    import optax
    import orbax.checkpoint

    import jaxhpo.study.function

    del optax, orbax, jaxhpo
    ended: dict[int, tuple[int, float]] = {}
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            while command["wait"] not in ended:
                reap(ended)
            print(json.dumps(ended[command["wait"]]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            end = 1
            try:
                redirect(command)
                for arguments in command["acts"]:
                    end = act(**arguments)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                leave(end)
        print(child, flush=True)


def reap(ended: dict[int, tuple[int, float]]) -> None:
    """Notes which processes have ended, how and when."""
    number, status = os.waitpid(-1, os.WNOHANG)
    if number:
        ended[number] = os.waitstatus_to_exitcode(status), time.time()
    else:
        time.sleep(0.02)


def redirect(command: dict[str, Any]) -> None:
    os.environ.update(command["environment"])
    output = os.open(command["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)


def leave(status: int) -> None:
    """As an interpreter ends, which is when JAX's processes take leave of each other."""
    import jax

    jax.distributed.shutdown()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        shifted_clock()
        ends = [act(**arguments) for arguments in json.loads(sys.argv[1])]
        sys.exit(ends[-1])
