"""The code in the card of a Hugging Face export runs, and prompts as Whisper was trained."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.export.hugging_face import ExportWarning, export_hf
from tests.support.tiny import edit_json, tiny_form
from tests.support.tiny_vocabulary import tiny_vocabulary

SPECIAL = tiny_vocabulary().special_tokens
SOT, TRANSCRIBE, TRANSLATE, PLAIN = (
    SPECIAL[f"<|{name}|>"]
    for name in ("startoftranscript", "transcribe", "translate", "notimestamps")
)


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "clip.wav"
    noise = np.random.default_rng(0).normal(size=32000).astype(np.float32)
    soundfile.write(path, 0.1 * noise, 16000)
    return path


def exported(checkpoint: Checkpoint, folder: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExportWarning)
        return export_hf(checkpoint, folder, dtype="float32", **options)


def blocks(folder: Path, language: str) -> list[str]:
    card = (folder / "README.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def run_card(folder: Path, wav: Path) -> tuple[str, dict[str, Any]]:
    """Runs the Python of a folder's card; returns what it printed and its variables."""
    (code,) = blocks(folder, "python")
    edit_json(folder / "generation_config.json", max_length=16)  # a random model never ends
    code = code.replace("PATH_TO_THIS_FOLDER", str(folder)).replace("audio.wav", str(wav))
    variables: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, variables)
    return printed.getvalue().removesuffix("\n"), variables


def loaded(folder: Path) -> Any:
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True)


def prompt(model: Any, mel: torch.Tensor | None = None, **options: Any) -> list[int]:
    """The prompt of transformers' `generate`: all tokens but the one that is generated."""
    mel = torch.zeros(1, 80, 3000) if mel is None else mel
    tokens = model.generate(mel, max_new_tokens=1, force_unique_generate_call=True, **options)
    return [int(token) for token in tokens[0].tolist()[:-1]]


@pytest.mark.parametrize("form", ["dense", "untied"])
def test_the_code_of_the_card(form: str, tmp_path: Path, wav: Path) -> None:
    """As transformers transcribes with the language detected and the task given by hand."""
    folder = exported(tiny_form(form), tmp_path / "m")
    text, variables = run_card(folder, wav)
    recognize = variables["recognize"]
    samples, rate = soundfile.read(wav)
    mel = recognize.feature_extractor(samples, sampling_rate=rate, return_tensors="pt")
    found = prompt(recognize.model, mel.input_features)
    assert found[0] == SOT
    assert found[2:] == [TRANSCRIBE, PLAIN]
    (language,) = (name for name, i in SPECIAL.items() if i == found[1])
    expected = recognize(
        {"array": samples, "sampling_rate": rate},
        return_timestamps=True,
        generate_kwargs={"language": language, "task": "transcribe"},
    )
    assert text == expected["text"]
    assert text


def test_prompts(tmp_path: Path) -> None:
    model = loaded(exported(tiny_form("dense"), tmp_path / "m"))
    french = SPECIAL["<|fr|>"]
    assert prompt(model, language="fr") == [SOT, french, TRANSCRIBE, PLAIN]
    assert prompt(model, language="fr", task="translate") == [SOT, french, TRANSLATE, PLAIN]
    assert prompt(model, task="translate")[2:] == [TRANSLATE, PLAIN]
    assert prompt(model, language="fr", return_timestamps=True)[:3] == [SOT, french, TRANSCRIBE]


@pytest.mark.parametrize("by_option", [True, False])
def test_a_language_under_the_token_of_another(tmp_path: Path, by_option: bool) -> None:
    """The one that the model was trained for is not detected."""
    checkpoint = tiny_form("dense", languages=None if by_option else ("ln",))
    options = {"languages": ["Lingala"]} if by_option else {}
    folder = exported(checkpoint, tmp_path / "m", **options)
    model = loaded(folder)
    assert prompt(model) == [SOT, SPECIAL["<|ln|>"], TRANSCRIBE, PLAIN]
    with pytest.raises(ValueError, match=r"<\|en\|> is not supported by this specific model"):
        prompt(model, language="en")
    assert "The language is always `ln`" in (folder / "README.md").read_text()


def test_a_language_that_whisper_does_not_have(tmp_path: Path) -> None:
    """Its token replaces another in the vocabulary; transformers does not know its code."""
    checkpoint = tiny_form("dense")
    special = {("<|bam|>" if name == "<|yo|>" else name): i for name, i in SPECIAL.items()}
    vocabulary = replace(checkpoint.vocabulary, special_tokens=special)
    checkpoint = replace(checkpoint, vocabulary=vocabulary, languages=("bam",))
    model = loaded(exported(checkpoint, tmp_path / "m"))
    assert prompt(model) == [SOT, special["<|bam|>"], TRANSCRIBE, PLAIN]
    assert prompt(model, language="<|bam|>") == [SOT, special["<|bam|>"], TRANSCRIBE, PLAIN]


def test_several_languages_are_detected_among(tmp_path: Path) -> None:
    folder = exported(tiny_form("dense", languages=("fr", "ln")), tmp_path / "m")
    model = loaded(folder)
    assert prompt(model)[1] in {SPECIAL["<|fr|>"], SPECIAL["<|ln|>"]}


def test_an_english_only_model(tmp_path: Path, wav: Path) -> None:
    folder = exported(tiny_form("dense", is_multilingual=False), tmp_path / "m")
    text, variables = run_card(folder, wav)
    assert text
    assert prompt(variables["recognize"].model) == [SOT, PLAIN]


def test_an_unknown_language(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown language 'klingon'"):
        export_hf(tiny_form("dense"), tmp_path / "m", languages=["klingon"])
    assert not (tmp_path / "m").exists()


def test_the_command_for_faster_whisper(tmp_path: Path) -> None:
    folder = exported(tiny_form("dense", languages=("ln",)), tmp_path / "m")
    (command,) = (text for text in blocks(folder, "") if "ct2-" in text)
    text = command.replace("PATH_TO_THIS_FOLDER", str(folder)).replace("OUT", str(tmp_path / "ct2"))
    program, *arguments = shlex.split(text.replace("\\\n", " "))
    subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments], check=True, capture_output=True
    )
    assert (tmp_path / "ct2/model.bin").is_file()
