"""Small programs found from what they do: straight-line Python functions of an integer, judged by hidden tests.

`language` holds the programs and runs them, `problems` draws problems and writes data files for the task `code`,
`tokens` spells texts for the network, `feedback` says what a search is told of an answer, `texts` makes what it learns
from, and `make` trains a small policy with a value head on its trunk and publishes it. docs/code.md says how to make,
serve and measure it.
"""
