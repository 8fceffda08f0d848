"""The demo page: type or record, and hear what vocoders make of it.

One file a tab: first what it computes, as functions that know no page, then its `layout`. gradio is
an extra: `page` and `widgets` import it, and nothing imports those two before a page is built.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def without_proxies() -> Iterator[None]:
    """Ignore the environment's proxies within the block: gradio asks its own page through one, and
    cannot be imported where it does not understand its name."""
    with patch.dict(os.environ, no_proxy="*", NO_PROXY="*"):
        yield
