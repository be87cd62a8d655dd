"""The model card (README.md) of an exported model: contents, source, use and licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_mlx.config import CONTROL_TOKENS, Dtype, ModelConfig
from baldwhisper_mlx.quantization_config import storage

MODEL_CARD_FILE = "README.md"

_CARD = """---
{metadata}
---

# {name}

{intro} Exported from `{source}` ({format} format).

| | |
|---|---|
| parameters | {parameters:,} |
| weights stored as | {dtype} |
| encoder | {n_audio_layer} layers, width {n_audio_state}, {n_audio_head} heads, {n_mels} mel bins |
| decoder | {n_text_layer} layers, width {n_text_state}, {n_text_head} heads |
| vocabulary | {n_vocab:,} tokens, {languages} language tokens |
{known}| token embedding | {embedding} |
| audio context | {audio_context} |
| alignment heads | {heads} |
{storage}
## Use

{use}

## Licence

{licence}
"""

_MLX_INTRO = """A Whisper speech recognition model in the format of baldwhisper-mlx, for Apple
silicon (and, slower, any machine with MLX)."""
_MLX_USE = """```
pip install baldwhisper-mlx
baldwhisper transcribe audio.wav --model PATH_TO_THIS_FOLDER
```

```python
import baldwhisper_mlx

model = baldwhisper_mlx.load_model("PATH_TO_THIS_FOLDER")
print(baldwhisper_mlx.transcribe("audio.wav", model).text)
```

The folder is complete: `config.json`, `model.safetensors` and `vocabulary.tiktoken` need
nothing from the network."""

_PADDING_USE = """

`padding.safetensors` stands for the silence behind a short clip, so that only the clip itself is
encoded. `--audio-context full` encodes 30 s instead, as OpenAI's Whisper does."""

_HF_INTRO = (
    """A Whisper speech recognition model as transformers saves one, written by baldwhisper-mlx."""
)
_HF_USE = """```python
import soundfile
from transformers import pipeline

recognize = pipeline("automatic-speech-recognition", model="PATH_TO_THIS_FOLDER")
samples, sampling_rate = soundfile.read("audio.wav")
audio = {{"array": samples, "sampling_rate": sampling_rate}}
print(recognize(audio, return_timestamps=True)["text"])
```

This is for mono audio at 16 kHz. Other rates need torchaudio; `recognize("audio.mp3")` reads any
file, but needs ffmpeg. Audio of more than 30 s needs `return_timestamps=True`. {language}

For faster-whisper, convert it with CTranslate2:

```
ct2-transformers-converter --model PATH_TO_THIS_FOLDER --output_dir OUT \\
    --copy_files tokenizer.json preprocessor_config.json
```

{whisper_cpp}"""
_TIED = """whisper.cpp's `models/convert-h5-to-ggml.py` takes it too."""
_UNTIED = """The input and the output embedding are two matrices (`tie_word_embeddings` is false,
`proj_out.weight` is the output's). transformers and CTranslate2 support that. whisper.cpp
does not: its `convert-h5-to-ggml.py` leaves `proj_out.weight` out, and the model it writes
is wrong."""


