"""Tokens per second of cached decoding, against `generate` of the transformers library.

The same random GPT-2 weights on both sides, in one process on one machine: every case is warmed up
on both, then timed in turns; medians are kept. Source of the peer: transformers with PyTorch on the
CPU, all cores, with the faster of its dynamic and its static cache.

    python experiments/generation/run.py            # writes result.json and figure.png here
    python experiments/generation/run.py --tiny     # the smallest model only, seconds
"""

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from jaxhpo.nn.config import ModelConfig, SamplingConfig
from jaxhpo.nn.sizes import count_parameters

CORES = len(os.sched_getaffinity(0))
HERE = Path(__file__).parent
PROMPT, REPEATS, PATIENCE = 16, 5, 3.0
MODELS = {
    "0.1M": ModelConfig(num_layers=2, d_model=64, num_heads=4, vocab_size=256, context=128),
    "12M": ModelConfig(num_layers=6, d_model=384, num_heads=6, vocab_size=4096, context=128),
    "36M": ModelConfig(num_layers=6, d_model=512, num_heads=8, vocab_size=32768, context=128),
}
"""Shapes; the kind of block is GPT-2's."""
BATCHES = (1, 16)
MODES = {
    "sampled at 0.8": SamplingConfig(temperature=0.8),
    "top-k 50": SamplingConfig(temperature=0.8, top_k=50),
    "greedy": SamplingConfig(greedy=True),
}


def gpt2(shape: ModelConfig) -> tuple[ModelConfig, Any, Any]:
    """A random GPT-2: our config, our parameters, and the library's model."""
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=shape.vocab_size, n_embd=shape.d_model, n_layer=shape.num_layers,
            n_head=shape.num_heads, n_positions=shape.context,
            bos_token_id=None, eos_token_id=None,
        )
    ).eval()  # fmt: skip
    w = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    rows = lambda name: np.stack([w[f"transformer.h.{i}.{name}"] for i in range(shape.num_layers)])
    norm = lambda name: {"scale": rows(f"{name}.weight"), "bias": rows(f"{name}.bias")}
    matrix = lambda name: {"kernel": rows(f"{name}.weight"), "bias": rows(f"{name}.bias")}
    fused = {leaf: np.split(x, 3, -1) for leaf, x in matrix("attn.c_attn").items()}
    names = enumerate(("query", "key", "value"))
    projections = {name: {leaf: x[i] for leaf, x in fused.items()} for i, name in names}
    params = {
        "embed": {"embedding": w["transformer.wte.weight"]},
        "positions": {"embedding": w["transformer.wpe.weight"]},
        "final_norm": {
            "scale": w["transformer.ln_f.weight"], "bias": w["transformer.ln_f.bias"],
        },
        "blocks": {
            "attention": {**projections, "out": matrix("attn.c_proj")},
            "mlp": {"up": matrix("mlp.c_fc"), "down": matrix("mlp.c_proj")},
            "attention_norm": norm("ln_1"),
            "mlp_norm": norm("ln_2"),
        },
    }  # fmt: skip
    config = replace(
        shape, norm="layer", norm_eps=1e-5, position="learned", activation="gelu_tanh", bias=True
    )
    return config, params, model


class Neighbours:
    """What other processes take of the machine, as a share of all cores (Linux)."""

    def __init__(self) -> None:
        self.begin = self._now()

    def share(self) -> float:
        busy, own, clock = (b - a for a, b in zip(self.begin, self._now(), strict=True))
        return max(0.0, busy - own) / (clock * CORES)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        with open("/proc/stat") as lines:
            ticks = list(map(int, lines.readline().split()[1:9]))
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        own = os.times()
        return busy, own.user + own.system, time.perf_counter()


