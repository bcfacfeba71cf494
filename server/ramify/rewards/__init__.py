"""Tasks, their verifiers and their data sets: the one place that says whether an answer is right.

A task of your own is a subclass of `Verifier`, registered by an entry point or in settings: see docs/library.md.

The modules, in the order in which to read them; each imports only from those above it:

`errors`: what can be wrong with a problem, a data set or a grading.
`verifier`: `Verifier`, the base of every task, and `Example`, a row of a data set.
`worker`, `pool`: the inside of a killable process, and the processes.
`grading`: a verifier as the `Task` of a search, on the event loop or in such processes.
`registry`: `task(name, problem)`, a problem bound to its rules; what other packages use.
`jsonl`, `datasets`: `load(spec, count, seed)`, examples for evaluation and training.
`answer_text`: the final answer of a text, and one spelling for it.
`math_numbers`, `math_reading`, `math_equality`: the structure of a mathematical answer, and when two are equal.
`countdown`, `countdown_data`: Countdown's arithmetic and grading; its generator, splits and solver.
`tasks`: the shipped tasks `countdown`, `exact`, `math` and `none`.
`code_assertions`, `code_data`: other people's tests as calls, and their data sets of programming problems.
`code_outputs`, `code`: when what a program did is right; the shipped task `code`, run by `ramify.sandbox`.
`gym_inside`, `gym`: what runs in a sandbox of the shipped task `reasoning-gym`, and the task.
"""

from ramify.rewards.verifier import Example, Message, Verifier
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict

__all__ = ["Example", "GradingFailed", "Message", "Verdict", "Verifier"]
