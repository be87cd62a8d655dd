"""Whether a model can still write another language than the one it was trained on.

Sentences are forced token by token after a prompt in the model's training language, over the
audio of `examples/sample.wav`; the rank of a token is the number of tokens that are likelier.
Vocabulary pruning removes such tokens, and with them words of code-switched speech; the paper
keeps the whole vocabulary for that reason.

    python -m benchmarks.accuracy.other_languages --model "fine-tuned=DIR" --model "student=DIR" \\
        --language ln --output benchmarks/results/reproduction-languages.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from benchmarks.machines import SAMPLE
from benchmarks.options import Benchmark, models_option, named_model, output_option
from benchmarks.result_files import write_json

LIKELY = 0.01
"""A token is within reach if at most this share of the vocabulary is likelier."""
SENTENCES = {
    "French": [
        " Je ne sais pas pourquoi il est parti sans nous dire au revoir.",
        " Demain matin nous allons au marché pour acheter du riz et des légumes.",
        " La réunion commence à huit heures dans la grande salle de la mairie.",
        " Elle a téléphoné à son frère pour lui demander des nouvelles de la famille.",
        " Les enfants apprennent à lire et à écrire dans leur propre langue.",
    ],
    "English": [
        " I do not know why he left without saying goodbye to us.",
        " Tomorrow morning we are going to the market to buy rice and vegetables.",
        " The meeting starts at eight o'clock in the large room of the town hall.",
    ],
}


def ranks(loaded: LoadedModel, language: str, text: str) -> npt.NDArray[np.int64]:
    """Rank of each token of a forced text: how many tokens are likelier, (T,).

    Args:
        loaded: the model.
        language: of the prompt, as a code.
        text: forced after it.

    Raises:
        ValueError: a logit is not finite.
    """
    import mlx.core as mx  # after the runtime, which picks the BLAS

    model, tokenizer = loaded.model, loaded.tokenizer
    prompt = tokenizer.sot_sequence(language, "transcribe", timestamps=False)
    tokens = tokenizer.encode(text)
    cache = model.make_cache()
    mel = LogMelSpectrogram(load_audio(SAMPLE), loaded.config.n_mels)
    model.encode(mel.window(0)[None], [mel.n_frames], cache)
    hidden = model.decoder(mx.array([[*prompt, *tokens]]), cache)
    logits = np.array(model.logits(hidden).astype(mx.float32))[0, len(prompt) - 1 : -1]
    if not np.isfinite(logits).all():
        raise ValueError("the model's logits are not finite")
    return np.array([(row > row[token]).sum() for row, token in zip(logits, tokens, strict=True)])


def summary(found: Sequence[npt.NDArray[np.int64]], vocabulary: int) -> dict[str, Any]:
    """Of the tokens of several texts: median rank, and the shares within reach and likeliest."""
    every = np.concatenate(found)
    return {
        "tokens": len(every),
        "median_rank": float(np.median(every)),
        "within_reach": float(np.mean(every <= LIKELY * vocabulary)),
        "likeliest": float(np.mean(every == 0)),
    }


@click.command(cls=Benchmark)
@models_option()
@click.option("--language", required=True, help="Code of the models' training language.")
@output_option()
def main(models: Sequence[str], language: str, output: Path) -> None:
    """Rank the tokens of French and English sentences inside prompts of another language."""
    result: dict[str, Any] = {"prompt": language, "models": {}}
    for name, folder in map(named_model, models):
        loaded = load_model(folder)
        rows = {
            other: summary([ranks(loaded, language, text) for text in texts], loaded.config.n_vocab)
            for other, texts in SENTENCES.items()
        }
        result["models"][name] = {"vocabulary": loaded.config.n_vocab, "languages": rows}
        for other, row in rows.items():
            click.echo(f"{name}, {other}: median rank {row['median_rank']:.0f}")
    write_json(output, result)


if __name__ == "__main__":
    main()