_FOLDER = "PATH_TO_THIS_FOLDER"


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says besides what the checkpoint tells.

    Raises:
        ValueError: a dataset that is not a Hub id.
    """

    hub_id: str | None = None
    """`owner/name` that the model is uploaded to; the code in the card then loads it from there."""
    datasets: tuple[str, ...] = ()
    """Hub ids of the datasets that it was trained on."""
    wer: float | None = None
    """Word error rate on the development data of the last training, 0.1 for 10 %."""

    def __post_init__(self) -> None:
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        for dataset in self.datasets:
            validate_repo_id(dataset)


NO_FACTS = CardFacts()


def model_card(
    config: ModelConfig,
    checkpoint: Checkpoint,
    name: str,
    sizes: Mapping[str, int],
    padding: str | None = None,
    facts: CardFacts = NO_FACTS,
) -> str:
    """The card of a baldwhisper-mlx folder as Markdown, with the front matter the hub reads.

    Args:
        config: the exported model's config.
        checkpoint: what was exported.
        name: the model's name, for the title.
        sizes: bytes of each exported tensor, by name.
        padding: what `padding.safetensors` holds, if the folder has it.
        facts: what else is known.
    """
    parts = storage(sizes, config.dtype, config.quantization)
    quantized = f", matrices in {config.quantization}" if config.quantization else ""
    card = _CARD.format(
        **_values(checkpoint, name, "mlx", config.languages, facts),
        intro=_MLX_INTRO,
        use=_MLX_USE + (_PADDING_USE if padding else ""),
        dtype=config.dtype + quantized,
        storage="".join(f"| {part} weights | {text} |\n" for part, text in parts.items()),
        embedding=_embedding(checkpoint),
        audio_context=f"padded ({padding})" if padding else config.audio_context,
        parameters=sum(tensor.numel() for tensor in checkpoint.state.values()),
    )
    return card.replace(_FOLDER, facts.hub_id or _FOLDER)


def hf_model_card(
    checkpoint: Checkpoint,
    name: str,
    *,
    dtype: Dtype,
    parameters: int,
    untied: bool,
    facts: CardFacts = NO_FACTS,
) -> str:
    """The card of a Hugging Face folder.

    Args:
        checkpoint: what was exported.
        name: the model's name, for the title.
        dtype: type the weights are stored in.
        parameters: number of parameters as stored, with a dense embedding.
        untied: whether input and output embedding are different matrices.
        facts: what else is known.
    """
    embedding, context = _embedding(checkpoint), str(checkpoint.audio_context)
    if checkpoint.embedding.rank is not None:
        embedding = f"dense, multiplied out ({embedding})"
    if context != "full":
        context = f"30 s here; trained for {context}, which only baldwhisper-mlx supports"
    card = _CARD.format(
        **_values(checkpoint, name, "transformers", checkpoint.languages, facts),
        storage="",
        intro=_HF_INTRO,
        use=_HF_USE.format(
            whisper_cpp=_UNTIED if untied else _TIED, language=_hf_language(checkpoint)
        ),
        dtype=dtype,
        embedding=embedding,
        audio_context=context,
        parameters=parameters,
    )
    return card.replace(_FOLDER, facts.hub_id or _FOLDER)


def _hf_language(checkpoint: Checkpoint) -> str:
    """Which language transformers transcribes in, as `generation_config.json` makes it."""
    languages = checkpoint.languages
    if not checkpoint.multilingual:
        return "The model is for English only and takes no `language`."
    if languages is not None and len(languages) == 1:
        return f"The language is always `{languages[0]}`; it is not detected."
    return (
        "The language is detected from the first 30 s; to set it, add "
        '`generate_kwargs={"language": "en"}`, with your language\'s code.'
    )


def _values(
    checkpoint: Checkpoint,
    name: str,
    library: str,
    languages: tuple[str, ...] | None,
    facts: CardFacts,
) -> dict[str, Any]:
    """What both cards say: the fields of `_CARD` that depend on the checkpoint only."""
    origin = "from the source"
    if not checkpoint.alignment_heads:
        origin = "the default: all of the last half of the decoder layers"
    title = facts.hub_id.split("/")[1] if facts.hub_id else name
    known = f"| trained for | {', '.join(languages)} |\n" if languages else ""
    if facts.datasets:
        known += f"| trained on | {', '.join(facts.datasets)} |\n"
    if facts.wer is not None:
        known += f"| WER on its development data | {100 * facts.wer:.2f} % |\n"
    return vars(checkpoint.dims) | {
        "name": title,
        "source": checkpoint.public_source,
        "format": checkpoint.format,
        "languages": len(checkpoint.vocabulary.special_tokens) - len(CONTROL_TOKENS),
        "known": known,
        "heads": f"{len(checkpoint.heads)}, {origin}",
        "metadata": _metadata(checkpoint, title, library, languages, facts),
        "licence": _licence(checkpoint),
    }


def _metadata(
    checkpoint: Checkpoint,
    name: str,
    library: str,
    languages: tuple[str, ...] | None,
    facts: CardFacts,
) -> str:
    """The YAML block that the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    results = None
    if facts.wer is not None:
        results = [
            EvalResult(
                task_type="automatic-speech-recognition",
                dataset_type="development-data",
                dataset_name="development data of the training",
                metric_type="wer",
                metric_value=round(100 * facts.wer, 2),
            )
        ]

    data = ModelCardData(
        library_name=library,
        language=list(languages) if languages else None,
        pipeline_tag="automatic-speech-recognition",
        tags=["whisper", "baldwhisper", library],
        license=checkpoint.licence,
        base_model=checkpoint.hub_id or checkpoint.base_model,
        datasets=list(facts.datasets) or None,
        metrics=["wer"] if results else None,
        model_name=name if results else None,
        eval_results=results,
    )
    return str(data.to_yaml())


def _embedding(checkpoint: Checkpoint) -> str:
    form = checkpoint.embedding
    if form.rank is None:
        return "dense"
    text = f"factorized, rank {form.rank}, {form.projections} projections"
    text += ", mean added back" if form.mean else ""
    return text + (f", {form.dense_rows:,} dense rows" if form.dense_rows else "")


def _licence(checkpoint: Checkpoint) -> str:
    text = "The weights' licence is the source's"
    if checkpoint.licence:
        return f"{text}, whose model card states: {checkpoint.licence}."
    return (
        f"{text}; its files do not state one, see where `{checkpoint.public_source}` was published."
    )
