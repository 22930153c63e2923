"""Adapters against PEFT's on the same weights: logits, steps, allocation and files."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import adapters, nn
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.hyperparams import Dropout, LossTerms
from jaxhpo.optimizers import OptimizerConfig
from jaxhpo.optimizers import lower as lower_optimizer
from jaxhpo.population import member as life
from jaxhpo.population.hyperparams import Hyperparams
from jaxhpo.population.task import LanguageModel
from jaxhpo.population.tuning import AdapterTuning
from jaxhpo.pretrained.peft import load_adapter, save_adapter
from jaxhpo.schedules import ScheduleConfig
from jaxhpo.schedules import lower as lower_schedule
from tests.parity.models import D, L, N, V, gpt2, grouped

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing. is deprecated:FutureWarning"  # PEFT's use of transformers
)

STEPS, LR, DECAY = 8, 0.05, 0.01
TOKENS = np.random.default_rng(0).integers(0, V, (3, 12)).astype(np.int32)
RULE = OptimizerConfig(
    kind="adamw", beta2=0.999, weight_decay=DECAY, clip_norm=float("inf"), eps=1e-8
)
NAMES = {"attention/query": "q_proj", "attention/value": "v_proj", "mlp/down": "down_proj"}
LLAMA = dict(target_modules=list(NAMES.values()), r=3, lora_alpha=5)


def adapted(reference, settings):
    """PEFT's model around the reference, every array of its adapter random."""
    torch.manual_seed(1)
    model = peft.get_peft_model(reference, settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                weight.normal_(0.0, 0.3)
            elif "magnitude" in name:
                weight.mul_(1.0 + 0.1 * torch.rand_like(weight))
    return model


def ours_of(model, folder, family):
    """What PEFT writes, read by us: config and arrays."""
    model.save_pretrained(folder)
    loaded = load_adapter(folder, family)
    assert not loaded.saved
    return loaded.config, jax.tree.map(jnp.asarray, loaded.params)


def logits(config, base, adapter, params, numbers):
    whole, _ = adapters.bind(adapter, config, adapters.store(base), params, numbers)
    return nn.apply(config, whole, jnp.asarray(TOKENS))


def theirs(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


def random_arrays(adapter, config, numbers, base):
    """Arrays as after some training: nothing is zero within the rank."""
    params = adapters.init(adapter, config, jax.random.key(3), numbers, adapters.store(base))
    mask = numbers.mask(adapter.width)
    draw = lambda x, i: 0.3 * jax.random.normal(jax.random.key(i), x.shape)
    for index, (_, own) in enumerate(adapters.arrays.each_target(params)):
        own["lora_b"] = draw(own["lora_b"], index) * mask[:, None]
        if "lora_e" in own:
            own["lora_e"] = draw(own["lora_e"], 50 + index) * mask
        if "magnitude" in own:
            own["magnitude"] = own["magnitude"] * 1.2
    return params


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_what_peft_saves_gives_its_logits_here(tmp_path, options):
    config, base, reference = grouped("Llama")
    model = adapted(reference, peft.LoraConfig(**LLAMA, **options))
    adapter, params = ours_of(model, tmp_path, "llama")
    assert adapters.targets_of(adapter, config) == tuple(NAMES)
    found = logits(config, base, adapter, params, adapters.lower(adapter, steps=1))
    plain = nn.apply(config, base, jnp.asarray(TOKENS))
    assert np.abs(found - plain).max() > 0.1  # the adapter shows
    np.testing.assert_allclose(found, theirs(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("lora", {}), ("lora", {"rslora": True}), ("dora", {}), ("adalora", {"target_rank": 2})],
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_saved_here_gives_its_logits_in_peft(tmp_path, kind, options, family):
    config, base, reference = gpt2() if family == "gpt2" else grouped("Llama")
    parts = ("query", "key", "value") if kind == "dora" else ("query", "value")
    adapter = AdapterConfig(
        kind=kind, max_rank=6, rank=3, initial_rank=3, alpha=5.0,
        targets=(*(f"attention/{part}" for part in parts), "mlp/down"), **options,
    )  # fmt: skip
    numbers = adapters.lower(adapter, steps=10)
    params = random_arrays(adapter, config, numbers, base)
    save_adapter(tmp_path, adapter, family, params, numbers, task_type="CAUSAL_LM")
    model = peft.PeftModel.from_pretrained(reference, tmp_path)
    found = logits(config, base, adapter, params, numbers)
    np.testing.assert_allclose(found, theirs(model), atol=1e-4, rtol=1e-4)
    again = load_adapter(tmp_path, family)
    numbers = adapters.lower(again.config, steps=10)
    found = logits(config, base, again.config, again.params, numbers)
    np.testing.assert_allclose(found, theirs(model), atol=1e-4, rtol=1e-4)


def test_a_target_that_is_switched_off_is_not_in_the_file(tmp_path):
    config, base, reference = grouped("Llama")
    adapter = AdapterConfig(kind="lora", rank=3, on_query=0)
    numbers = adapters.lower(adapter, steps=1)
    params = random_arrays(adapter, config, numbers, base)
    save_adapter(tmp_path, adapter, "llama", params, numbers)
    model = peft.PeftModel.from_pretrained(reference, tmp_path)
    assert model.peft_config["default"].target_modules == {"v_proj"}
    found = logits(config, base, adapter, params, numbers)
    np.testing.assert_allclose(found, theirs(model), atol=1e-4, rtol=1e-4)


def test_gpt2_adapters_of_peft_come_apart_into_query_key_and_value(tmp_path):
    config, base, reference = gpt2()
    settings = peft.LoraConfig(target_modules=["c_attn"], r=3, fan_in_fan_out=True)
    model = adapted(reference, settings)
    adapter, params = ours_of(model, tmp_path, "gpt2")
    found = logits(config, base, adapter, params, adapters.lower(adapter, steps=1))
    np.testing.assert_allclose(found, theirs(model), atol=1e-4, rtol=1e-4)


SIZES = dict(
    vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=N, intermediate_size=48
)


@pytest.mark.parametrize(
    ("family", "model_class", "settings_class"),
    [
        ("bert", "BertForSequenceClassification", "BertConfig"),
        ("roberta", "RobertaForSequenceClassification", "RobertaConfig"),
        ("mistral", "MistralForCausalLM", "MistralConfig"),
        ("qwen2", "Qwen2ForCausalLM", "Qwen2Config"),
        ("qwen3", "Qwen3ForCausalLM", "Qwen3Config"),
    ],
)
def test_the_names_of_a_file_are_those_of_each_family(family, model_class, settings_class):
    sizes = SIZES | ({} if "bert" in family else {"num_key_value_heads": N, "head_dim": D // N})
    reference = getattr(transformers, model_class)(getattr(transformers, settings_class)(**sizes))
    activation = "gelu" if "bert" in family else "swiglu"
    config = nn.ModelConfig(
        num_layers=L, d_model=D, num_heads=N, d_mlp=48, vocab_size=V, activation=activation
    )
    adapter = AdapterConfig(kind="lora", rank=3, targets=(".",))
    numbers = adapters.lower(adapter, steps=1)
    params = adapters.init(adapter, config, jax.random.key(0), numbers)
    described, tensors = adapters.to_peft(adapter, family, params, numbers)
    settings = peft.LoraConfig(r=3, target_modules=described["target_modules"])
    model = peft.get_peft_model(reference, settings)
    expected = peft.get_peft_model_state_dict(model)
    shapes = {name: tuple(x.shape) for name, x in expected.items()}
    assert {name: x.shape for name, x in tensors.items()} == shapes


def tuning(config, adapter, base):
    """A compiled step of ours with a constant rate, and its hyperparameters."""
    task = AdapterTuning(LanguageModel(config, RULE), adapter, adapters.store(base))
    schedule = ScheduleConfig(kind="constant", peak_lr=LR, warmup_steps=0)
    numbers = Hyperparams(
        schedule=lower_schedule(schedule, STEPS),
        optimizer=lower_optimizer(RULE, peak_lr=LR, steps=STEPS),
        dropout=Dropout(),
        loss=LossTerms(),
        adapter=adapters.lower(adapter, steps=STEPS),
    )
    batch, key = {"tokens": jnp.asarray(TOKENS)}, jax.random.key(0)
    # numbers are arguments: one executable for all of an adapter's
    step = jax.jit(lambda numbers, member: life.train_step(task, member, numbers, batch, key, 1))
    return task, numbers, partial(step, numbers)


def torch_step(model, optimizer):
    tokens = torch.tensor(TOKENS, dtype=torch.long)
    loss = model(tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    return loss.item()


def member_of(task, numbers, params):
    return life.Member(params, task.optimizer(numbers).init(params), jnp.int32(0))


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_three_steps_are_those_of_peft_with_adamw(tmp_path, options):
    config, base, reference = grouped("Llama")
    model = adapted(reference, peft.LoraConfig(**LLAMA, **options))
    adapter, params = ours_of(model, tmp_path, "llama")
    task, numbers, step = tuning(config, adapter, base)
    member = member_of(task, numbers, params)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LR, weight_decay=DECAY)
    for _ in range(3):
        member, metrics = step(member)
        np.testing.assert_allclose(metrics["loss"], torch_step(model, optimizer), rtol=1e-5)
        optimizer.zero_grad()
    _, expected = ours_of(model, tmp_path, "llama")
    jax.tree.map(
        # Adam divides by the gradient's size: where that is nearly nothing, roundings show
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4),
        member.params,
        expected,
    )


@pytest.mark.parametrize(
    "options",
    [
        dict(tinit=1, tfinal=2, deltaT=2),
        dict(tinit=0, tfinal=0, deltaT=1),
        dict(tinit=2, tfinal=3, deltaT=1),
    ],
)
def test_adalora_allocates_step_by_step_as_peft_does(tmp_path, options):
    config, base, reference = grouped("Llama")
    settings = peft.AdaLoraConfig(
        target_modules=["q_proj", "v_proj"], init_r=4, target_r=2, lora_alpha=5,
        total_step=STEPS, task_type="CAUSAL_LM", **options,
    )  # fmt: skip
    model = adapted(reference, settings)
    adapter, params = ours_of(model, tmp_path, "llama")
    adapter = replace(
        adapter, tinit=options["tinit"], tfinal=options["tfinal"], delta_t=options["deltaT"]
    )
    task, numbers, step = tuning(config, adapter, base)
    member = member_of(task, numbers, params)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LR, weight_decay=DECAY)
    allocator, ranks = model.base_model.rankallocator, set()
    for made in range(1, STEPS + 1):
        member, metrics = step(member)
        np.testing.assert_allclose(metrics["loss"], torch_step(model, optimizer), rtol=1e-5)
        model.base_model.update_and_allocate(made)
        optimizer.zero_grad()
        budget, _ = adapters.allocation.budget_at(
            numbers.adapter, member.moments.sensitivity, jnp.int32(made)
        )
        assert int(budget) == allocator.budget_schedule(made)[0]
        if allocator.exp_avg_ipt:  # forgotten where the last mask is made, and not used from there
            compare_scores(member.moments, allocator)
        zeros = {
            name: (values.detach().numpy()[:, 0] == 0)
            for name, values in model.named_parameters()
            if "lora_E" in name
        }
        for path, own in adapters.arrays.each_target(member.params):
            for layer in range(L):
                name = f"layers.{layer}.self_attn.{NAMES[path]}."
                expected = next(value for key, value in zeros.items() if name in key)
                np.testing.assert_array_equal(np.asarray(own["lora_e"][layer]) == 0, expected)
        ranks.add(sum(float(v) for k, v in metrics.items() if k.startswith("rank/")))
    assert len(ranks) > 1 and min(ranks) == 2 * 2 * L  # the budget fell, to the target


def compare_scores(state, allocator):
    """Sensitivity and uncertainty of every entry."""
    sides = {"lora_a": "lora_A", "lora_b": "lora_B", "lora_e": "lora_E"}
    ours = ((state.sensitivity, allocator.exp_avg_ipt), (state.uncertainty, allocator.exp_avg_unc))
    for tree, expected in ours:
        for path, own in tree.items():
            for leaf, side in sides.items():
                for layer in range(L):
                    name = f"layers.{layer}.self_attn.{NAMES[path]}.{side}"
                    values = next(value for key, value in expected.items() if name in key)
                    wanted = values.numpy()[:, 0] if leaf == "lora_e" else values.numpy().T
                    scale = np.abs(wanted).max()
                    np.testing.assert_allclose(
                        own[leaf][layer], wanted, atol=1e-4 * scale, rtol=1e-3
                    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3'; allowed"),
        ({"bias": "all"}, "bias='all' of the adapter; allowed: none"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern of the adapter is not empty"),
        ({"peft_type": "ADALORA"}, "the adapter's config has no init_r"),
    ],
)
def test_a_file_that_would_be_read_wrongly_is_refused(tmp_path, change, message):
    described = {"peft_type": "LORA", "r": 3, "lora_alpha": 3} | change
    with pytest.raises(UsageError, match=message):
        adapters.from_peft(described, {}, "llama")
