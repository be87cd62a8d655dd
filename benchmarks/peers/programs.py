"""The programs that are compared, each at its best settings, in a process of its own.

A program is a function from a model's path and a number of threads to what transcribes samples,
and the settings it found best. All are greedy, with timestamps, without fallback to higher
temperatures. Nothing of the other programs is loaded into the process of one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from baldwhisper_mlx.checkpoint.load import RunContext

Samples = np.ndarray[Any, np.dtype[np.float32]]
Transcribe = Callable[[Samples, str], str]
Opened = tuple[Transcribe, dict[str, Any]]


@dataclass(frozen=True)
class Program:
    """One program.

    `package` is what has to be installed, `form` the form of the weights it reads (see
    models.py), and `open` loads them.
    """

    package: str
    form: str
    open: Callable[[str, int], Opened]


def ours(model: str, _threads: int, audio_context: RunContext | None = None) -> Opened:
    """baldwhisper-mlx; MLX and its BLAS choose their threads."""
    import baldwhisper_mlx
    from baldwhisper_mlx.ops import blas

    loaded = baldwhisper_mlx.load_model(model, audio_context=audio_context)

    def transcribe(samples: Samples, language: str) -> str:
        return baldwhisper_mlx.transcribe(samples, loaded, language=language, temperature=0.0).text

    dtype = str(loaded.model.decoder.ln.weight.dtype).removeprefix("mlx.core.")
    settings = {"blas": blas.preload(), "audio context": loaded.audio_context}
    return transcribe, _mlx_settings(dtype) | settings


def mlx_whisper(model: str, _threads: int) -> Opened:
    """mlx-whisper, with the BLAS that baldwhisper-mlx gives MLX."""
    import importlib

    from baldwhisper_mlx.ops import blas

    library = blas.preload()  # before MLX is imported
    import mlx.core as mx

    # the function mlx_whisper.transcribe hides the module of that name
    module: Any = importlib.import_module("mlx_whisper.transcribe")
    half = mx.default_device().type == mx.DeviceType.gpu
    module.ModelHolder.get_model(model, mx.float16 if half else mx.float32)

    def transcribe(samples: Samples, language: str) -> str:
        result = module.transcribe(
            samples, path_or_hf_repo=model, language=language, temperature=0.0, fp16=half
        )
        return str(result["text"])

    return transcribe, _mlx_settings("float16" if half else "float32") | {"blas": library}


def openai_whisper(model: str, threads: int) -> Opened:
    """openai-whisper on torch's CPU: its alignment heads are sparse, which MPS does not have."""
    import torch
    import whisper

    torch.set_num_threads(threads)
    loaded = whisper.load_model(model, device="cpu")

    def transcribe(samples: Samples, language: str) -> str:
        result = loaded.transcribe(samples, language=language, temperature=0.0, fp16=False)
        return str(result["text"])

    settings = {"device": "cpu", "dtype": "float32", "torch": torch.__version__}
    return transcribe, settings | {"threads": torch.get_num_threads()}


def faster_whisper(model: str, threads: int, compute_type: str) -> Opened:
    """faster-whisper on CTranslate2's CPU backend, the only one it has without CUDA."""
    import ctranslate2
    from faster_whisper import WhisperModel

    loaded = WhisperModel(model, device="cpu", compute_type=compute_type, cpu_threads=threads)

    def transcribe(samples: Samples, language: str) -> str:
        segments, _ = loaded.transcribe(samples, language=language, beam_size=1, temperature=0.0)
        return "".join(segment.text for segment in segments)

    settings = {"device": "cpu", "dtype": loaded.model.compute_type, "threads": threads}
    return transcribe, settings | {"ctranslate2": ctranslate2.__version__}


def whisper_cpp(model: str, threads: int, dtype: str) -> Opened:
    """whisper.cpp in pywhispercpp's build, on a GPU where that build has one."""
    from pywhispercpp.model import Model

    loaded = Model(
        model,
        redirect_whispercpp_logs_to=None,
        n_threads=threads,
        greedy={"best_of": 1},
        temperature=0.0,
        temperature_inc=0.0,
        print_progress=False,
        print_realtime=False,
    )

    def transcribe(samples: Samples, language: str) -> str:
        return " ".join(segment.text for segment in loaded.transcribe(samples, language=language))

    system = " ".join(str(Model.system_info()).split())
    return transcribe, {"dtype": dtype, "threads": threads, "system": system}


