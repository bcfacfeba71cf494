import httpx
import pytest

from fakes_evaluation import problem, tokens
from ramify.evaluation.backends import ServerBackend
from ramify.evaluation.methods import Method
from ramify.evaluation.runner import ProblemRefused, SearchFailed
from ramify_client import AsyncClient

pytestmark = pytest.mark.anyio

METHOD = Method("tree", "mcts", "orm_vote")


async def asked(handler):
    """Ask a server that answers with `handler`, once."""
    async with AsyncClient("http://server", max_retries=0, transport=httpx.MockTransport(handler)) as client:
        return await ServerBackend(client).grow(problem(0), METHOD, tokens(40), 1)


def refusing(status, param=None):
    error = {"message": "no", "type": "t", "param": param, "code": None}
    return lambda request: httpx.Response(status, json={"error": error})


@pytest.mark.parametrize(
    ("status", "param", "kind", "said"),
    [
        (400, "task.problem.answer", ProblemRefused, "task.problem.answer"),
        (413, None, ProblemRefused, "prompt"),
        (400, "search.kappa", SearchFailed, "search.kappa"),
        (401, None, SearchFailed, "answers 401: no"),
        (500, None, SearchFailed, "answers 500: no"),
    ],
)
async def test_a_refusal_is_the_problems_or_ends_the_run(status, param, kind, said):
    with pytest.raises(kind, match=said):
        await asked(refusing(status, param))


async def test_a_server_that_is_gone_ends_the_run():
    def gone(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(SearchFailed, match="no server answers at http://server"):
        await asked(gone)
