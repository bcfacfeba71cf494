"""How much the next tokens of one search are expected to bring, for a budget that several share.

A search finds its right answer after an exponential number of tokens: while it has none, each token brings one with the
same small chance, the *rate* of its prompt. Rates differ, between easy prompts and hard ones, as a Gamma(α, β) does,
α and β being `FOUND` right answers in `SOUGHT` answers' worth of tokens. After t tokens in vain the rate is
Gamma(α, β + t), whose mean α/(β + t) falls: a prompt that has resisted long will probably resist longer. So, with b the
probability that the best answer so far is right, a token brings in expectation

    d P(right)/dt = (1 - b) · α / (β + t)

b comes from whatever judges the answers, and t counts whatever the search spent, in flight or landed: nothing here
depends on what a simulation of its algorithm is. Each search's rate falls with what it is given, so that taking the
largest first is best at every total (locally optimal allocation: Stone 1975, *Theory of Optimal Search*, §2.2; the
exponential with a Gamma rate: Lomax 1954). An easy prompt has b near 1 and is left alone. A hopeless one is asked ever
more rarely, and no more once a whole answer brings less than `least_gain`.
"""

from __future__ import annotations

from dataclasses import dataclass

FOUND, SOUGHT = 1.0, 4.0
"""The evidence that a prompt starts from: so many right answers in so many."""
LEAST_GAIN = 0.002
"""A search ends once another answer would be expected to make its prompt right less often than this."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A search that may be given more, as far as it is known."""

    probability_right: float
    """Probability that its best answer so far is right, in [0, 1]; 0 without an answer."""
    tokens: float
    """Tokens spent on it so far, those expected of what is in flight included."""
    length: float
    """Tokens that an answer takes, on average."""

    @property
    def rate(self) -> float:
        """Expected gain of P(right) with the next token."""
        return (1.0 - self.probability_right) * FOUND / (SOUGHT * self.length + self.tokens)

    @property
    def gain(self) -> float:
        """Expected gain of P(right) with the next answer, at most."""
        return self.rate * self.length
