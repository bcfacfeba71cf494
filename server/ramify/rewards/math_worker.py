"""What math-verify is asked. Runs in a worker process only; nothing else may import it.

math-verify hands plain expressions (digits and operators, by its own patterns) to sympy's parser, which
compiles them, and takes for ever over some: that is why all of it happens in a process that may be killed,
whose environment holds no secrets, which can write no file, and whose texts are bounded.

Its own timeouts are off: they turn a late answer into a wrong one. The pool's deadline takes their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

from math_verify import parse, verify

PROBE = "\\boxed{\\frac{12345}{6789}}"


class Unreadable(ValueError):
    """The reference answer cannot be read as mathematics."""


def extract(text: str) -> str | None:
    """The final answer of a text as math-verify writes it, or `None` where it finds none.

    It is compared with a fixed number, for nothing but to fail here and now if it is one over which sympy
    takes for ever; once others are compared with it, they would fail for it.
    """
    candidates = _candidates(text)
    _equal(_candidates(PROBE), candidates)
    return _shown(candidates)


def grade(reference: str, text: str) -> dict[str, Any]:
    """Compare a text's answer with the reference: `{"final": str | None, "equal": bool}`."""
    gold = _reference(reference)
    if not gold:
        raise Unreadable(f"the reference answer {reference[:100]!r} cannot be read as mathematics")
    candidates = _candidates(text)
    return {"final": _shown(candidates), "equal": _equal(gold, candidates)}


def match(text: str, others: Sequence[str]) -> int | None:
    """The index of the first of `others` whose answer equals the text's, or `None`."""
    candidates = _candidates(text)
    return next((i for i, other in enumerate(others) if _equal(_candidates(other), candidates)), None)


FUNCTIONS = {"extract": extract, "grade": grade, "match": match}


def _shown(candidates: Sequence[Any]) -> str | None:
    """math-verify gives the expression and then the text that it was read from."""
    texts = [c for c in candidates if isinstance(c, str)] or [str(c) for c in candidates]
    return (" ".join(texts[-1].split()) or None) if texts else None


def _reference(reference: str) -> list[Any]:
    marked = "\\boxed" in reference or "$" in reference
    return _candidates(reference if marked else f"\\boxed{{{reference}}}")


@lru_cache(maxsize=256)
def _candidates(text: str) -> list[Any]:
    """What math-verify reads in a text: an expression and the text behind it, either, or nothing."""
    try:
        return list(parse(text, parsing_timeout=None, raise_on_error=True))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy raises many kinds for what it cannot read; such a text holds no answer
        return []


def _equal(gold: Sequence[Any], candidates: Sequence[Any]) -> bool:
    return any(_pair_equal(g, c) for g, c in product(gold, candidates))


def _pair_equal(gold: Any, candidate: Any) -> bool:
    try:
        return bool(verify(gold, candidate, timeout_seconds=None, raise_on_error=True))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # what sympy cannot compare, such as an inequality with a matrix, is not equal
        return False


extract("\\boxed{\\frac{1}{2}}")  # builds the grammar before the first call's deadline runs
