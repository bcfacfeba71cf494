"""LangChain's ChatOpenAI pointed at Ramify: a search behind an ordinary chat model, then a stream of the policy alone.

pip install langchain-openai
ramify serve &
python examples/langchain_chat.py [URL of the server]
"""

from __future__ import annotations

import os
import sys

from langchain_openai import ChatOpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("RAMIFY_API_KEY", "none")


def model(**options: object) -> ChatOpenAI:
    return ChatOpenAI(model="countdown-tiny", base_url=f"{url}/v1", api_key=key, timeout=300, **options)


searching = model(max_retries=0, extra_body={"search": {"algorithm": "mcts", "budget": {"tokens": 1000}}})
answer = searching.invoke("3 5 7 8 to 24")
print("searched:")
print(answer.content)
print("tokens of the whole search:", answer.usage_metadata["output_tokens"])

print("the policy alone, as it writes:")
for chunk in model(temperature=0).stream("3 5 7 8 to 24"):
    print(chunk.content, end="", flush=True)
print()
