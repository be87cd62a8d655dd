"""Checks a whole recipe against its teacher and its data, before the first stage works.

Every check calls what the stage itself calls later, on a model of the form that the stage will get
and on the windows that its data will have. So all problems are found at once, and none that would
not stop the run.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.merge import (
    MergeSettings,
    candidates,
    check_without_speech,
)
from baldwhisper_convert.compression.ranking import check_comparable
from baldwhisper_convert.data.batches import per_epoch
from baldwhisper_convert.data.prepare import check_context
from baldwhisper_convert.data.prepared import SPEECH, Choice
from baldwhisper_convert.data.recordings import noise_files
from baldwhisper_convert.data.speech import Speech, parse_shares
from baldwhisper_convert.data.texts import read_lines
from baldwhisper_convert.data.utterances import BadRows
from baldwhisper_convert.data.word_errors import words_wrong
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.model import Model, next_teacher
from baldwhisper_convert.pipeline.outline import outline
from baldwhisper_convert.pipeline.planned_data import (
    MOST_STREAMED,
    PlannedData,
    PlannedSpeech,
    read_speech,
    width_of,
)
from baldwhisper_convert.pipeline.planned_stage import PlannedStage, own_parts
from baldwhisper_convert.pipeline.recipe import StageRecipe
from baldwhisper_convert.pipeline.settings import RecipeError
from baldwhisper_convert.pipeline.sources import Sources
from baldwhisper_convert.pipeline.stages import check_labelled
from baldwhisper_convert.pipeline.training_stages import in_context
from baldwhisper_convert.training.checks import (
    check_batches,
    check_evaluations,
    trained_parameters,
)
from baldwhisper_convert.training.lora import add_lora
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Transcription


def validate(teacher: Checkpoint, start: Checkpoint, sources: Sources) -> list[PlannedStage]:
    """Checks all stages of a recipe.

    Args:
        teacher: the recipe's.
        start: the model that its stages begin with.
        sources: the recipe and its data.

    Returns:
        The stages, with what each will work with.

    Raises:
        RecipeError: there are problems; lists all of them.
    """
    check = _Check(teacher, start, sources)
    stages = check.stages()
    if check.problems:
        raise RecipeError(check.problems)
    return stages


class _Check:
    def __init__(self, teacher: Checkpoint, start: Checkpoint, sources: Sources) -> None:
        self.source, self.start, self.sources = teacher, start, sources
        self.problems: list[str] = []
        self.texts: set[str] = set()
        self.contexts: set[tuple[str, str, int]] = set()
        self.place = ""

    def stages(self) -> list[PlannedStage]:
        """Checks the stages in order; each gets the outline of the one before."""
        planned, model, teacher = [], Model.of(self.start), self.start
        for number, stage in enumerate(self.sources.recipe.stages, start=1):
            self.place = f"stage {number} ({stage.stage})"
            speech = self._speech("data", stage.data, teacher)
            speech = self._replayed(stage, speech, teacher)
            dev = self._speech("dev", stage.dev_names, teacher) if stage.dev_names else None
            for name in stage.texts:
                self._text(name)
            self._settings(stage, model, teacher, speech, dev)
            result = self._result(stage, model, teacher, speech)
            planned.append(PlannedStage(number, stage, model, teacher, speech, dev, result))
            model = result
            teacher = next_teacher(stage.stage, model.checkpoint, teacher, self.source)
        return planned

    @contextmanager
    def _problem(self, key: str = "") -> Iterator[None]:
        """Notes what the block raises as a problem of the stage, or of a key of it."""
        try:
            yield
        except (ValueError, OSError, ModuleNotFoundError) as error:
            text = f"{self.place}{key and f', {key}'}: {' '.join(str(error).split())}"
            if text not in self.problems:
                self.problems.append(text)

    def _result(
        self, stage: StageRecipe, model: Model, teacher: Checkpoint, speech: Speech | None
    ) -> Model:
        """The outline of a stage's result; its input, if the stage has a problem."""
        noted = list(self.problems)
        with self._problem():
            result = outline(stage, model, teacher, speech)
            if speech is None and stage.stage in ("finetune", "distill"):
                # Its data has problems; the later stages must not get others because of that.
                name = parse_shares(stage.data)[0][0]
                context = self.sources.recipe.data[name].audio_context
                checkpoint = in_context(result.checkpoint, context, 0)
                result = dataclasses.replace(result, checkpoint=checkpoint)
            return result
        if any(text.startswith(self.place) for text in noted):
            self.problems = noted  # the problem has a key already
        return model

    def _speech(self, key: str, names: tuple[str, ...], teacher: Checkpoint) -> Speech | None:
        """The data of a stage; None if there is none, or it has problems."""
        if not names:
            return None
        parts = [(self._data(name, teacher), share) for name, share in parse_shares(names)]
        present = [(part, share) for part, share in parts if part is not None]
        if len(present) < len(parts):
            return None
        with self._problem(key):
            return Speech(windows=Choice(present), fingerprints={})
        return None

    def _replayed(
        self, stage: StageRecipe, speech: Speech | None, teacher: Checkpoint
    ) -> Speech | None:
        """The speech of a training, with what it replays."""
        with self._problem("replay"):
            both = self.sources.recipe.with_replay(
                stage, speech, original=self.source, teacher=teacher,
                read=lambda names, kept: self._speech("replay.data", names, kept),
            )  # fmt: skip
            if both:
                per_epoch(both.windows, stage.trained.batch_size)
            return both
        return speech

    def _data(self, name: str, teacher: Checkpoint) -> PlannedData | None:
        """One data set, read once; None if it has problems."""
        data = self.sources.recipe.data[name]
        known = (name, teacher is self.source)
        context = (name, teacher.audio_context, teacher.audio_context_margin)
        if context not in self.contexts:
            # Fine-tunings may change it, also where they all count as one teacher here.
            self.contexts.add(context)
            with self._problem(f"data.{name}.audio_context"):
                check_context(teacher, data.settings)
        if known not in self.sources.planned:
            self.sources.planned[known] = self._read(name, teacher)
        return self.sources.planned[known]

    def _read(self, name: str, teacher: Checkpoint) -> PlannedData | None:
        data, sources = self.sources.recipe.data[name], self.sources
        other = sources.planned.get((name, teacher is not self.source))
        prompts = None
        with self._problem(f"data.{name}.language"):
            prompts = Prompts.of(teacher, data.language)
        with self._problem(f"data.{name}.augmentation.recordings"):
            noise_files(sources.settings_of(name).augmentation.recordings)
        with self._problem(f"data.{name}.source"):
            # In another language than asked for, if that is unknown, to find what else is wrong.
            prompts = prompts or Prompts(teacher.tokenizer(), teacher.dims.n_text_ctx)
            speech = other.speech if other else self._listed(name, prompts)
            if speech.bad.counts and not sources.skip_bad:
                raise ValueError(f"unusable utterances: {speech.bad}; --skip-bad skips them")
            if not len(speech.clips):
                raise ValueError(f"no usable speech; bad utterances: {speech.bad}")
            dims = teacher.dims
            width = width_of(data.settings, dims.n_audio_state, dims.n_mels)
            return PlannedData(name, speech, data.settings, prompts, width)
        return None

    def _listed(self, name: str, prompts: Prompts) -> PlannedSpeech:
        """The utterances of a data set."""
        bad, streamed = BadRows(allowed=True), self.sources.recipe.data[name].streaming
        return read_speech(
            self.sources.reading(name, bad, most=MOST_STREAMED if streamed else None),
            prompts, bad, name=self.sources.source_of(name), whole=not streamed,
            by_turns=self.sources.recipe.data[name].by_turns,
        )  # fmt: skip

    def _text(self, name: str) -> None:
        """Reads a text, once."""
        if name not in self.texts:
            self.texts.add(name)
            with self._problem(f"texts.{name}"):
                sum(1 for _ in read_lines(self.sources.text_of(name)))

    def _settings(
        self,
        stage: StageRecipe,
        model: Model,
        teacher: Checkpoint,
        speech: Speech | None,
        dev: Speech | None,
    ) -> None:
        if stage.stage == "merge":
            self._merge(stage, model, speech)
        elif stage.stage == "factorize":
            with self._problem("factorize"):
                outline(stage, model, teacher, speech)
            if speech:
                with self._problem("data"):
                    check_labelled(speech, dev)
        elif speech:
            self._training(stage, model, teacher, speech, dev)
        if dev and stage.stage in ("finetune", "distill") and dev.windows.labelled:
            with self._problem("dev"):
                _check_words(dev)

    def _merge(self, stage: StageRecipe, model: Model, speech: Speech | None) -> None:
        settings = stage.merge or MergeSettings()
        dims = model.checkpoint.dims
        n_layers = dims.n_audio_layer if settings.part == "encoder" else dims.n_text_layer
        with self._problem("merge"):
            if stage.data:
                candidates(settings, n_layers)
            else:
                check_without_speech(settings)
                settings.plan(n_layers)
        if speech:
            with self._problem("data"):
                windows = speech.windows
                check_comparable(settings.part, is_mel=windows.is_mel, has_text=windows.labelled)

    def _training(
        self,
        stage: StageRecipe,
        model: Model,
        teacher: Checkpoint,
        speech: Speech,
        dev: Speech | None,
    ) -> None:
        training, windows = stage.trained, speech.windows
        # Of a stream only the beginning is known.
        whole = all(part.speech.whole for part in own_parts(speech))
        with self._problem("training"):
            check_evaluations(training, has_dev=bool(stage.dev_names))
        with self._problem("training.batch_size"):
            check_batches(windows, training, int(os.environ.get("WORLD_SIZE", 1)), whole=whole)
        student = Whisper.from_checkpoint(model.checkpoint)
        if stage.stage == "finetune":
            with self._problem("training"):
                add_lora(student, training)
                trained_parameters(student, Transcription(), windows, training)
            return
        with self._problem("loss"):
            objective = Distillation(
                Whisper.from_checkpoint(teacher),
                model.groups,
                stage.loss or LossSettings(),
                model.encoder_groups,
            )
            with self._problem("training"):
                add_lora(student, training)
                trained_parameters(student, objective, windows, training)
                for key, used in (("data", speech), ("dev", dev)):
                    with self._problem(key):
                        if used:
                            objective.check(student, is_mel=used.windows.is_mel)


def _check_words(dev: Speech) -> None:
    """Raises ValueError for development data without a word, which has no word error rate."""
    spoken = (window.text for window in dev.windows.windows if window.kind == SPEECH)
    if not any(words_wrong(text, "")[1] for text in spoken):
        raise ValueError("the references have no words, so there is no word error rate")
