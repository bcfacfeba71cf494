"""OpenAI's Python SDK pointed at Ramify: the policy alone, then the best answers of a tree, whole and streamed.

pip install openai
ramify serve &
python examples/openai_python.py [URL of the server]      # a key, if it wants one, in RAMIFY_API_KEY
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
# waits longer than the server lets a search run (300 s), so that no search is asked for twice
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("RAMIFY_API_KEY", "none"), timeout=320)
question = {"model": "countdown-tiny", "messages": [{"role": "user", "content": "3 5 7 8 to 24"}]}
search = {"search": {"algorithm": "mcts", "budget": {"tokens": 1000}}}

print("the policy alone, as it writes:")
for chunk in client.chat.completions.create(**question, temperature=0, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)

print("the best answers of a tree:")
answer = client.chat.completions.create(**question, n=3, extra_body=search)
for choice in answer.choices:
    print(choice.index, choice.message.content.strip().splitlines())
print("tokens of the whole search:", answer.usage.completion_tokens)
print("its tree:", answer.ramify["tree"]["url"])

print("a tree's best answer, streamed:")
for chunk in client.chat.completions.create(**question, stream=True, extra_body=search):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
