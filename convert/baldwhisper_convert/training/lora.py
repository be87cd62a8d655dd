"""Low-rank adapters (LoRA) by peft: added before a training, merged into the weights after it.

So a finished stage is a plain model, as every later stage, the export and the runtime expect it.
While it trains, a checkpoint holds the model with its adapters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.settings import TrainingSettings, matches


def add_lora(model: Whisper, settings: TrainingSettings) -> Callable[[], None]:
    """Gives linear layers of a model adapters, which change nothing until they are trained.

    Args:
        model: changed in place.
        settings: `lora`; layers whose weights `freeze` names get none.

    Returns:
        A function that merges the adapters into the weights and removes them; it does nothing
        without `settings.lora`.

    Raises:
        ValueError: a pattern fits no linear layer, or all that are named are frozen.
    """
    lora = settings.lora
    if lora is None:
        return lambda: None
    import peft

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for pattern in lora.targets:
        if not any(matches(name, [pattern]) for name in linear):
            raise ValueError(
                f"lora: no linear layer is called {pattern!r}; a valid name is {linear[-1]!r}"
            )
    chosen = [
        name
        for name in linear
        if matches(name, lora.targets) and not matches(f"{name}.weight", settings.freeze)
    ]
    if not chosen:
        raise ValueError(
            "lora: `freeze` names every layer of lora.targets, so there is nothing to train"
        )
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # it is only divided by the rank
        lora_dropout=lora.dropout,
        target_modules=chosen,
    )
    # The adapters start at random, and the same in every process and when the run is resumed.
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        adapted = peft.LoraModel(model, config, "default")

    def merge() -> None:
        adapted.merge_and_unload(safe_merge=True)

    return merge
