"""Operations that training a config takes, by the formula that model FLOP/s are counted with."""

from typing import Any

from jaxhpo import nn
from jaxhpo.nn.sizes import attention_flops_per_token, forward_flops_per_token
from jaxhpo.population.memory import adapter_of, count_trained


def flops_per_token(config: Any) -> float:
    """Floating-point operations per trained token of one member, forward and backward.

    All weights: `nn.flops_per_token`. Over a frozen base no gradient of its weights is formed: of
    the base 4 N instead of 6 N, of attention all three passes, and 6 A of the adapter's A numbers.
    What is computed twice to save memory is not counted, nor padding left out.
    """
    model = config.model
    if adapter_of(config) is None:
        return nn.flops_per_token(model, model.context)
    forward = forward_flops_per_token(model, model.context)
    attention = attention_flops_per_token(model, model.context)
    return 2 * forward + attention + 6 * count_trained(config)


def flops_per_step(config: Any) -> float:
    """The same for one step of one member."""
    return config.tokens_per_step * flops_per_token(config)
