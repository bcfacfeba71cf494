"""The task `reasoning-gym`: problems and scorers of the library of that name, both kept in a sandbox.

The library is imported nowhere else: some scorers evaluate the answer, generators reseed NumPy for the whole process,
and the import takes seconds. One sandbox a worker process serves all its gradings, each in a fork of its own.
docs/reasoning-gym.md says what is drawn from which seed and which scorers to mistrust.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from ramify.rewards.answer_text import scope
from ramify.rewards.tasks import judged
from ramify.rewards.verifier import Example, Message, Verifier, json_size
from ramify.sandbox import Ended, Probe, Program, Sandbox, SandboxFailed, find
from ramify.sandbox.session import IDLE
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict

VERSION = "0.1.25"
"""The release whose data sets are named here."""
_NAMES = """
ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation
binary_matrix bitwise_arithmetic boxnet caesar_cipher calendar_arithmetic chain_sum circuit_logic codeio
coin_flip color_cube_rotation complex_arithmetic composite count_bits count_primes countdown
course_schedule cryptarithm decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships
figlet_font fraction_simplification futoshiki game_of_life game_of_life_halting gcd graph_color
group_anagrams gsm_symbolic intermediate_integration isomorphic_strings jugs kakurasu knight_swap
knights_knaves largest_island lcm leg_counting letter_counting letter_jumble list_functions mahjong_puzzle
manipulate_matrix maze mini_sudoku modulo_grid n_queens needle_haystack number_filtering number_format
number_sequence number_sorting palindrome_generation palindrome_partitioning path_star polynomial_equations
polynomial_multiplication pool_matrix power_function prime_factorization products propositional_logic
puzzle24 quantum_lock ransom_note rearc rectangle_count rotate_matrix rotten_oranges rubiks_cube rush_hour
self_reference sentence_reordering shortest_path simple_equations simple_geometry simple_integration
sokoban spell_backward spiral_matrix string_insertion string_manipulation string_splitting string_synthesis
sudoku survo syllogism time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal
word_sorting zebra_puzzles
"""
NAMES = tuple(_NAMES.split())
"""All of its data sets."""
SPLITS = ("train", "dev", "test")
SEEDS = 1 << 30
"""Seeds of a split: the library numbers problems by 32 bits, NumPy allows no more."""
MAX_SIZE = 1_000_000
SIZE = 500
"""Problems of a data set, as the library has it."""
SYSTEM = {
    "direct": "Answer the question directly. Provide your answer between <answer> and </answer> tags. Do not return any"
    " preamble, explanation, or reasoning.",
    "think": "Given a problem, your task is to answer the question by thinking step-by-step in a clear and specific"
    " manner.\nOnce you have thought about the reasoning process, provide the answer in the following format:\n"
    "<answer>answer here</answer>\nDo not explain your reasoning inside the answer tags, provide only the final answer."
    " When an example is provided, you should strictly follow the format of the output/answer in that example.\n",
}
"""Instructions that the library's authors evaluate with: their `direct` and `default`."""
MAX_PROBLEM = 1_000_000
"""Characters of a problem's JSON."""
SECONDS = 5
"""Processor time of a grading."""
MAKING = 120
"""Processor time in which a problem must be made."""
WAITING = 10.0
"""Seconds beside three times the processor time that may pass, whatever else the machine does."""
MEMORY = 768 << 20
"""Bytes of address space."""
TRIAL = "from importlib.util import find_spec\nimport numpy\nprint(find_spec('reasoning_gym') is not None)"


