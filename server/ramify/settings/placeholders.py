"""Secrets that nobody has chosen: what example files and tutorials hold in place of one.

Standard library only: `docker/make_secrets.py` uses this file by itself.
"""

from __future__ import annotations

import re

MARKS = re.compile(
    r"change.?(me|this|it)|place.?holder|example|your.?(\w+.?)?(key|secret|password|token)|replace.?(me|this|it|with)"
    r"|to.?be.?set|dummy|^(password|secret|admin|default|insecure)[\W\d_]*$|^<.*>$",
    re.IGNORECASE | re.DOTALL,
)
LEAST = 16
"""Characters of a secret."""
LEAST_DIFFERENT = 4
"""Characters; with fewer, as in `xxxxxxxxxxxxxxxx`, nothing was chosen either."""


def is_placeholder(secret: str) -> bool:
    """Tell whether `secret` only marks the place of one."""
    return bool(MARKS.search(secret)) or len(set(secret)) < LEAST_DIFFERENT


def unusable(secret: str) -> str | None:
    """Return what is wrong with a secret, in words that do not show it; `None` if nothing is."""
    if is_placeholder(secret):
        return "this is a placeholder, which anybody can guess; make a real one: openssl rand -hex 32"
    if len(secret) < LEAST:
        return f"a key has at least {LEAST} characters"
    return None
