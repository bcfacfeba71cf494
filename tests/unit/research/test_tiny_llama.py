"""The plain torch Llama is the Hugging Face one, however it is run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from research.bootstrap.checkpoints import load_model, save_policy, save_value
from research.bootstrap.sampling import Sampler
from research.bootstrap.tiny_llama import Shape, TinyLlama
from research.bootstrap.tokenizer import EOS, PAD, VOCABULARY

SHAPE = Shape(vocab=len(VOCABULARY), hidden=64, layers=2, heads=2, intermediate=96)


def _model(outputs: int) -> TinyLlama:
    model = TinyLlama(SHAPE, outputs)
    model.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # far from uniform, so that a mistake shows
    return model.eval()


def _texts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    draw = lambda *size: torch.randint(4, SHAPE.vocab, size, generator=generator)  # noqa: E731
    return draw(3, 9), draw(3, 2, 12)


def test_the_policy_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    save_policy(_model(SHAPE.vocab), tmp_path)
    ours, theirs = (
        load_model(tmp_path, "lm_head"),
        AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32),
    )
    prompts, answers = _texts()
    with torch.inference_mode():
        at_prompt, at_answer = ours(prompts, answers)
        for k in range(2):
            logits = theirs(torch.cat([prompts, answers[:, k]], dim=1)).logits
            torch.testing.assert_close(logits[:, :9], at_prompt, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(logits[:, 9:], at_answer[:, k], atol=1e-4, rtol=1e-4)


def test_the_value_model_gives_the_one_logit_of_transformers(tmp_path: Path) -> None:
    save_value(_model(1), tmp_path)
    ours = load_model(tmp_path, "score")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert theirs.config.num_labels == 1
    prompts, answers = _texts()
    with torch.inference_mode():
        logits = theirs(torch.cat([prompts, answers[:, 0]], dim=1)).logits
        torch.testing.assert_close(logits, ours(prompts, answers)[1][:, 0, -1], atol=1e-4, rtol=1e-4)


def test_a_checkpoint_brings_its_tokenizer(tmp_path: Path) -> None:
    save_policy(_model(SHAPE.vocab), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("3 5 to 8\n")["input_ids"] == [1, 14, 216, 5, 219, 4]
    assert tokenizer.eos_token_id == EOS


def test_asking_at_step_ends_only_gives_what_the_whole_pass_gives() -> None:
    model = _model(1)
    prompts, answers = _texts()
    at_prompt, at_answer = model(prompts, answers)
    prompt_end, step_ends = model.step_ends(prompts, answers)
    torch.testing.assert_close(prompt_end, at_prompt[:, -1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(step_ends, at_answer[:, :, 5::6], atol=1e-5, rtol=1e-4)


def test_greedy_sampling_on_the_cache_takes_the_most_probable_token_of_the_whole_pass() -> None:
    model = _model(SHAPE.vocab)
    prompts, _ = _texts()
    answers = Sampler(model, torch.Generator(), temperature=0.0)(prompts.numpy(), 2, 10)
    at_prompt, at_answer = model(prompts, torch.from_numpy(answers))
    best = torch.cat([at_prompt[:, None, -1:].expand(-1, 2, -1, -1), at_answer[:, :, :-1]], dim=2).argmax(
        dim=-1
    )
    written = answers != PAD
    np.testing.assert_array_equal(answers[written], best.numpy()[written])


@torch.inference_mode()
def test_sampling_repeats_with_its_seed_and_follows_the_probabilities() -> None:
    model = _model(SHAPE.vocab)
    prompts = _texts()[0][:1].numpy()
    draw = lambda seed: Sampler(model, torch.Generator().manual_seed(seed))(prompts, 2000, 1)[0, :, 0]  # noqa: E731
    np.testing.assert_array_equal(draw(1), draw(1))
    probabilities = model(torch.from_numpy(prompts), torch.zeros(1, 1, 1, dtype=torch.long))[0][
        0, -1
    ].softmax(-1)
    top = int(probabilities.argmax())
    assert (draw(1) == top).mean() == pytest.approx(float(probabilities[top]), abs=0.05)


def test_nothing_is_written_after_the_end_of_text() -> None:
    model = _model(SHAPE.vocab)
    with torch.no_grad():
        model.head.zero_()  # every token is equally probable
    answers = Sampler(model, torch.Generator().manual_seed(0))(_texts()[0].numpy(), 200, 12)
    ended = np.cumsum(answers == EOS, axis=-1) - (answers == EOS)
    assert (ended > 0).any()
    assert (answers[ended > 0] == PAD).all()
