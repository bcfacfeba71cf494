"""Print what LangChain hands on of a searched answer: text, tokens, the tree's id. Arguments: URL, key."""

import sys

from langchain_openai import ChatOpenAI

url, key = sys.argv[1:]
model = ChatOpenAI(
    model="countdown-tiny:mcts",
    base_url=f"{url}/v1",
    api_key=key,
    timeout=300,
    max_retries=0,
    include_response_headers=True,
)
answer = model.invoke("3 5 7 8 to 24")
print("text:", answer.content)
print("tokens:", answer.usage_metadata["output_tokens"])
print("tree:", answer.response_metadata["headers"]["x-ramify-tree"])
