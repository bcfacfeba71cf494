"""Have instructor extract a typed object, by a JSON schema and by a tool call. Arguments: URL, key, model."""

import sys
from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Verdict(BaseModel):
    """Fields that the model fills in."""

    right: bool
    colour: Literal["red", "green"]


url, key, model = sys.argv[1:]
for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
    client = instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0), mode=mode)
    verdict = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Is grass green?"}],
        response_model=Verdict,
        max_retries=0,
        max_tokens=500,
    )
    print(
        mode.name, type(verdict).__name__, verdict.right in (True, False), verdict.colour in ("red", "green")
    )
