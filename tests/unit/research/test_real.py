"""The recipe for real models: its problems, and each of its stages on a tiny chat model."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import write_tiny_models
from ramify.rewards import datasets, registry
from ramify.weights import Action, Details, load_release
from ramify_trainer.config import LoopConfig
from ramify_trainer.gate.policy_scores import SampledAnswer
from ramify_trainer.gate.unserved import judge_in
from ramify_trainer.gate.value_scores import end_values
from research.real import countdown, fine_tune, gsm8k, gym, problems, value_head
from research.real.rows import asked, write

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ m.content + '\n' }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy = write_tiny_models(tmp_path_factory.mktemp("tiny"), hidden=64, layers=2, heads=2).policy
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(policy)
    return policy


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Worked answers in the tiny model's words."""
    file = tmp_path_factory.mktemp("chats") / "worked.jsonl"
    turns = [
        [
            {"role": "user", "content": f"{n} + 1"},
            {"role": "assistant", "content": f"{n} + 1 = {n + 1}\n{n + 1}"},
        ]
        for n in range(8)
    ]
    write(file, [{"messages": each} for each in turns])
    return file


def test_every_line_of_a_worked_answer_is_true_and_the_verifier_takes_its_end() -> None:
    for problem in islice(problems.problems("train", 3, 200, (3, 4, 5)), 200):
        *lines, last = problem.answer.splitlines()
        for line in lines:
            left, right = line.split("=")
            assert eval(left) == int(right), line  # digits and a sign
        assert len(lines) == problem.lines >= 3
        assert last == f"Answer: {problem.number}"
        assert lines[-1].endswith(f"={problem.number}")
        assert "/1=" not in problem.answer


def test_splits_share_no_problem_and_the_same_seed_gives_the_same() -> None:
    drawn = {split: list(problems.problems(split, 1, 60, (3, 4))) for split in problems.SPLITS}
    for split, own in drawn.items():
        assert {p.split for p in own} == {split}
        assert len({p.question for p in own}) == 60
    assert drawn["dev"] == list(problems.problems("dev", 1, 60, (3, 4)))
    assert drawn["dev"] != list(problems.problems("dev", 2, 60, (3, 4)))


def test_the_command_writes_files_that_eval_the_trainer_and_fine_tuning_read(tmp_path: Path) -> None:
    problems.main(tmp_path, train=12, dev=6, test=6, examples=4)

    for split, count in (("train", 12), ("dev", 6), ("test", 6)):
        rows = datasets.load(str(tmp_path / f"{split}.jsonl"))
        assert len(rows) == count
        assert {row.task for row in rows} == {"math"}
    worked = [json.loads(line)["messages"] for line in (tmp_path / "worked.jsonl").read_text().splitlines()]
    first = datasets.load(str(tmp_path / "train.jsonl"))[0]
    assert [turn["content"] for turn in worked[0][:2]] == [m.content for m in first.messages]
    task = registry.task("math", first.problem)
    assert asyncio.run(task.grade(worked[0][2]["content"])).outcome == 1.0


def test_countdown_in_words_is_the_task_and_its_worked_answers_are_right(tmp_path: Path) -> None:
    countdown.main(tmp_path, train=12, dev=6, test=6, examples=12)

    for split, count in (("train", 12), ("dev", 6), ("test", 6)):
        rows = datasets.load(str(tmp_path / f"{split}.jsonl"))
        assert len(rows) == count
        assert {(row.task, len(row.problem["numbers"])) for row in rows} == {("countdown", 4)}
    row = datasets.load(str(tmp_path / "train.jsonl"))[0]
    assert row.messages[-1].content == countdown.question(row.problem)
    for line in (tmp_path / "worked.jsonl").read_text().splitlines():
        _, said, answer = (turn["content"] for turn in json.loads(line)["messages"])
        target, *numbers = map(int, re.findall(r"\d+", said))
        task = registry.task("countdown", {"numbers": numbers, "target": target})
        assert asyncio.run(task.grade(answer)).outcome == 1.0


def test_gsm8k_loses_its_marks_and_its_answers_are_numbers(tmp_path: Path) -> None:
    row = {"question": "A?", "answer": "He has 24*50=<<24*50=1200>>1,200 pens.\n#### 1,200"}
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(f"{json.dumps(row)}\n" * (gsm8k.DEV + 2))
    gsm8k.main(tmp_path, tmp_path / "out")

    assert [len(datasets.load(str(tmp_path / f"out/{s}.jsonl"))) for s in ("train", "dev", "test")] == [
        2,
        500,
        502,
    ]
    worked = json.loads((tmp_path / "out/worked.jsonl").read_text().splitlines()[0])["messages"]
    assert worked[-1] == {"role": "assistant", "content": "He has 24*50=1,200 pens.\nAnswer: 1200"}
    example = datasets.load(str(tmp_path / "out/train.jsonl"))[0]
    assert asyncio.run(registry.task("math", example.problem).grade(worked[-1]["content"])).outcome == 1.0


