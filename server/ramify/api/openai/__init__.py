"""The routes that OpenAI's clients know, and vLLM's beside them: completions, chats, responses, the tokenizer.

`fields`: every field of these routes, who honours it, and what docs/openai.md says of it
`requests`: what completions and chats take, and the rules between fields
`convert`: from these requests to what the service is asked
`replies`: what completions and chats send, made of a tree or of what the policy alone wrote
`completions`: POST /v1/completions and /v1/chat/completions
`responses`: POST /v1/responses, and the cancelling of what the policy alone writes
`tokens`: the tokenizer's routes
"""