def wait_for_silence(most: float = 20.0) -> None:
    """Until the others take less than a twentieth of the machine, or for `most` seconds."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < most:
        neighbours = Neighbours()
        time.sleep(0.5)
        if neighbours.share() < 0.05:
            return


def seconds(run: Any) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compare(name: str, batch: int, mode: str, ours: Any, model: Any) -> dict[str, Any]:
    """Median tokens/s of both sides for one case, each after a run that is not counted."""
    config = ours.model
    length = config.context - PROMPT
    prompts = np.random.default_rng(batch).integers(0, config.vocab_size, (batch, PROMPT))
    rows = [MODES[mode]] * batch
    setting = MODES[mode]

    def jax_side() -> np.ndarray:
        return ours.generate(
            prompts, rows, range(batch), length, block=length, measured=False
        ).tokens

    def peer(cache: str) -> np.ndarray:
        given = {} if setting.greedy else {
            "temperature": setting.temperature, "top_k": setting.top_k, "top_p": 1.0,
        }  # fmt: skip
        with torch.inference_mode():
            found = model.generate(
                torch.tensor(prompts), attention_mask=torch.ones(batch, PROMPT, dtype=torch.long),
                max_new_tokens=length, do_sample=not setting.greedy, pad_token_id=0,
                cache_implementation=cache, **given,
            )  # fmt: skip
        return found[:, PROMPT:].numpy()

    sides: dict[str, Any] = {"jaxhpo": jax_side}
    sides |= {cache: (lambda cache=cache: peer(cache)) for cache in ("dynamic", "static")}
    warm = {side: seconds(run) for side, run in sides.items()}
    times: dict[str, list[float]] = {side: [] for side in sides}
    hopeless = warm["static"] > PATIENCE * warm["dynamic"]
    wait_for_silence()
    neighbours = Neighbours()
    for _ in range(REPEATS):
        for side, run in sides.items():
            if side == "static" and hopeless:
                continue
            time.sleep(0.1)  # the other side's threads spin a while after their work
            times[side].append(seconds(run))
    others = neighbours.share()
    if hopeless:
        times["static"] = [warm["static"]]
    rates = {side: batch * length / statistics.median(each) for side, each in times.items()}
    best = max(rates["dynamic"], rates["static"])
    row = {
        "model": name, "parameters": count_parameters(config), "batch": batch, "mode": mode,
        "tokens": length, "jaxhpo": rates["jaxhpo"], "transformers": best,
        "transformers_dynamic": rates["dynamic"], "transformers_static": rates["static"],
        "static_runs": len(times["static"]), "ratio": rates["jaxhpo"] / best, "others": others,
    }  # fmt: skip
    if setting.greedy:
        row["tokens_equal"] = float((jax_side() == peer("dynamic")).mean())
    speeds = f"jaxhpo {rates['jaxhpo']:>9,.0f} tokens/s, transformers {best:>7,.0f}"
    tail = f"{row['ratio']:.1f}x (others {others:.0%})"
    print(f"{name:>5} batch {batch:>2} {mode:<15} {speeds}: {tail}", flush=True)
    return row


def environment() -> dict[str, Any]:
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(), "cores": CORES,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "torch", "transformers")},
    }  # fmt: skip


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A group of bars for each model and batch: the peer, and ours with its factor."""
    import matplotlib

    from jaxhpo.report import canvas

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **canvas.RC}):
        figure, axes = canvas.sheet(3.4, 1, len(MODES), sharey=True)
        for axis, mode in zip(axes, MODES, strict=True):
            shown = [row for row in rows if row["mode"] == mode]
            spots = range(len(shown))
            theirs = [row["transformers"] for row in shown]
            ours = [row["jaxhpo"] for row in shown]
            axis.bar([s - 0.2 for s in spots], theirs, 0.38, color=canvas.FAINT,
                     label="transformers, its faster cache")  # fmt: skip
            axis.bar([s + 0.2 for s in spots], ours, 0.38, color=canvas.BLUE, label="jaxhpo")
            for spot, row in zip(spots, shown, strict=True):
                axis.annotate(f"{row['ratio']:.1f}x", (spot + 0.2, row["jaxhpo"]), (0, 2),
                              textcoords="offset points", ha="center", fontsize=8.5)  # fmt: skip
            names = [f"{row['model']}\n× {row['batch']}" for row in shown]
            axis.set_xticks(spots, names, fontsize=7.5)
            axis.set(title=mode, yscale="log")
            axis.set_ylim(top=12 * max(row["jaxhpo"] for row in rows))
            axis.grid(axis="x", visible=False)
            axis.set_xlabel("parameters × batch")
        axes[0].set_ylabel("tokens per second")
        axes[-1].legend(loc="upper right")
        path.write_bytes(canvas.png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="the smallest model only")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json, figure.png")
    options = parser.parse_args()
    os.environ["PJRT_NPROC"] = str(CORES)  # read when JAX starts
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from jaxhpo.population.decoding import Decoder

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(CORES)
    rows = []
    for name, shape in list(MODELS.items())[: 1 if options.tiny else None]:
        config, params, model = gpt2(shape)
        decoder = Decoder(config, params)
        rows += [compare(name, b, mode, decoder, model) for b in BATCHES for mode in MODES]
    options.out.mkdir(parents=True, exist_ok=True)
    result = {"environment": environment(), "prompt": PROMPT, "repeats": REPEATS, "rows": rows}
    (options.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, options.out / "figure.png")


if __name__ == "__main__":
    main()
