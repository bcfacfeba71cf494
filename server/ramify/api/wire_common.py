"""Parts that wire models share: strictness, bounds, the error body."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ramify.search.cutting import MAX_STOP_CHARS, MAX_STOPS


class Request(BaseModel):
    """A body, or a part of one, that a client sends.

    An unknown field, a string for a number, NaN and infinity are errors.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Reply(BaseModel):
    """An answer, or a part of one, that the server sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


PLAIN = r"^[^\x00-\x1f\x7f]*$"
"""No control characters: PostgreSQL, for one, refuses NUL."""
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]
"""A name that a client chooses."""
ModelName = Annotated[
    Name, Field(description="The one served, as /v1/models names it.", examples=["countdown-tiny"])
]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
StopStrings = Annotated[list[StopString], Field(max_length=MAX_STOPS)]
"""Strings that end an answer; as many, and as long, on every route."""
TopK = Annotated[
    int, Field(ge=-1, le=1_000_000, description="Sample among as many likeliest tokens; 0 and -1 keep all.")
]
ChatTemplate = Annotated[
    dict[Name, Any],
    Field(max_length=16, description="Variables of the model's chat template, such as `enable_thinking`."),
]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""A number of tokens."""


class ErrorDetail(Reply):
    message: str = Field(description="What was wrong and what is allowed.")
    type: str = Field(description="OpenAI's family of errors, such as `invalid_request_error`.")
    param: str | None = Field(description="Path of the field at fault, such as `search.budget.tokens`.")
    code: str | None = Field(description="For programs; does not change.")


class ErrorBody(Reply):
    """Every error has this one shape."""

    error: ErrorDetail
