"""What is faster computes the same: attention by segments, GPT-J's attention, the head."""

from __future__ import annotations

import pytest
from tiny_zoo import ZOO, save_zoo_base

from llmft.prompt import IGNORE
from llmft.train.kernels.attention import SEGMENTS, as_for_padded_rows, no_mask, segment_attention, use_segments
from llmft.train.kernels.gptj import fuse_gptj_attention
from llmft.train.kernels.head import use_trained_positions
from llmft.train.kernels.layers import WANTED, chosen, kernels_of, use_layer_kernels

LENGTHS = (50, 33, 45)  # longer than the tiny models' sliding windows


def model_of(name: str, folder):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_zoo_base(name, folder), dtype=torch.float32)
    model.config.use_cache = False
    return model.eval()


def packed_batch(model):
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    drawn = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, model.config.vocab_size, (length,), generator=drawn).tolist() for length in LENGTHS]
    return DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([{"input_ids": r, "labels": r} for r in rows])


@pytest.mark.parametrize("name", [name for name in ZOO if name != "gemma-2"])
def test_logits_by_segments_are_those_of_masked_attention(name, tmp_path):
    import torch

    model = model_of(name, tmp_path)
    batch = packed_batch(model)
    del batch["labels"]
    with torch.no_grad():
        masked = model(**batch).logits
        fuse_gptj_attention(model)
        assert use_segments(model)
        segmented = model(**batch).logits
        one_row = {"input_ids": batch["input_ids"][:, : LENGTHS[0]]}
        alone = model(**one_row).logits
    assert model.config._attn_implementation == SEGMENTS
    torch.testing.assert_close(segmented, masked, rtol=0, atol=1e-4 * float(masked.std()))
    torch.testing.assert_close(alone[0], masked[0, : LENGTHS[0]], rtol=0, atol=1e-4 * float(masked.std()))


def test_segments_are_the_arithmetic_of_attention_written_out():
    import torch

    torch.manual_seed(3)
    query, key, value = torch.randn(9, 4, 8), torch.randn(9, 2, 8), torch.randn(9, 2, 8)  # (tokens, heads, width)
    starts = torch.tensor([0, 4, 9], dtype=torch.int32)
    for window in (None, 2):
        found = segment_attention(query, key, value, starts, 5, 0.3, window)
        for token in range(9):
            first = 0 if token < 4 else 4
            first = first if window is None else max(first, token - window + 1)
            for head in range(4):
                scores = key[first : token + 1, head // 2] @ query[token, head] * 0.3
                wanted = scores.softmax(0) @ value[first : token + 1, head // 2]
                torch.testing.assert_close(found[token, head], wanted)


def test_padded_rows_are_refused_and_soft_caps_left_alone(tmp_path):
    import torch

    with pytest.raises(ValueError, match="rows laid end to end, and these are padded"):
        no_mask(attention_mask=torch.tensor([[1, 1, 0]]))
    assert no_mask(attention_mask=torch.tensor([[1, 1, 1]])) is None
    model = model_of("gemma-2", tmp_path)
    assert not use_segments(model) and model.config._attn_implementation == "eager"


def test_gptj_fused_is_gptj_plain_for_padded_rows_too(tmp_path):
    import torch

    model = model_of("gpt-j", tmp_path)
    ids = torch.randint(5, 800, (2, 40), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 25:] = 0
    with torch.no_grad():
        plain, plain_whole = model(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids).logits
        fuse_gptj_attention(model)
        fused, fused_whole = model(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids).logits
    real = mask.bool()
    torch.testing.assert_close(fused[real], plain[real], rtol=0, atol=1e-4 * float(plain.std()))
    torch.testing.assert_close(fused_whole, plain_whole, rtol=0, atol=1e-4 * float(plain.std()))


@pytest.mark.parametrize("name", ["gpt-j", "llama-3.1"])
def test_answers_are_written_as_by_the_model_alone(name, tmp_path):
    import torch

    model = model_of(name, tmp_path)
    ids = torch.randint(5, 800, (2, 40), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, :15] = 0  # padded on the left
    several = {"input_ids": ids, "attention_mask": mask}
    alone = {"input_ids": ids[:1], "attention_mask": mask[:1]}

    def written() -> list[list[int]]:
        answers = [model.generate(**prompts, max_new_tokens=6, do_sample=False, use_cache=True) for prompts in (several, alone)]
        return [row for answer in answers for row in answer.tolist()]

    plain = written()
    fuse_gptj_attention(model)
    use_segments(model)
    with as_for_padded_rows(model):
        assert written() == plain
    assert model.config._attn_implementation == SEGMENTS


@pytest.mark.parametrize("name", ["gemma-2", "gpt-j", "llama-3.1"])
def test_the_head_gives_trls_losses_and_gradients(name, tmp_path):
    import torch
    from trl.trainer.utils import add_fused_lm_head

    model = model_of(name, tmp_path).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if model.get_output_embeddings().bias is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    drawn = torch.Generator().manual_seed(4)
    ids = torch.randint(5, model.config.vocab_size, (3, 90), generator=drawn)
    labels = ids.where(torch.rand(ids.shape, generator=drawn) < 0.6, IGNORE)
    read = model.get_input_embeddings()(ids)

    def run() -> list[torch.Tensor]:
        inputs = read.clone().requires_grad_()
        scored = model(inputs_embeds=inputs, labels=labels, fused_lm_head=True)
        (-scored.log_probs.sum() / 7).backward()
        return [scored.log_probs, scored.entropy, scored.is_top1.float(), scored.label_mask.float(), inputs.grad]

    by_trl = run()
    of_trl = model.forward
    use_trained_positions(model)
    assert model.forward is not of_trl
    for ours, theirs in zip(run(), by_trl, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    logits = model(inputs_embeds=read).logits  # generation is as it was
    assert logits.shape == (*ids.shape, model.config.vocab_size)


def test_a_batch_without_a_label_has_a_gradient_of_zero(tmp_path):
    import torch
    from trl.trainer.utils import add_fused_lm_head

    model = model_of("llama-3.1", tmp_path)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    use_trained_positions(model)
    inputs = model.get_input_embeddings()(torch.arange(5, 25)[None]).detach().requires_grad_()
    scored = model(inputs_embeds=inputs, labels=torch.full((1, 20), IGNORE), fused_lm_head=True)
    scored.log_probs.sum().backward()
    assert float(scored.log_probs.abs().sum()) == 0.0 == float(inputs.grad.abs().sum())


def test_liger_has_kernels_for_every_family_but_gptj_and_none_for_the_head(tmp_path):
    liger = pytest.importorskip("liger_kernel.transformers.monkey_patch")
    kinds = {"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text"}
    for kind in sorted(kinds):
        options = chosen(kernels_of(kind))
        assert options["rms_norm"] and not options["cross_entropy"] and not options["fused_linear_cross_entropy"]
        assert options.get("swiglu") or options.get("geglu")
    assert kernels_of("gptj") is None and liger is not None and set(options) <= set(WANTED)
    assert not use_layer_kernels(model_of("gpt-j", tmp_path))
