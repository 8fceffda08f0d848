"""The documents are true: their examples run, their commands parse, their links lead somewhere.

Of every fenced block, Python is run, and so are the commands of `vocoder` that take seconds (RUN);
the other commands are parsed by the program they call. Every Python block is complete. Blocks of a
page share a folder, and run in the order of the page. A block that cannot run here (a download,
another package, a GPU) says so in its first line, `# Not tested: why.`; Python is compiled.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml

import vocoder
from tests.conftest import ROOT, command
from vocoder import MelSpec, cli
from vocoder.audio import PRESETS, LogMel
from vocoder.corpus import held_out
from vocoder.models import MdctFlow
from vocoder.training.acoustic import AcousticRecipe
from vocoder.training.recipe import CONFIGS, Recipe, command_line, parser
from vocoder.training.restoration import RestorationRecipe

SAMPLE = ROOT / "recipes/ljspeech/sample"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
    *sorted((ROOT / "recipes").glob("*/README.md")),
]
DOCUMENTS = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "recipes").glob("*/*/README.md"))]

RUN = {"info", "mel", "refine", "resynthesize", "say", "synthesize"}
"""Commands of `vocoder` that are run; the others serve, measure for minutes or need an extra."""

NOT_TESTED = "# Not tested: "

ELSEWHERE = {
    ".", "apt-get", "bash", "curl", "data/tts/bin/pip", "docker", "ffplay", "npm", "pip", "pipx",
    "python3", "sbatch", "tensorboard", "torchrun", "uv",
}  # fmt: skip
"""Programs whose commands are not checked: they install, or are not ours."""


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(page):
    run = [block for block in blocks(page, "bash") if not block.startswith(NOT_TESTED)]
    text = "".join(run).replace("\\\n", " ")
    lines = [part for line in text.splitlines() for part in re.split(r"&&| \| ", line)]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def named(path):
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_flow, tiny_acoustic):
    """A folder with what the examples name: a model, a recording, a mel, a configuration."""
    monkeypatch.chdir(tmp_path)
    for folder in ("docs", "recipes"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for run, spec in (("mdct", "ljspeech"), ("espnet", "espnet"), ("my-voice", "ljspeech")):
        tiny_flow(spec).save(f"runs/{run}/model")
    tiny_acoustic("ljspeech").save("runs/my-voice-text/model")
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(22050)
    vocoder.write_audio("in.wav", audio, 22050)
    mel = tiny_flow("ljspeech").mel(audio)
    np.save("mel.npy", mel.numpy())
    for name in ("tacotron2", "fastpitch"):
        np.save(f"{name}.npy", LogMel(MelSpec.preset("tacotron2"))(audio).numpy())
    np.save("matcha.npy", (mel.numpy() + 5.536622) / 2.116101)
    np.save("espnet.npy", tiny_flow("espnet").mel(audio).numpy().T)
    parity = ROOT / "tests/data/waveglow_parity_small.safetensors"
    (tmp_path / "waveglow.safetensors").write_bytes(parity.read_bytes())
    for folder in ("wavs", "text"):
        (tmp_path / "my-voice" / folder).mkdir(parents=True)
    vocoder.write_audio("my-voice/wavs/0001.wav", audio, 22050)
    (tmp_path / "my-voice/text/0001.txt").write_text("A sentence.\n")
    (tmp_path / "lines.txt").write_text("One.\nlast|Two.\n")
    (tmp_path / "book.txt").write_text("A sentence.\n")
    (tmp_path / "deeper.yaml").write_text("model:\n  init_args:\n    n_flows: 12\n")
    return tmp_path


@pytest.fixture(scope="module")
def recipes():
    """Script -> its default configuration and its options."""
    restoration = ROOT / "recipes/restoration/config/restoration.yaml"
    found = {
        "ljspeech/train": (Recipe, CONFIGS / "source.yaml"),
        "ljspeech/train_acoustic": (AcousticRecipe, CONFIGS / "acoustic.yaml"),
        "restoration/train": (RestorationRecipe, restoration),
    }
    return {
        f"recipes/{script}.py": (config, parser(recipe("", config, SAMPLE)))
        for script, (recipe, config) in found.items()
    }


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=named)
def test_the_commands_of_a_page_run_or_parse(page, workplace, recipes):
    app = typer.main.get_command(cli.app)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *words in commands(page):
        line = shlex.join([program, *words])
        if program == "vocoder" and words[0] in RUN:
            result = command(*words)
            assert result.exit_code == 0, f"{line}: {result.output}"
        elif program == "vocoder":
            if words[0] == "train":
                acoustic = "_acoustic" * ("--acoustic" in words)
                default, options = recipes[f"recipes/ljspeech/train{acoustic}.py"]
                given = [word for word in words[2:] if word != "--acoustic"]
                options.parse_args(command_line([*given, "--data", words[1]], default))
            app.commands[words[0]].make_context(words[0], words[1:]).close()
        elif program == "make":
            assert set(words) <= set(targets), line
        elif program == "python" and words[0] in recipes:
            default, options = recipes[words[0]]
            options.parse_args(command_line(words[1:], default))
        elif program == "python":
            script = Path(words[0]).read_text(encoding="utf-8")
            flags = {word.partition("=")[0] for word in words if re.match("--[a-z]+=?", word)}
            ours = {flag for flag in flags if "." not in flag and flag != "--max_time"}
            assert all(f'"{flag}"' in script for flag in ours), line
        else:
            assert program in ELSEWHERE, line


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_the_python_examples_of_a_page_run(page, workplace):
    runs = page.parent.parent != ROOT / "recipes"  # those are about a corpus that is not there
    for block in blocks(page, "python"):
        code = compile(block, page.name, "exec")
        if runs and not block.startswith(NOT_TESTED):
            exec(code, {})
    written = {"own-voice.md": "my-voice/metadata.csv"}.get(page.name, "out.wav")
    assert not runs or (workplace / written).exists()


def anchors(page):
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_links_lead_somewhere_lines_are_short_and_blocks_say_what_they_are(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    if page.parent.name not in {"festvox-ru", "synthetic-english"}:
        assert not [line for line in text.splitlines() if len(line) > 120 and line[0] != "|"]
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    assert set(fences[::2]) <= {"bash", "python"}
    assert set(fences[1::2]) <= {""}


def test_the_table_of_presets_is_that_of_the_code():
    text = (ROOT / "docs/mels.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", text, re.MULTILINE)
    presets = {name: cells.split(" | ") for name, cells in rows}
    assert set(presets) == set(PRESETS)
    for name, cells in presets.items():
        spec = MelSpec.preset(name)
        low, high = f"{spec.fmin:,.0f}", f"{spec.fmax:,.0f}"
        numbers = [spec.sample_rate, spec.n_fft, spec.hop_length, spec.n_mels]
        logarithm = {"e": "natural", "10": "base 10"}[spec.log_base]
        frames = "centred" if spec.center else "HiFi-GAN's"
        expected = [*(f"{n:,}" for n in numbers), f"{low} – {high}"]
        assert cells == [*expected, logarithm, f"{spec.floor:g}", frames]
        assert spec.n_fft == spec.win_length
        assert (spec.mel_scale, spec.mel_norm, spec.power) == ("slaney", "slaney", 1.0)


def test_the_delays_are_those_of_the_default():
    model = vocoder.load()

    def delay(frames):
        seconds = frames * model.mel_spec.hop_length / model.sample_rate
        return f"{frames} frames ({seconds:.1f} s)"

    exact, short = model.look_ahead(), model.look_ahead(look_ahead=4)
    restoring = exact - model.look_ahead(restore=0)
    refining = [model.look_ahead(r) - model.look_ahead(0) for r in (None, 16)]
    text = " ".join((ROOT / "docs/servers.md").read_text(encoding="utf-8").split())
    assert f"lags by {delay(exact)}: {restoring} of them for restoring" in text
    assert f"{refining[0]} for refinement ({refining[1]} with `refine=16`)" in text
    assert f"with `restore=0`, and by {short} (" in text


@pytest.mark.parametrize("files", [("source",), ("mdct", "low-latency")])
def test_the_look_ahead_is_that_of_the_configurations(files):
    arguments = {}
    for file in files:
        config = yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())
        arguments |= config["model"]["init_args"]
    model = MdctFlow(**arguments)
    frames = model.context_frames[1]
    seconds = frames * model.mel_spec.hop_length / model.sample_rate
    text = (ROOT / "docs/limits.md").read_text(encoding="utf-8").replace("\n ", "")
    assert f"looks {frames} frames ahead ({seconds:.2g} s" in text


def test_the_sentence_of_make_sound_was_never_trained_on():
    sentences = re.findall(r"sample/wavs/(\w+)\.flac", (ROOT / "Makefile").read_text())
    assert sentences
    assert set(sentences) <= set(held_out(SAMPLE).test)