class ReasoningGym(Verifier):
    """A problem of a data set of reasoning-gym, judged by that data set's scorer: right is its full score.

    The answer is the last `<answer>` element, or all that follows the thinking if there is none. Values that JSON does
    not have are written as in the task `code`.
    """

    max_text: ClassVar[int] = 65_536
    splits: ClassVar[tuple[str, ...]] = NAMES
    grade_seconds: ClassVar[float | None] = 240.0

    dataset: Annotated[str, Field(max_length=50)]
    """Name of the data set."""
    options: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    """Those that the data set was made with: `level`, and fields of its configuration."""
    entry: dict[str, JsonValue]
    """The library's own record of the problem: `answer` and `metadata`."""
    scoring: Literal["all", "share"] = "all"
    """`all`: 1 for the full score, else 0. `share`: the score."""

    @field_validator("dataset")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NAMES:
            raise ValueError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")
        return name

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not isinstance(self.entry.get("metadata"), dict) or "answer" not in self.entry:
            raise ValueError("entry must have 'answer' and 'metadata', as reasoning-gym gives them")
        size = json_size([self.options, self.entry], "entry")
        if size > MAX_PROBLEM:
            raise ValueError(f"has {size} characters as JSON; at most {MAX_PROBLEM} are allowed")
        return self

    def final(self, text: str) -> str | None:
        """Return the answer as it is written."""
        return scope(text).strip() or None

    def grade(self, text: str) -> Verdict:
        """Ask the data set's scorer. Raises `GradingFailed` if it does not come to an end."""
        answer = self.final(text)
        if answer is None:
            return Verdict(0.0, "the text holds no answer")
        score, reason = _score(self.dataset, self.options, self.entry, answer)
        outcome = score if self.scoring == "share" else float(score >= 1)
        return Verdict(outcome, reason or f"the scorer gave {score:g} of 1")

    def feedback(self, text: str, outcome: float | None) -> str:
        """Repeat the text's answer, with the verdict on it: a scorer's own words may hold the reference."""
        return judged(self.final(text), outcome)

    @property
    def feedback_needs_outcome(self) -> bool:
        return True

    @classmethod
    def examples(cls, split: str, seed: int, options: Mapping[str, str]) -> Iterator[Example]:
        """Yield the problems of a data set: `reasoning-gym:gcd?split=train&size=500&seed=1&level=2`."""
        if why := cls.unusable():
            raise ValueError(why)
        return _examples(split, seed, dict(options))

    @classmethod
    def warm_up(cls) -> None:
        _scorers()

    @classmethod
    def unusable(cls) -> str | None:
        return probe.fault()


# -- data sets --------------------------------------------------------------------------------------------------------


def _examples(name: str, seed: int, options: dict[str, str]) -> Iterator[Example]:
    part = _choice("split", options.pop("split", "test"), SPLITS)
    size = _number("size", options.pop("size", str(SIZE)), 1, MAX_SIZE)
    seed = _number("seed", options.pop("seed", str(seed)), -(2**63), 2**63)
    system = _choice("system", options.pop("system", "none"), ("none", *SYSTEM))
    before = () if system == "none" else (Message("system", SYSTEM[system]),)
    given = {option: _json(value) for option, value in options.items()}
    first = first_seed(part, seed, size)
    for number, item in enumerate(_items(name, given, first, size), first):
        yield Example(
            id=f"reasoning-gym:{name}:{number}",
            messages=(*before, Message("user", item.pop("question"))),
            problem={"dataset": name, "options": given, "entry": item},
            group=item["metadata"].get("source_dataset", name),
        )


def first_seed(part: str, seed: int, size: int) -> int:
    """Return the library's seed of a data set: problem i is drawn from this number + i, which no other split has."""
    digest = hashlib.sha256(f"reasoning-gym:{seed}".encode()).digest()
    return SPLITS.index(part) * SEEDS + int.from_bytes(digest[:8], "big") % (SEEDS - size)


def _items(name: str, options: dict[str, Any], seed: int, size: int) -> Iterator[dict[str, Any]]:
    """Yield the library's items. Raises `ValueError` with what the library says."""
    try:
        with library() as sandbox:
            start = 0
            while start < size:
                made = items(sandbox, name, options, seed, size, start)
                yield from made
                start += len(made)
    except SandboxFailed as failure:
        raise ValueError(f"the sandbox failed: {failure}") from failure


def items(
    sandbox: Sandbox, name: str, options: dict[str, Any], seed: int, size: int, start: int = 0
) -> list[dict[str, Any]]:
    """Return some items from `start` on, as `driver.encode` has them. Raises `ValueError`, or `SandboxFailed`."""
    prepare = [name, json.dumps(options), seed, size]
    ended = run(sandbox, program("items", MAKING), [*prepare, start], prepare)
    if ended.status != "done":
        raise ValueError(f"{name}: no problem {start + 1} could be made: {_fault(ended, MAKING)}")
    made = json.loads(ended.out)
    if "refused" in made:
        raise ValueError(made["refused"])
    return list(made["items"])


