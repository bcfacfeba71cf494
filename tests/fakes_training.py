"""A whole server over real sockets whose searches are the fake language's, and whose releases are real little models.

Its searches take no time and its trees repeat with their seeds; its releases are Hugging Face directories that can be
trained. The engines hold the weights of a release in earnest: what they `measure` is what transformers computes of it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import uvicorn
from safetensors.torch import load_file
from torch import Tensor

from contract.api.world import PROMPT, FakeEngines
from empty_log import empty_log
from fakes import FakePolicy, FakeScorer, letters
from fakes_releases import stamped
from ramify.api.app import admin_application, application
from ramify.api.context import Context, assemble, serving_of
from ramify.engines import Measurement, Serving, Text
from ramify.races import beside
from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Tree
from ramify.service.catalogue import at_start, resolve
from ramify.service.fleet import Fleet
from ramify.settings import Settings
from ramify.treelog import TreeLog
from ramify.treelog.errors import ConsumerConflict
from ramify.weights import Details, ModelFiles, Release, load_release, publish
from ramify.weights.search_defaults import toml_value
from ramify_trainer.config import LoopConfig
from ramify_trainer.gate.unserved import policy_in
from ramify_trainer.gate.value_scores import end_values
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.networks import load_judge
from ramify_trainer.learning.value_head import write_head
from ramify_trainer.loop import processes  # noqa: F401
from ramify_trainer.loop.training import Job

SIZE = 128
"""Size of the vocabulary: one token a character."""


def write_release(root: Path, seed: int = 0, *, tied: bool = True, value: str = "model") -> Release:
    """A random policy and value of 128 characters, as v000001 of `root`. Embeddings are tied, as those of most small
    models are; a conversation is its texts, as the fake server's tokenizer has it. value: `model`, or `trunk` for a
    head on the policy's."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    shape = {
        "vocab_size": SIZE,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 0,
        "tie_word_embeddings": tied,
    }
    torch.manual_seed(seed)
    folder = root / ".made"
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder / "policy")
    _tokenizer().save_pretrained(folder / "policy")
    if value == "trunk":
        _write_random_head(folder / "value", shape["hidden_size"], seed)
    else:
        LlamaForSequenceClassification(LlamaConfig(**shape, num_labels=1)).save_pretrained(folder / "value")
        _tokenizer().save_pretrained(folder / "value")
    return publish(root, folder / "policy", folder / "value", Details(name="letters", default_max_tokens=8))


def with_value_head(policy: Path, folder: Path, seed: int = 0) -> Path:
    """A copy of a policy as `policy` of `folder`, and in `value` a random head on its trunk, far from 0."""
    from transformers import AutoConfig

    shutil.copytree(policy, folder / "policy")
    _write_random_head(folder / "value", AutoConfig.from_pretrained(policy).hidden_size, seed)
    return folder


def _write_random_head(folder: Path, size: int, seed: int) -> None:
    weight = torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
    write_head(folder, {"weight": weight, "bias": torch.tensor([0.3])})