@pytest.fixture(scope="module")
def tuned(chat_model: Path, chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "policy"
    fine_tune.main(chat_model, chats, out, examples=8, steps=40, batch=4, rate=3e-3, threads=1)
    return out


def test_fine_tuning_learns_the_answers_and_keeps_tensors_and_precision(
    chat_model: Path, chats: Path, tuned: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    read = fine_tune.read_chats(chats, tokenizer, 8)
    before, after = (
        fine_tune.loss_of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), read).item()
        for folder in (chat_model, tuned)
    )
    assert after < 0.5 * before
    with (
        safe_open(chat_model / "model.safetensors", "pt") as old,
        safe_open(tuned / "model.safetensors", "pt") as new,
    ):
        names = list(new.keys())
        assert set(old.keys()) == set(names)
        assert {str(new.get_slice(name).get_dtype()) for name in names} == {"BF16"}
    assert tokenizer.chat_template == TEMPLATE


def test_the_loss_is_that_of_transformers(chat_model: Path, chats: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(chat_model, dtype=torch.float32)
    first, second = fine_tune.read_chats(chats, AutoTokenizer.from_pretrained(chat_model), 2)
    longer = fine_tune.Chat([*first.prompt, 5], first.answer)  # so that the other is padded

    own = fine_tune.loss_of(model, [longer, second]).item()

    sums = []
    for prompt, answer in (longer, second):
        labels = torch.tensor([[*[-100] * len(prompt), *answer]])
        loss = model(input_ids=torch.tensor([[*prompt, *answer]]), labels=labels).loss
        sums.append((loss.item() * len(answer), len(answer)))
    assert own == pytest.approx(sum(s for s, _ in sums) / sum(n for _, n in sums), rel=1e-4)


def test_a_batch_is_computed_in_parts_that_fit_and_make_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine_tune, "TOKENS_AT_ONCE", 10)
    seen: list[list[int]] = []

    def loss(part: Sequence[int]) -> torch.Tensor:
        seen.append(list(part))
        return torch.tensor(part, dtype=torch.float64).mean()

    batch = [5, 12, 3, 3, 4]
    whole = sum(fine_tune.in_parts(batch, int, lambda _: 1, loss))

    assert seen == [[3, 3], [4, 5], [12]]
    assert whole == pytest.approx(sum(batch) / len(batch))


def test_a_chat_must_end_with_the_assistant(chat_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "1"}]}\n')
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    with pytest.raises(ValueError, match=r"chats.jsonl:1: the last message must be the assistant's"):
        fine_tune.read_chats(file, tokenizer, 1)
    for bad in ("{", "{}", '{"messages": 3}'):
        file.write_text(bad)
        with pytest.raises(ValueError, match=r"chats.jsonl:1: no chat in `messages`"):
            fine_tune.read_chats(file, tokenizer, 1)


def test_fewer_chats_than_a_batch_are_refused_and_weights_of_the_base_are_not_copied(
    chat_model: Path, chats: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="a batch of 4 needs as many examples; there are 3"):
        fine_tune.main(chat_model, chats, tmp_path / "policy", examples=3, steps=1, batch=4, threads=1)

    base = shutil.copytree(chat_model, tmp_path / "base")
    (base / "model-00002-of-00002.safetensors").touch()
    (base / "model.safetensors.index.json").touch()
    fine_tune.save(AutoModelForCausalLM.from_pretrained(chat_model), base, tmp_path / "policy")
    assert [file.name for file in (tmp_path / "policy").glob("model*")] == ["model.safetensors"]


