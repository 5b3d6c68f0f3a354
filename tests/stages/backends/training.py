"""Training runs that the trainer tests share."""

from safetensors.torch import load_file

from mstar.execution import Execution
from mstar.optimization import Optimization
from mstar.stages.backends.accelerate_trainer import AccelerateTrainer

OPTIMIZATION = Optimization(
    learning_rate=3e-3, warmup_steps=3, batch_size=8, weight_decay=0.01, epochs=1
)


def quiet(count):
    return None


def train(
    model,
    rows,
    save_to,
    *,
    objective="policy",
    optimization=OPTIMIZATION,
    seed=0,
    resume=None,
    stop=None,
    **execution,
):
    trainer = AccelerateTrainer(objective, model, Execution(device="cpu", **execution))
    return trainer.train(
        rows,
        optimization,
        seed=seed,
        resume_from=resume,
        save_to=save_to,
        progress=quiet,
        stop_after=stop,
    )


def weights(checkpoint):
    return load_file(checkpoint / "model" / "model.safetensors")


def distance(first, second):
    mine, theirs = weights(first), weights(second)
    assert mine.keys() == theirs.keys()
    return max((mine[name] - theirs[name]).abs().max().item() for name in mine)
