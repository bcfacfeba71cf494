"""The HTTP door: routes, wire models, errors, authorisation. The only place that knows FastAPI.

| module | what it holds |
|---|---|
| `admin` | the operators' application, on a listener of its own |
| `server` | `serve(settings)`: engines, log and uvicorn together, from the first check to the last drained search |
| `app` | the ASGI application, made of a `Context` |
| `context` | the context that every route may use, put together of the server's parts |
| `scopes` | which scope a route needs; a route without one cannot be made |
| `errors` | every error in OpenAI's shape, with suggestions for unknown fields |
| `middleware` | request ids, body limit, Host and origin checks, access log: plain ASGI |
| `streaming` | work that ends when its client leaves; Server-Sent Events |
| `json_body` | bodies, read as JSON at one place |
| `large_answers` | answers that hold whole trees, made off the event loop |
| `openai/` | the routes that OpenAI's clients know |
| `wire_search`, `wire_trees`, `wire_common` | wire models |
| `convert` | wire models to what the service takes, and what it gives to wire models |
| `dot` | a tree for Graphviz |
| `documentation` | the OpenAPI document |
| `routes/` | thin routes |
"""
