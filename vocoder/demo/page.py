"""The page: puts the tabs together and serves them."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import tempfile
from contextlib import nullcontext

import gradio as gr

from vocoder.atomic import exit_on_termination

from . import copy_synthesis, latent_space, text_to_speech, without_proxies
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

_CSS = """
.versions .audios { min-height: 54px; }
.versions audio { width: 100%; }
.versions audio[hidden] { display: none; }
.versions table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.versions th, .versions td { padding: 0.4rem; text-align: right; }
.versions th:first-child, .versions td:first-child { text-align: left; }
.versions td { border-top: 1px solid var(--border-color-primary); }
.versions input { appearance: auto; accent-color: var(--primary-600); }
.versions tr:has(:checked) { background: var(--background-fill-secondary); }
.versions label { display: flex; gap: 0.5rem; align-items: baseline; cursor: pointer; }
.versions small { display: block; }
.versions a { text-decoration: underline; }
.versions p, .versions small, .versions th { color: var(--body-text-color-subdued); }
.component-wrapper time, .component-wrapper .playback { color: var(--neutral-600) !important; }
@media (max-width: 640px) {
  .tabs { margin: 0 -1.5rem; width: calc(100% + 3rem); }  /* into the padding of the page */
  .tab-container button { padding: 0 0.5rem; }
  .versions td:last-child, .versions th:last-child { display: none; }  /* the player saves, too */
  .versions { font-size: var(--text-xs); }
  .versions th, .versions td { padding: 0.3rem 0.15rem; }
  .picture .image-frame { padding-top: 2.2rem; }  /* below its buttons */
}
"""


def build(models: Models) -> gr.Blocks:
    """The page for these models; loads none of them."""
    # A page that is left running deletes old files: (how often, older than), seconds.
    with gr.Blocks(title="flow-vocoder", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(
            "# flow-vocoder\nA vocoder that is a normalizing flow. Everything is computed on the "
            "machine that serves this page."
        )
        with gr.Tabs(overflow_behavior="wrap"):
            for tab in (text_to_speech, copy_synthesis, latent_space):
                with gr.Tab(tab.TITLE):
                    tab.layout(models)
    return page


def serve(models: Models, host: str, port: int | None, share: bool) -> None:
    """Serve the page until it is interrupted.

    Args:
        host: address to listen on; 127.0.0.1 is this machine alone.
        port: the port; None for the first free one from 7860 on.
        share: publish the page through gradio's tunnel, for anybody who has the link.

    Raises:
        OSError: the port is taken.
    """
    with (
        exit_on_termination(0),
        without_proxies() if not share else nullcontext(),
        tempfile.TemporaryDirectory(prefix="vocoder-demo-") as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        if platform.libc_ver()[0] == "glibc":
            # Let threads share two arenas of memory (M_ARENA_MAX): each event runs in any of 40
            # threads, and with an arena for each, hundreds of MB stay allocated for nothing.
            ctypes.CDLL(None).mallopt(-8, 2)
        page = build(models)
        page.queue(max_size=20)  # events that wait; the next is refused
        _, address, public = page.launch(
            server_name=host,
            server_port=port,
            share=share,
            theme=_LOOK,
            css=_CSS,
            max_file_size="20mb",
            # Visitors whose page gradio remembers, at about 1 MB each.
            state_session_capacity=100,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
        sys.stdout.write(f"The demo is at {public or address} (Ctrl-C stops it)\n")
        sys.stdout.flush()
        page.block_thread()