def _tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({chr(i): i for i in range(SIZE)}, unk_token="\x01"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="\x00", pad_token="\x00", clean_up_tokenization_spaces=False
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return fast


def drawn_tree(i: int) -> LabelledTree:
    """A fork with a right and a wrong answer on one side, and a wrong one on the other."""
    grown = Tree(
        id=f"tree_{i}", prompt_tokens=(63, 10), params=search_params("mcts"), sampling=Sampling(), seed=0
    )
    a = grown.add(grown.root, tokens=(97 + i, 10), logprobs=(-4.5, -4.0), length=2, multiplicity=2, value=0.6)
    b = grown.add(grown.root, tokens=(98 + i, 10), logprobs=(-4.0, -5.0), length=2, value=0.2)
    for parent, token in ((a, 97), (a, 98), (b, 99)):
        grown.add(parent, tokens=(token + i, 0), logprobs=(-4.2, -5.1), length=4, terminal="eos")
    return LabelledTree(grown, {3: 1.0, 4: 0.0, 5: 0.0})


TREES = [drawn_tree(i) for i in range(8)]
FOUR_STEPS = LearningConfig(
    steps_per_round=4,
    tokens_per_batch=24,
    policy_learning_rate=1e-2,
    value_learning_rate=1e-2,
    imitate=0.5,
    kl_beta=0.1,
    sharding="fsdp2",
    warmup_steps=2,
    threads=1,
    tracker="none",
)


def training(folder: Path, base: Release) -> Job:
    """A training of four steps from the base's own weights."""
    folder.mkdir()
    return Job(FOUR_STEPS, None, base, base, TREES, folder, (3, 1))


def weights_in(folder: Path) -> dict[str, Tensor]:
    """All tensors of policy and value, and of the checkpoint."""
    return {
        f"{file.relative_to(folder)}/{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
        if name != "random/cpu"
    }


def assert_same_weights(weights: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    """Two trainings that differ in rounding alone end in these; the largest difference is printed."""
    assert weights.keys() == alone.keys()
    apart = max((weight - alone[name]).abs().max().item() for name, weight in weights.items())
    print(f"largest difference from one process: {apart:.1e}")
    for name, weight in weights.items():
        torch.testing.assert_close(weight, alone[name], rtol=0, atol=1e-5)


def with_logprobs_of(policy: Path, trees: Sequence[LabelledTree]) -> list[LabelledTree]:
    """Copies of the trees with the log-probabilities that a policy gives their tokens, each path by itself."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    copies = [replace(one, tree=deepcopy(one.tree)) for one in trees]
    for node, of in ((node, one.tree) for one in copies for node in one.tree.nodes[1:]):
        ids = torch.tensor([of.sequence(node)])
        with torch.inference_mode():
            logprobs = model(ids).logits[0, -len(node.tokens) - 1 : -1].log_softmax(-1)
        own = logprobs.gather(1, torch.tensor(node.tokens)[:, None])[:, 0]
        node.logprobs = tuple(own.tolist())
    return copies


def write_problems(path: Path, count: int = 40, *, chat: bool = False) -> str:
    """Problems whose answer's last line is to be `a`: right half of the time. chat: each asked as `messages`."""
    asked = {"messages": [{"role": "user", "content": PROMPT}]} if chat else {"prompt": PROMPT}
    row = {**asked, "answer": "a", "verifier": "exact"}
    path.write_text("".join(f"{json.dumps(row)}\n" for _ in range(count)))
    return str(path)


LEARNING = {"steps_per_round": 4, "tokens_per_batch": 64, "warmup_steps": 0, "threads": 1, "tracker": "none"}
FAST = {"policy_learning_rate": 1e-2, "value_learning_rate": 1e-2}
"""Learning rates at which a round changes its models."""
MEASURE = {"problems": 4, "answers": 4, "max_tokens": 6}
GATE = {**MEASURE, "margin": 1.0, "greedy_margin": 1.0, "value_margin": 1.0}
"""Lets everything pass."""


def small_settings(folder: Path, url: str, admin_url: str) -> dict[str, Any]:
    """A run of seconds: six problems, four optimizer steps a round."""
    data = write_problems(folder / "problems.jsonl")
    return {
        "rounds": 2,
        "base": f"{folder}/base/v000001",
        "weights": f"{folder}/weights",
        "state": f"{folder}/state",
        "server": {"url": url, "admin_url": admin_url, "activate_seconds": 5},
        "collect": {
            "data": data,
            "problems": 6,
            "concurrency": 1,
            "search": {"algorithm": "mcts", "schedule": "waves", "budget": {"simulations": 4}},
        },
        "learning": {**LEARNING, **FAST},
        "gate": {**GATE, "data": data},
        "held_out": {**MEASURE, "data": data},
    }


def small(folder: Path, url: str, admin_url: str, **changes: Any) -> LoopConfig:
    return LoopConfig.model_validate({**small_settings(folder, url, admin_url), **changes})


def write_toml(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text("".join(f"{name} = {toml_value(value)}\n" for name, value in settings.items()))
    return path


@dataclass
class TrainedEngines(FakeEngines):
    """Engines that hold a release in earnest."""

    policy: FakePolicy = field(default_factory=lambda: FakePolicy(letters({"a": 0.5, "b": 0.5}, 2)))
    scorer: FakeScorer = field(default_factory=lambda: FakeScorer(lambda t: t.count("a") / max(1, len(t))))
    tolerance: float = 1e-3
    loads: list[str] = field(default_factory=list)
    models: tuple[Any, Any] = (None, None)
    dead_reason: str | None = None

    @asynccontextmanager
    async def exclusive(self, seconds: float) -> AsyncIterator[None]:
        yield

    async def reload(self, policy: Path, value: Path | None, value_head: Path | None) -> None:
        self.loads.append(policy.parent.name)
        assert value_head or value
        self.hold(ModelFiles(policy, value_head.parent if value_head else value))  # type: ignore[arg-type]

    def hold(self, models: ModelFiles) -> None:
        self.models = (
            policy_in(models.policy, torch.float32, models.adapter),
            load_judge(models.policy, models.value, models.adapter),
        )

    @asynccontextmanager
    async def trying(self, serving: Serving) -> AsyncIterator[None]:
        assert serving.source is not None
        before = self.models
        self.hold(serving.source.models)
        try:
            yield
        finally:
            if self.serving is not serving:
                self.models = before

    async def reset_prefix_caches(self) -> None:
        pass

    async def measure(self, texts: Sequence[Text], calibration: tuple[float, float]) -> list[Measurement]:
        return [self._figures(text) for text in texts]

    @torch.inference_mode()
    def _figures(self, text: Text) -> Measurement:
        policy, value = self.models
        ids = torch.tensor([text.whole])
        logprobs = policy(ids).logits[0].log_softmax(-1)[len(text.prompt) - 1 : -1]
        own = logprobs.gather(1, torch.tensor(text.continuation)[:, None])[:, 0].tolist()
        return Measurement(tuple(own), (False,) * len(own), end_values(value, [text.whole])[0])

    def give_up(self, reason: str) -> None:
        self.dead_reason = reason
        self.dead.set()


@dataclass
class Site:
    """One server on two sockets."""

    url: str
    admin_url: str
    context: Context
    engines: TrainedEngines
    log: TreeLog

    async def searches(self) -> int:
        return len(await self.log.list(limit=1000))

    async def forget(self, consumer: str) -> None:
        """End a consumer's lease and delete the consumer, though its owner may renew it meanwhile."""
        while True:
            held = await self.log.get_consumer(consumer)
            assert held is not None
            with suppress(ConsumerConflict):  # it was renewed in between
                await self.log.put_consumer(consumer, version=held.version, owner=held.owner)
                return await self.log.delete_consumer(consumer)


@asynccontextmanager
async def a_site(
    folder: Path, ports: tuple[int, int] = (0, 0), engines: TrainedEngines | None = None, **settings: Any
) -> AsyncIterator[Site]:
    """A server on `folder`'s base, weights and log; started again there, it goes on with what was active. With settings
    of a fleet, and its log, it is a replica."""
    if not (folder / "base").exists():
        write_release(folder / "base")
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    if "log" not in settings:
        settings["log"] = empty_log(folder / "trees.db")
    chosen = Settings(weights=weights, release=folder / "base" / "v000001", **settings)
    base = load_release(folder / "base" / "v000001")
    async with AsyncExitStack() as stack:
        log = await TreeLog.open(chosen.log)
        stack.push_async_callback(log.close)
        fleet = None if chosen.fleet.name is None else await _joined(chosen, log, base, ports, stack)
        if fleet is None:
            active, unserved = await at_start(log, weights, base)
        else:
            chosen = chosen.model_copy(update={"replica": fleet.mine.number})
            active, unserved = load_release(resolve(weights, base, fleet.start.release)), None
        engines = engines or TrainedEngines()
        engines.serving = serving_of(active, chosen)
        stamped(engines)
        engines.hold(active.models)
        context = assemble(chosen, engines, log, base=base, unserved=unserved, fleet=fleet)
        stack.push_async_callback(context.searches.drain, 0)
        stack.push_async_callback(context.releases.settle, 5)
        apps = application(context), admin_application(context, chosen.admin.digest())
        urls = [
            await stack.enter_async_context(_listening(app, port))
            for app, port in zip(apps, ports, strict=True)
        ]
        yield Site(*urls, context, engines, log)


async def _joined(
    settings: Settings, log: TreeLog, base: Release, ports: tuple[int, int], stack: AsyncExitStack
) -> Fleet:
    """Join the fleet of a log until the stack is closed."""
    address, admin = (f"http://127.0.0.1:{port}" for port in ports)
    clock = asyncio.get_running_loop().time

    async def first() -> Release:
        return base

    fleet = await Fleet.join(
        settings.fleet, settings.log, address, first, clock, settings.replica, admin, log.boot_id
    )
    stack.push_async_callback(fleet.leave)
    await stack.enter_async_context(beside(asyncio.create_task(fleet.run())))
    return fleet


@asynccontextmanager
async def _listening(app: Any, port: int) -> AsyncIterator[str]:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        app,
        log_config=None,
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=65,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        sock.close()


children = get_context("forkserver")
"""Processes of tests start as copies of one that has loaded all that this module and `training_driver` import.

The import of `ramify_trainer.loop.processes` says what a trainer's load, which is less: so it comes first."""
children.set_forkserver_preload(
    ["ramify_trainer.service", "ramify.api.app", "transformers.models.llama.modeling_llama"]
)


def as_one_of_two(rank: int, meeting: Path, longest: float) -> None:
    """Make this process one of two that train together, told of each other as by `accelerate launch` or `torchrun`.

    They meet at the file `meeting`. (They met at a free port before, which another program could take before they used
    it: 2026-11-28.) One that has not ended after `longest` seconds says where it hangs, and ends with 1."""
    faulthandler.dump_traceback_later(longest, exit=True, file=sys.__stderr__)
    world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in world.items()}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