def test_a_head_trained_with_its_trunk_sees_the_states_that_a_release_judges_and_ranks_by_them(
    chat_model: Path, chats: Path, tmp_path: Path
) -> None:
    """Its logit at an answer's end is that of the published release."""
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    prompt = tuple(tokenizer("3 + 1\n").input_ids)
    answers = [
        SampledAnswer(
            prompt, (*tokenizer(f"{n} + 1\n {n % 7}").input_ids, tokenizer.eos_token_id), True, float(n % 2)
        )
        for n in range(60)
    ]
    action = Action(stop=("\n",), max_tokens=8)
    judged = value_head.judged_answers(chat_model, answers, action)
    assert [answer.steps for answer in judged] == [[1, 0]] * 60

    model = fine_tune.trainable(chat_model)
    worked = fine_tune.read_chats(chats, tokenizer, 8)
    before = fine_tune.loss_of(model, worked).item()
    head = value_head.train_both(model, judged, worked, steps=30, batch=8, rate=3e-3, seed=0)
    assert value_head.figures(model, head, judged)["auc_step_1"] > 0.75
    assert fine_tune.loss_of(model, worked).item() < before

    fine_tune.save(model, chat_model, tmp_path / "policy")
    release = value_head.published(
        tmp_path / "weights", tmp_path / "policy", head, Details(name="tiny", default_action=action)
    )
    assert load_release(release.path).manifest.value == "trunk"
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32)
    with torch.no_grad():
        own = torch.sigmoid(value_head.logits_of(policy, head, judged)[1::2]).numpy()
    released = np.array(end_values(judge_in(release.path), [answer.tokens for answer in judged]))
    assert released == pytest.approx(own, abs=1e-3)


def make_head(policy: Path, chats: Path, folder: Path) -> None:
    rows = [asked(f"{n} + 1", "math", {"answer": str(n + 1)}, f"p{n}", "sums") for n in range(8)]
    write(folder / "rows.jsonl", rows)
    value_head.main(
        policy,
        folder / "rows.jsonl",
        chats,
        folder / "rows.jsonl",
        folder,
        problems=8,
        answers=4,
        dev_problems=8,
        examples=8,
        max_tokens=12,
        steps=2,
        batch=8,
        rate=1e-5,
        engine="transformers",
        threads=1,
    )


def test_answers_are_sampled_graded_and_kept_and_a_release_comes_of_them(
    tuned: Path, chats: Path, tmp_path: Path
) -> None:
    make_head(tuned, chats, tmp_path)

    kept = json.loads((tmp_path / "samples-train.json").read_text())
    assert [len(group) for group in kept["answers"].values()] == [4] * 8
    manifest = load_release(tmp_path / "weights/v000001").manifest
    assert manifest.default_action.stop == ("\n",)
    assert {"greedy", "mean_at_k", "any_of_k", "auc_end"} <= set(manifest.metrics)


def test_a_policy_that_is_never_right_teaches_no_head(chat_model: Path, chats: Path, tmp_path: Path) -> None:
    with pytest.raises(
        typer.BadParameter, match=r"0 of \d+ sampled answers are right: a batch needs 4 right and 4 wrong"
    ):
        make_head(chat_model, chats, tmp_path)


def test_the_loop_of_the_recipe_can_be_read() -> None:
    config = LoopConfig.read(Path(value_head.__file__).with_name("loop.toml"))
    assert config.rounds == 3
    assert config.gate.max_tokens == config.held_out.max_tokens


def test_the_table_of_reasoning_gym_has_a_line_for_each_data_set(tmp_path: Path) -> None:
    def figure(group: str, method: str, accuracy: float, any_correct: float) -> dict[str, object]:
        shares = {"accuracy": {"mean": accuracy, "n": 8}, "any_correct": {"mean": any_correct, "n": 8}}
        return {"group": group, "method": method, **shares}

    figures = [
        figure("gcd", "greedy", 0.5, 0.5),
        figure("gcd", "any_of_4", 0.25, 0.75),
        figure("all", "greedy", 0.5, 0.5),
        figure("all", "any_of_4", 0.25, 0.75),
    ]
    (tmp_path / "results.json").write_text(json.dumps({"figures": figures}))
    assert list(gym.table(tmp_path))[2:] == ["| gcd | 8 | 50 | 75 |", "| all | 8 | 50 | 75 |"]


def test_a_run_of_reasoning_gym_goes_on_with_the_parts_that_it_has(tmp_path: Path) -> None:
    """No data set is made: each has a part already, but for what is asked of all together."""
    (tmp_path / "parts").mkdir()
    for name in gym.DATA_SETS:
        for split, rows in (("train", 2), ("test", 1)):
            lines = [json.dumps({"data set": name, "split": split, "row": i}) + "\n" for i in range(rows)]
            (tmp_path / "parts" / f"{name}-{split}-{rows}.jsonl").write_text("".join(lines))
    gym.write(tmp_path, train=2, test=1)
    worked = [json.loads(line) for line in (tmp_path / "worked.jsonl").read_text().splitlines()]
    assert [row["data set"] for row in worked] == [*gym.DATA_SETS, *gym.DATA_SETS]
    assert len((tmp_path / "test.jsonl").read_text().splitlines()) == len(gym.DATA_SETS)
