"""The HTTP door: applications, routes, wire models, errors. The only package that knows FastAPI.

A request passes `middleware`, then the route class of `scopes`, then a thin route, which calls the service.

What serves:

`server`: `serve(settings)`, from the first check to the last drained search
`app`: the public application and the operators'
`context`: the context that every route may use, put together of the server's parts
`middleware`: request ids, the body limit, the guards of Host, Origin and admin key, the access log

What every route uses:

`owners`: requests about what runs at another replica, sent on to it
`scopes`: the scope that a route needs, and its query parameters; a route without a scope cannot be made
`json_body`: bodies, read as JSON at one place
`names`: models, and searches that are asked for by name
`errors`: every error in OpenAI's shape, with suggestions for unknown fields
`streaming`: work that ends when its client leaves; Server-Sent Events
`large_answers`: answers that hold whole trees, made off the event loop

The routes and their wire models:

`routes`: thin routes: read the request, call the service, write the answer
`openai`: the routes that OpenAI's clients know, with their wire models
`wire_common`: parts that wire models share
`wire_search`: searches and values
`convert`: searches between wire models and the service
`wire_batch`: prompts that share a budget
`wire_log`: logged trees, feedback and consumers; a tree for Graphviz
`wire_releases`: releases and activations
`documentation`: the OpenAPI document
"""
