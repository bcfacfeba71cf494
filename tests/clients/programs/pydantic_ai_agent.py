"""Have a pydantic-ai agent give a typed output, by its default (a tool) and by a schema. Arguments: URL, key, model."""

import sys
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Verdict(BaseModel):
    """Fields that the model fills in."""

    right: bool
    colour: Literal["red", "green"]


url, key, name = sys.argv[1:]
model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=key))
for kind, output in (("tool", Verdict), ("native", NativeOutput(Verdict))):
    agent = Agent(model, output_type=output, retries=0, model_settings={"max_tokens": 500})
    print(kind, type(agent.run_sync("Is grass green?").output).__name__)
