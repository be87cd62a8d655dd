"""The README.md of an exported model: what it is, where it is from, how to run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from baldwhisper_mlx.config import CONTROL_TOKENS, ModelConfig

if TYPE_CHECKING:
    from baldwhisper_convert.checkpoint import Checkpoint

MODEL_CARD_FILE = "README.md"

_CARD = """---
library_name: mlx
pipeline_tag: automatic-speech-recognition
tags:
- whisper
- baldwhisper
- mlx
{license_line}---

# {name}

A Whisper speech recognition model in the format of baldwhisper-mlx, for Apple silicon
(and, slower, any machine with MLX). Exported from `{source}` ({format} format).

| | |
|---|---|
| parameters | {parameters:,} |
| weights stored as | {dtype} |
| encoder | {n_audio_layer} layers, width {n_audio_state}, {n_audio_head} heads, {n_mels} mel bins |
| decoder | {n_text_layer} layers, width {n_text_state}, {n_text_head} heads |
| vocabulary | {n_vocab:,} tokens, {languages} language tokens |
| token embedding | {embedding} |
| audio context | {audio_context} |
| alignment heads | {heads} |

## Use

```
pip install baldwhisper-mlx
baldwhisper transcribe audio.wav --model PATH_TO_THIS_FOLDER
```

```python
import baldwhisper_mlx

model = baldwhisper_mlx.load_model("PATH_TO_THIS_FOLDER")
print(baldwhisper_mlx.transcribe("audio.wav", model).text)
```

The folder is complete: `config.json`, `model.safetensors` and `vocabulary.tiktoken` need
nothing from the network.

## Licence

{licence}
"""


def model_card(config: ModelConfig, checkpoint: Checkpoint, name: str) -> str:
    """The card as Markdown, with the front matter that the hub reads.

    Args:
        config: the exported model's config.
        checkpoint: what was exported.
        name: the model's name, for the title.
    """
    values = vars(config) | {
        "name": name,
        "source": _source(checkpoint),
        "format": checkpoint.format,
        "parameters": sum(tensor.numel() for tensor in checkpoint.state.values()),
        "languages": len(config.special_tokens) - len(CONTROL_TOKENS),
        "embedding": _embedding(config),
        "heads": f"{len(config.alignment_heads)}, "
        + (
            "from the source"
            if checkpoint.alignment_heads
            else "the default: all of the last half of the decoder layers"
        ),
        "license_line": f"license: {checkpoint.licence}\n" if checkpoint.licence else "",
        "licence": _licence(checkpoint),
    }
    return _CARD.format(**values)


def _source(checkpoint: Checkpoint) -> str:
    """A hub id as it is, a path without its folders: a card is published, a home is private."""
    path = Path(checkpoint.source).expanduser()
    return path.resolve().name if path.exists() else checkpoint.source


def _embedding(config: ModelConfig) -> str:
    if config.embedding_rank is None:
        return "dense"
    text = f"factorized, rank {config.embedding_rank}, {config.embedding_projections} projections"
    text += ", mean added back" if config.embedding_mean else ""
    rows = config.embedding_dense_rows
    return text + (f", {rows:,} dense rows" if rows else "")


def _licence(checkpoint: Checkpoint) -> str:
    text = "The weights' licence is the source's"
    if checkpoint.licence:
        return f"{text}, whose model card states: {checkpoint.licence}."
    return f"{text}; its files do not state one, see where `{_source(checkpoint)}` was published."