def _choice(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{option} must be one of {', '.join(known)}, not {value!r}")
    return value


def _number(option: str, value: str, least: int, most: int) -> int:
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise ValueError(f"{option} must be a whole number from {least} to {most}, not {value!r}")
    return number


def _json(value: str) -> Any:
    """Return an option's value: JSON, or the text if it is none."""
    try:
        return json.loads(value)
    except ValueError:
        return value


# -- the sandbox ------------------------------------------------------------------------------------------------------


def program(function: str, seconds: int) -> Program:
    """Return a function of `gym_inside` as what a sandbox runs."""
    return Program(code="", function=function, cpu=seconds, memory=MEMORY)


def library() -> Sandbox:
    """Return a sandbox that has the library loaded once it is entered."""
    inside = Path(__file__).with_name("gym_inside.py").read_text(encoding="utf-8")
    return Sandbox(find(), preload=inside, folders=_folders())


def run(sandbox: Sandbox, program: Program, arguments: list[Any], prepare: list[Any]) -> Ended:
    """Call a function of `gym_inside`. Raises `SandboxFailed`."""
    return sandbox.run(program, arguments, call=True, wall=3.0 * program.cpu + WAITING, prepare=prepare)


def _folders() -> tuple[str, ...]:
    """Return the folders that this process has packages in."""
    names = ("site-packages", "dist-packages")
    return tuple(path for path in sys.path if Path(path).name in names and Path(path).is_dir())


@cache
def _scorers() -> Sandbox:
    """Return this process's sandbox for grading. It ends with the process."""
    return library().__enter__()


def close() -> None:
    """End this process's sandbox for grading; the next grading starts another."""
    if _scorers.cache_info().currsize:
        _scorers().close()
        _scorers.cache_clear()


def _score(
    name: str, options: dict[str, JsonValue], entry: dict[str, JsonValue], answer: str
) -> tuple[float, str]:
    """Return the scorer's score, from 0 to 1, and what there is to say. Raises `GradingFailed`."""
    ended = _graded(name, options, entry, answer)
    if _used_up(ended) and not _used_up(_graded(name, options, entry, entry["answer"])):
        return 0.0, f"the scorer cannot read the answer: {_fault(ended, SECONDS)}"
    if ended.status != "done":
        raise GradingFailed(f"the scorer did not grade the answer: {_fault(ended, SECONDS)}")
    score, reason = json.loads(ended.out)["$tuple"]
    return min(max(float(score), 0.0), 1.0), str(reason)


def _graded(
    name: str, options: dict[str, JsonValue], entry: dict[str, JsonValue], answer: JsonValue
) -> Ended:
    """Return how the scorer ended on an answer. Raises `GradingFailed` if the sandbox fails."""
    prepare = [name, json.dumps(options)]
    try:
        return run(_scorers(), program("grade", SECONDS), [*prepare, entry, answer], prepare)
    except SandboxFailed as failure:
        close()
        raise GradingFailed(f"the sandbox failed: {failure}") from failure


def _used_up(ended: Ended) -> bool:
    """Tell whether a scorer used up its processor time or its memory."""
    return ended.status == "cpu" or (ended.status == "error" and ended.err.startswith("MemoryError"))


def _fault(ended: Ended, seconds: int) -> str:
    said = {
        "cpu": f"it used up its {seconds} s of processor time",
        "idle": f"it did nothing for {IDLE:.0f} s",
        "wall": "it neither ended nor used up its processor time",
        "output": "it returned too much",
    }
    return said.get(ended.status, ended.err or "it ended without a word")


def trial() -> str | None:
    """Return why the library cannot be used here; None if an interpreter in a sandbox just found it."""
    if importlib.util.find_spec("reasoning_gym") is None:
        return f"reasoning-gym is not installed: pip install reasoning-gym=={VERSION}, or Ramify's extra of that name"
    try:
        sandboxed = find()
        with Sandbox(sandboxed, folders=_folders()) as sandbox:
            ended = sandbox.run(Program(code=TRIAL, cpu=30, memory=MEMORY), "", call=False, wall=60.0)
    except SandboxFailed as failure:
        return f"reasoning-gym's scorers cannot be run safely here: {failure}"
    if ended.out != "True\n":
        return f"reasoning-gym cannot be imported in a sandbox, by {sandboxed.python}: {_fault(ended, 30)}"
    return None


probe = Probe(trial)
