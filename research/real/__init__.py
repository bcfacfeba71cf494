"""A real language model on Ramify, from fine-tuning to the loop: docs/real-models.md has commands and figures.

In the order in which they run: `countdown` writes problems with worked answers, `fine_tune` teaches a chat model to
solve them a line at a time, `value_head` samples its answers, teaches trunk and head together which of them come out
right, and publishes both as a release. From there on Ramify's own commands do the work: `ramify eval`,
`ramify-trainer loop`. Only the first knows what the problems are: `problems` (word problems) and `gsm8k` write files of
the same form (`rows`) in its place.
"""
