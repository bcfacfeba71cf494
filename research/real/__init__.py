"""A real language model on Ramify, from fine-tuning to the loop: docs/real-models.md has commands and figures.

In the order in which they run: `problems` writes word problems, `fine_tune` teaches a chat model to solve them a line
at a time, `value_head` samples its answers, teaches a head on its trunk which of them come out right, and publishes
both as a release. From there on Ramify's own commands do the work: `ramify eval`, `ramify-trainer loop`. Only
`problems` knows what the problems are; `gsm8k` writes files of the same form (`rows`) from another data set.
"""
