"""Find the final answer of a text and spell it in one way. Imports nothing heavy and evaluates nothing.

The answer is, in this order: the last box (`\\boxed`, `\\fbox`), what follows the last marker (`answer is`,
`Answer:`, `####`), or the last mathematics of the last line that has any. Boxes on one line, or joined by *or* and
*and*, are one answer with several parts; a box on an earlier line, or one that is taken back (*wait*, *actually*), is
superseded, the last box too if what takes it back says another answer. A last box that is blank or never closed is no
answer: an earlier one does not take its place.
"""

from __future__ import annotations

import re
import unicodedata

BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
MARKER = re.compile(
    r"####|\b(?:answer|result|solution)[*_ \t]*(?::|=|\bis\b(?:[*_ \t]*:)?)[*_]*"
    r"|\banswer[*_ \t]+(?=[-$\\\d*])",
    re.IGNORECASE,
)
ANSWER_ELEMENT = re.compile(r"<answer>((?:(?!</?answer>).)*+)</answer>", re.DOTALL | re.IGNORECASE)
END_TOKENS = re.compile(r"(?:<\|[a-z_]+\|>|</s>)$")
RETRACTED = re.compile(
    r"\b(?:wait|actually|no|wrong|correct(?:ing|ed|ion)?|instead|rather|mistake|oops|sorry)\b", re.IGNORECASE
)
TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|oops|sorry|correction|(?:the|my) (?:correct(?:ed)?|right) (?:answer|result|value))\b",
    re.IGNORECASE,
)
"""Words that take back the last box, after it; weaker words explain a box as often as they take it back."""
NEGATED = re.compile(
    r"\b(?:not|isn['’]t|never|neither|nor|unknown|cannot|can['’]t|don['’]t|doesn['’]t|no|false|except|impossible"
    r"|maybe|perhaps|(?:more|less|greater|fewer|larger|smaller|bigger|other) than|at (?:least|most)|between"
    r"|squared|cubed|divid(?:e|ed|ing)|multipl(?:y|ied|ying))\b|[<>≤≥≠]|\btimes (?:more|less|larger|smaller|as)\b",
    re.IGNORECASE,
)
"""Words that make no answer of a number in prose, or another one."""
CLAUSE = re.compile(r"[,;.]\s+|\b(?:so|hence|thus|therefore)\b", re.IGNORECASE)
"""Beginnings of a clause that stands for itself."""
BECAUSE = re.compile(
    r"(?<=[^\s.])\.?(?:\.\s|,?\s+(?:because|since|which|when|where|so that|so|as|with)\b"
    r"|,\s+(?!and\b|or\b)[a-z]{2,}\s+[a-z]{2,}).*",
    re.IGNORECASE | re.DOTALL,
)
"""An explanation of an answer, after it."""
VERB = re.compile(
    r".*(?:\b(?:is|are|be|get|gets|give|gives|have|has|makes?|equals?|becomes|obtain)\b|=|:)\s*",
    re.IGNORECASE,
)
MATHS = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s+\d+/\d+|/\d+)?(?!\w)%?")
PLAIN_MATHS = re.compile(r"(?=\D*\d)[-+*/^().,\d\s{}\[\]=%]*")
COMMAND = re.compile(r"\\[A-Za-z]+")
JOINED = re.compile(r"[\s$,;.()\[\]\\]*(?:(?:\\text\{)?\s*(?:or|and)\s*\}?)?[\s$,;.()\[\]\\]*")
MAX_ANSWER = 1_000
"""Characters of an answer, and of the line that it is looked for in."""
MAX_LINES = 50
"""Lines from the end in which an unmarked answer is looked for."""


def final(text: str) -> str | None:
    """Return the final answer as it is written; `None` if the text has none."""
    text = scope(text)
    boxes = _boxes(text)
    if boxes is not None:
        back = TAKEN_BACK.search(text, boxes[-1][1])
        corrected = final(text[back.start() :]) if back else None
        unclear = back and NUMBER.search(text, back.end())
        return corrected if corrected or unclear else _joined(text, boxes)
    following = marked(text)
    if following is not None:
        return _phrase(next((line[:MAX_ANSWER] for line in following if tidy(line)), ""))
    lines = [line for line in text.splitlines() if line.strip()][-MAX_LINES:]
    return next((found for line in reversed(lines) if (found := _unmarked(line[-MAX_ANSWER:]))), None)


def scope(text: str) -> str:
    """Return the part of a text that may hold its answer: its last `<answer>` element, else all after its thinking."""
    text = END_TOKENS.sub("", text.rpartition("</think>")[2].rstrip()).rstrip()
    answers = ANSWER_ELEMENT.findall(text)
    return answers[-1] if answers else text


