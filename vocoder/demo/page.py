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

from . import comparison, copy_synthesis, latent_space, text_to_speech, widgets, without_proxies
from .models import Models

TABS = (text_to_speech, copy_synthesis, comparison, latent_space)

LARGEST_UPLOAD = "20mb"
"""The largest file that may be uploaded."""

_WAITING = 20
"""Events that may wait, besides the one that computes."""

_SESSIONS = 100
"""Visitors whose page gradio remembers, at about 1 MB each: its own 10,000 would fill the memory.
No tab keeps anything in a session, so that a visitor who is forgotten notices nothing."""

_M_ARENA_MAX = -8  # of glibc's malloc.h
_ARENAS = 2

_LOOK = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    # Fonts of the visitor's own system: nothing to fetch.
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)

_INTRODUCTION = """# flow-vocoder

A vocoder that is a normalizing flow: it turns mel spectrograms into speech in one parallel pass,
and gives the exact likelihood of any recording. Everything is computed on the machine that serves
this page: nothing leaves it, and uploads are deleted when the server stops.
"""


def build(models: Models) -> gr.Blocks:
    """The page for these models; loads none of them."""
    # A page that is left running deletes old files: (how often, older than), seconds.
    with gr.Blocks(title="flow-vocoder", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(_INTRODUCTION)
        with gr.Tabs():
            for tab in TABS:
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
        _limit_arenas()
        page = build(models)
        page.queue(max_size=_WAITING)
        _, address, public = page.launch(
            server_name=host,
            server_port=port,
            share=share,
            theme=_LOOK,
            css=widgets.CSS,
            max_file_size=LARGEST_UPLOAD,
            state_session_capacity=_SESSIONS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        sys.stdout.write(f"The demo is at {public or address} (Ctrl-C stops it)\n")
        sys.stdout.flush()
        page.block_thread()


def _limit_arenas() -> None:
    """Let threads share arenas of memory, where the C library is glibc.

    Each event runs in any of 40 threads. With an arena for each, memory that one has freed is of no
    use to the others, and hundreds of MB stay allocated for nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