def transformers(model: str, threads: int) -> Opened:
    """transformers on torch: float16 on MPS where there is one, else float32 on the CPU."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    device = "mps" if torch.backends.mps.is_available() else "cpu"
    dtype = torch.float16 if device == "mps" else torch.float32
    processor = WhisperProcessor.from_pretrained(model)
    loaded: Any = WhisperForConditionalGeneration.from_pretrained(
        model, dtype=dtype, attn_implementation="sdpa"
    )
    loaded = loaded.to(device)

    def transcribe(samples: Samples, language: str) -> str:
        long = len(samples) > 30 * 16_000
        how = {"truncation": False, "padding": "longest"} if long else {}
        inputs = processor(
            samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True, **how
        )
        with torch.inference_mode():
            ids = loaded.generate(
                inputs.input_features.to(device, dtype),
                attention_mask=inputs.attention_mask.to(device),
                language=language,
                task="transcribe",
                return_timestamps=True,
                num_beams=1,
                do_sample=False,
            )
        return str(processor.batch_decode(ids, skip_special_tokens=True)[0])

    settings = {"device": device, "dtype": str(dtype).removeprefix("torch.")}
    return transcribe, settings | {"torch": torch.__version__, "threads": torch.get_num_threads()}


def _mlx_settings(dtype: str) -> dict[str, Any]:
    import mlx.core as mx

    return {"device": mx.default_device().type.name, "dtype": dtype, "mlx": version("mlx")}


PROGRAMS: dict[str, Program] = {
    "mlx-whisper": Program("mlx-whisper", "mlx-whisper", mlx_whisper),
    "openai-whisper": Program("openai-whisper", "openai.pt", openai_whisper),
    "faster-whisper float32": Program(
        "faster-whisper", "ctranslate2", lambda m, t: faster_whisper(m, t, "float32")
    ),
    "faster-whisper int8": Program(
        "faster-whisper", "ctranslate2", lambda m, t: faster_whisper(m, t, "int8")
    ),
    "whisper.cpp": Program("pywhispercpp", "ggml.bin", lambda m, t: whisper_cpp(m, t, "float16")),
    "whisper.cpp q8_0": Program(
        "pywhispercpp", "ggml-q8_0.bin", lambda m, t: whisper_cpp(m, t, "q8_0")
    ),
    "transformers": Program("transformers", "transformers", transformers),
}
"""The others; `ours` is opened for every model of ours."""

OURS = Program("baldwhisper-mlx", "mlx", ours)


def work(job: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """What the process of a program does.

    Args:
        job: `program` (a name in `PROGRAMS`, or none of them for ours), `model`, `threads`,
            `language`, paths of float32 .npy files at 16 kHz: `clips`, and `pieces` by length;
            for ours also `audio_context`, as `load_model` takes it.
        say: called with `settings` once the model is ready, with `seconds` and `text` of the
            first clip while all is cold, of every clip, then with `peak_process_bytes`, and at
            last with `length` and `seconds` of every piece.
    """
    model, threads = job["model"], job["threads"]
    if job["program"] in PROGRAMS:
        transcribe, settings = PROGRAMS[job["program"]].open(model, threads)
    else:
        transcribe, settings = ours(model, threads, job.get("audio_context"))
    say({"settings": settings})

    def timed(path: str) -> dict[str, Any]:
        samples = np.load(path)
        began = time.perf_counter()
        text = transcribe(samples, job["language"])
        return {"seconds": time.perf_counter() - began, "text": text.strip()}

    for clip in [job["clips"][0], *job["clips"]]:
        say(timed(clip))
    # Not before: importing any of ours would hand a program that is not ours another BLAS.
    from baldwhisper_mlx.bench.memory import peak_process_bytes

    say({"peak_process_bytes": peak_process_bytes()})
    for length, paths in job["pieces"].items():
        timed(paths[0])  # does not count: shapes that are new
        for path in paths:
            say({"length": length, "seconds": timed(path)["seconds"]})


def main() -> None:
    """Reads a job from the command line; answers in lines of JSON on standard output."""
    work(json.loads(sys.argv[1]), lambda line: print("\n" + json.dumps(line), flush=True))