def marked(text: str) -> list[str] | None:
    """Return the lines after the last marker, from the rest of its own line; `None` if there is no marker."""
    ends = [match.end() for match in MARKER.finditer(text)]
    return text[ends[-1] :].splitlines() if ends else None


def _boxes(text: str) -> list[tuple[int, int, str]] | None:
    """Return (start, end, content) of every box, in order; `None` if there is none. One never closed is blank."""
    found, at = [], 0
    while match := BOX.search(text, at):
        start, at = match.span()
        if text[at : at + 1] == "{":
            end = closing(text, at)
            content = text[at + 1 : end] if end is not None else ""
            at = end + 1 if end is not None else len(text)
        else:
            content = re.match(r"[^\s$]*", text[at:])[0]  # type: ignore[index]
            at += len(content)
        found.append((start, at, content))
    return found or None


def _joined(text: str, boxes: list[tuple[int, int, str]]) -> str | None:
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        between = text[end:start]
        if not JOINED.fullmatch(between) and ("\n" in between or RETRACTED.search(between)):
            break
        contents.insert(0, content)
    if not tidy(contents[-1]):
        return None
    different = list(dict.fromkeys(tidy(content) for content in contents if tidy(content)))
    return contents[-1].strip() if len(different) == 1 else " ; ".join(different)


def closing(text: str, start: int) -> int | None:
    """Return the index of the brace that closes the one at `start`; `None` if it stays open."""
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return at
        at += 1
    return None


def _phrase(phrase: str) -> str | None:
    """Return the answer in the words after a marker."""
    phrase = BECAUSE.sub("", phrase.strip()).strip()
    if NEGATED.search(MATHS.sub("", phrase)):
        return None
    maths = MATHS.findall(phrase)
    rest = tidy(MATHS.sub("", phrase))
    if len(maths) == 1 and rest and not re.search(r"\d|\bor\b|\band\b|,", rest) and len(rest.split()) > 1:
        return str(next(filter(None, maths[0])))
    phrase = phrase.rstrip(".!*_ ")
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+", "", phrase))
    if len(words) > 3:  # prose about the answer: the one number in it, if there is only one
        numbers = set(NUMBER.findall(phrase))
        return numbers.pop() if len(numbers) == 1 else (phrase if not numbers else None)
    return phrase or None


def _unmarked(line: str) -> str | None:
    """Return the last mathematics of a line of prose."""
    line = line.strip().rstrip(".!*_ ")
    maths = list(MATHS.finditer(line))
    if maths:
        last = next(filter(None, maths[-1].groups()))
        hedged = len(maths) > 1 and JOINED.fullmatch(line[maths[-2].end() : maths[-1].start()])
        return f"{next(filter(None, maths[-2].groups()))} ; {last}" if hedged else str(last)
    if PLAIN_MATHS.fullmatch(line):
        return line.rpartition("=")[2] if line.count("=") > 1 else line
    denied = NEGATED.search(_last_claim(line))
    for part in (line, "" if denied else VERB.sub("", line)):
        if PLAIN_MATHS.fullmatch(part) or (
            COMMAND.search(part) and not re.search(r"[A-Za-z]{2}", COMMAND.sub("", part))
        ):
            return part
    if COMMAND.search(line):
        return None
    numbers = list(NUMBER.finditer(line))
    if not numbers or denied:
        return None
    between = line[numbers[-2].end() : numbers[-1].start()] if len(numbers) > 1 else ""
    return (
        f"{numbers[-2][0]} ; {numbers[-1][0]}"
        if between and re.search(r"\bor\b", between)
        else numbers[-1][0]
    )


def _last_claim(line: str) -> str:
    """Return a line from the beginning of the clause that holds its last number."""
    last = max((number.start() for number in NUMBER.finditer(line)), default=0)
    return line[max((cut.end() for cut in CLAUSE.finditer(line, 0, last)), default=0) :]


# -- spelling ---------------------------------------------------------------------------------------------------------

