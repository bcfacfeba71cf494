"""Tasks, their verifiers and their data sets: the one place that says whether an answer is right.

| module | what it holds |
|---|---|
| `registry` | `task(name, problem)`: a problem bound to its rules; what other packages use |
| `datasets`, `jsonl` | `load(spec, count, seed)`: examples for evaluation; one's own files |
| `errors` | what can be wrong with a problem, a data set or a grading |
| `schemas` | the shape of each task's problem |
| `countdown`, `countdown_data` | Countdown: its arithmetic, grading, generator and splits |
| `tasks` | the tasks that judge in this process: `countdown`, `exact`, `none` |
| `mathematics`, `math_reading`, `math_numbers` | the `math` task, and the structure of its answers |
| `answer_text` | the final answer of a text, and one spelling for it |
| `pool`, `worker` | killable processes, and what runs in each |
| `math_equality` | formulas, compared inside such a process |
"""
