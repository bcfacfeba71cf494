"""Thin routes: read the request, call the service, write the answer.

`search`: searching, its state and its end; values
`batch`: searches that share a budget
`log`: logged trees, feedback on them, branches of them, and readers
`operations`: models, releases, health and metrics
`pages`: the viewer
`admin`: activation, rollback and drain, on the operators' listener
"""
