"""The HTTP door: routes, wire models, errors, authorisation. The only place that knows FastAPI.

| module | what it holds |
|---|---|
| `admin` | the operators' application, on a listener of its own |
| `server` | `serve(settings)`: engines, log and uvicorn together, from the first check to the last drained search |
| `app` | the ASGI application, made of a `Context` |
| `context` | what every route may use |
| `scopes` | which scope a route needs; a route without one cannot be made |
| `errors` | every error in OpenAI's shape |
| `suggestions` | which field an unknown one was probably meant to be |
| `middleware` | request ids, body limit, Host and origin checks, access log: plain ASGI |
| `disconnect` | work that ends when its client leaves |
| `sse` | Server-Sent Events |
| `json_body` | bodies, read as JSON at one place |
| `large` | answers that hold whole trees, made off the event loop |
| `wire_search`, `wire_trees`, `wire_common` | wire models |
| `convert` | wire models to what the service takes, and what it gives to wire models |
| `dot` | a tree for Graphviz |
| `documentation` | the OpenAPI document |
| `routes/` | thin routes |
"""