WRAPPERS = (
    ("**", "**"),
    ("*", "*"),
    ("_", "_"),
    ("`", "`"),
    ("$", "$"),
    ('"', '"'),
    ("'", "'"),
    ("«", "»"),
    ("\\text{", "}"),
)
"""Pairs that may enclose an answer and are no part of it: Markdown, quotes, LaTeX."""
_QUOTES = str.maketrans("“”‘’", "\"\"''")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED, _LOWERED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_SIGNS = {
    **dict.fromkeys("−–—‐﹣－", "-"),
    **dict.fromkeys("·⋅∙", "\\cdot "),
    **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("“”\u200b\ufeff\u2062", ""),
    "×": "\\times ",
    "π": "\\pi ",
    "∞": "\\infty ",
    "±": "\\pm ",
    "≤": "\\leq ",
    "≥": "\\geq ",
    "≠": "\\neq ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∅": "\\emptyset ",
    "∈": "\\in ",
    "√": "\\sqrt ",
    "°": "^\\circ ",
    "ℝ": "\\mathbb{R}",
    "θ": "\\theta ",
    "α": "\\alpha ",
    "β": "\\beta ",
    "λ": "\\lambda ",
    "…": "\\ldots ",
    "≈": "=",
    "％": "%",
    "，": ",",
    "′": "'",
    "€": " euros ",
    "£": " pounds ",
    "⟨": "\\langle ",
    "⟩": "\\rangle ",
}
_REWRITES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"(?<=[\w)}])\*\*(?=[\w({-])", "^"),
        (r"\*\*|(?<!\w)__|__(?!\w)|`", ""),
        (r"\\\$|(?<!\\)\\[()\[\]](?![a-z])|\$", " "),
        (
            r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|displaystyle|textstyle|limits|mathstrut|nobreak)(?![A-Za-z])\s?\.?",
            "",
        ),
        (r"(?<!\\)\\[,;:! ]|\\(?:q?quad|thinspace|enspace|hfill|hspace\*?\{[^{}]*\})(?![A-Za-z])|~", " "),
        (r"\{,\}", ","),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\le(?![A-Za-z])", r"\\leq "),
        (r"\\ge(?![A-Za-z])", r"\\geq "),
        (r"\\ne(?![A-Za-z])", r"\\neq "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:dots|cdots|dotsc)(?![A-Za-z])|\.\.\.", r"\\ldots "),
        (r"\\approx(?![A-Za-z])|\\equiv(?![A-Za-z])|==", "="),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])", " degrees "),
        (r"\\?%", " percent "),
        (r"(?<![\\A-Za-z])sqrt(?![A-Za-z])", r"\\sqrt"),
        (r"\\frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\w)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\w)", r"\1{\2}"),
        (r"(\\sqrt\s*(?:\[[^\[\]]*\])?)\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"\1{\2}"),
        (r"(\\sqrt\s*(?:\[[^\[\]]*\])?)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)", r"\1{\2}"),
        (r"_(\d)(?!\d)", r"_{\1}"),
        (r"\^\s*([-+]?\d+)", r"^{\1}"),
        (r"\^\s*\(([^()]*)\)", r"^{\1}"),
    )
]
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:rm|bf|it|sf|tt)|mbox|operatorname\*?|emph|boldsymbol|bm|hbox)\s*\{([^{}]*)\}"
)


def tidy(answer: str) -> str:
    """Spell signs, blanks, fractions, roots and wrappers in one way and drop what is only layout.

    Only the first `MAX_ANSWER` characters of an answer are kept."""
    answer = answer[:MAX_ANSWER]
    answer = unicodedata.normalize("NFC", answer)
    answer = _RAISED.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", answer)
    answer = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}", answer)
    answer = "".join(_spelled(character) for character in answer)
    while (opened := _TEXT.sub(r" \1 ", answer)) != answer:
        answer = opened
    for pattern, new in _REWRITES:
        answer = pattern.sub(new, answer)
    answer = " ".join(answer.split()).strip(" ,;:").rstrip(".")
    while answer.startswith("{") and closing(answer, 0) == len(answer) - 1:
        answer = answer[1:-1].strip()
    return answer.strip()


def _spelled(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    decomposed = unicodedata.decomposition(character)
    if decomposed.startswith("<fraction>"):
        above, _, below = unicodedata.normalize("NFKC", character).partition("\u2044")
        return f"\\frac{{{above}}}{{{below}}}"
    if decomposed.startswith("<wide>") or character.isspace():
        return unicodedata.normalize("NFKC", character)
    return character


def bare(line: str) -> str:
    """Drop what encloses an answer (Markdown, quotes) or ends it (`.`, `,`, `;`, `:`, `!`), collapse blanks, straighten
    quotes, compose Unicode (NFC), and take a lone letter out of its parentheses."""
    line = " ".join(unicodedata.normalize("NFC", line).translate(_QUOTES).split())
    before = None
    while line != before:
        before = line
        line = line.removeprefix("**").removesuffix("**").strip().rstrip(".,;:!").strip()
        for opening, close in WRAPPERS:
            if line.startswith(opening) and line.endswith(close) and len(line) >= len(opening) + len(close):
                line = line[len(opening) : len(line) - len(close)].strip()
        line = re.sub(r"^\((\w)\)$", r"\1", line)
    return "" if set(line) <= set("`*_#-") and not re.fullmatch(r"[-*#+]", line) else line
