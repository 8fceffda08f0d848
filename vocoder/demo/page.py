"""The page: puts the tabs together and serves them."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import tempfile
from pathlib import Path

import gradio as gr

from vocoder.atomic import exit_on_termination

from . import copy_synthesis, text_to_speech, without_proxies
from .models import Models

_LOOK = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    # Fonts of the visitor's own system: nothing to fetch.
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(  # enough contrast
    body_text_color_subdued="*neutral_600",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
)


def build(models: Models) -> gr.Blocks:
    """The page for these models; loads none of them."""
    # A page that is left running deletes old files: (how often, older than), seconds.
    with gr.Blocks(title="flow-vocoder", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(
            "# flow-vocoder\nA vocoder that is a normalizing flow. Everything is computed on the "
            "machine that serves this page."
        )
        with gr.Tabs(overflow_behavior="wrap"):
            for tab in (text_to_speech, copy_synthesis):
                with gr.Tab(tab.TITLE):
                    tab.layout(models)
    return page


def serve(models: Models, host: str, port: int | None) -> None:
    """Serve the page until it is interrupted, on ``host`` (127.0.0.1 is this machine alone) and
    ``port``, or the first free one from 7860 on; OSError if it is taken.
    """
    with (
        exit_on_termination(0),
        without_proxies(),
        tempfile.TemporaryDirectory(prefix="vocoder-demo-") as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        if platform.libc_ver()[0] == "glibc":
            # Let threads share two arenas of memory (M_ARENA_MAX): each event runs in any of 40
            # threads, and with an arena for each, hundreds of MB stay allocated for nothing.
            ctypes.CDLL(None).mallopt(-8, 2)
        page = build(models)
        page.queue(max_size=20)  # events that wait; the next is refused
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            theme=_LOOK,
            css=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
            max_file_size="20mb",
            # Visitors whose page gradio remembers, at about 1 MB each.
            state_session_capacity=100,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
        sys.stdout.write(f"The demo is at {address} (Ctrl-C stops it)\n")
        sys.stdout.flush()
        page.block_thread()
