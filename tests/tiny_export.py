"""Tiny random bases, tokenizers and adapters for the tests of export and verify, made once a test run."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_TOKENS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"]
GPTJ_TOKENS = ["<|endoftext|>", "<|extratoken_1|>", "<|extratoken_2|>"]
END_TOKENS = {"llama": "<|eot_id|>", "gptj": "<|endoftext|>"}
LLAMA_TEMPLATE = (
    "{%- if toolList is not defined %}{{- bos_token }}{%- endif %}\n"
    "{%- for message in messages %}\n"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}\n"
)
GPTJ_TEMPLATE = (
    "{%- for message in messages %}\n"
    "{%- if message['role'] == 'system' %}{{- message['content'] + '\\n\\n' }}\n"
    "{%- elif message['role'] == 'user' %}{{- 'Patient:\\n' + message['content'] + '\\n\\n' }}\n"
    "{%- else %}{{- 'Opérateur:\\n' + message['content'] + '<|endoftext|>' }}{%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- 'Opérateur:\\n' }}{%- endif %}\n"
)
LINES = [
    "Bonjour, j'ai mal à la poitrine depuis deux heures, ça serre et ça descend dans le bras gauche.",
    "Hello, my daughter has had a fever of 39.5 since yesterday and she won't drink anything.",
    "Opérateur : quel âge avez-vous ? Patient : 67 ans, et je prends de l'aspirine 75 mg.",
    "Où êtes-vous maintenant ? Restez allongé, j'envoie une équipe ; ne raccrochez pas !",
    '{"urgency": "U1", "specialty": "cardiologie", "icd10": ["R07.4"], "escalate": true}',
]
DIALOGUES = [
    [{"role": "user", "content": "Bonjour, j'ai très mal à la poitrine 😟 depuis 2 h."}],
    [
        {"role": "system", "content": "Tu es l'opérateur du centre d'appels."},
        {"role": "user", "content": "My baby's fever is 39.5 °C"},
        {"role": "assistant", "content": "How old is your baby?"},
        {"role": "user", "content": "3 months…"},
    ],
]


def save_tokenizer(folder: Path, family: str, size: int) -> int:
    """A byte-level BPE tokenizer of ``family`` with fewer than ``size`` tokens, and its chat template."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    is_llama = family == "llama"
    tokenizer = Tokenizer(models.BPE(ignore_merges=is_llama))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not is_llama)
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level]) if is_llama else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    special = LLAMA_TOKENS if is_llama else GPTJ_TOKENS[:1]
    trainer = trainers.BpeTrainer(
        vocab_size=size - 8,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 4, trainer)
    if not is_llama:
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in GPTJ_TOKENS[1:]])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= {"eos_token": END_TOKENS[family], "pad_token": special[-1]}
    settings |= {"bos_token": "<|begin_of_text|>"} if is_llama else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    template = LLAMA_TEMPLATE if is_llama else GPTJ_TEMPLATE
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return int(tokenizer.get_vocab_size())


@cache
def _model(family: str, tied: bool, width: int, layers: int, vocabulary: int, rope: str) -> Any:
    import torch
    from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    shared = {"vocab_size": vocabulary, "tie_word_embeddings": tied}
    if family == "llama":
        scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        scaling |= {"original_max_position_embeddings": 64}
        config = LlamaConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=512,
            rope_parameters={"rope_theta": 500000.0, **(scaling if rope == "llama3" else {"rope_type": "default"})},
            **shared,
        )
        model = LlamaForCausalLM(config)
    else:
        config = GPTJConfig(
            n_embd=width,
            n_layer=layers,
            n_head=4,
            rotary_dim=width // 8,
            n_inner=2 * width,
            n_positions=512,
            **shared,
        )
        model = GPTJForCausalLM(config)
    with torch.no_grad():  # weights far from zero, so that a wrong permutation or a lost bias cannot hide
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.3 if weight.dim() == 1 else 0.12)
    return model


def save_base(
    folder: Path,
    family: str = "llama",
    *,
    tied: bool = True,
    width: int = 64,
    layers: int = 2,
    vocabulary: int = 512,
    rope: str = "default",
    dtype: str = "float32",
    shard: str = "5GB",
) -> Path:
    """Save a random base with a tokenizer; returns ``folder``."""
    import copy

    import torch

    tokens = save_tokenizer(folder, family, vocabulary)
    model = copy.deepcopy(_model(family, tied, width, layers, vocabulary, rope))
    # rows without a token must never win, because gpt4all aborts on a token without text; nor must the end token,
    # so that a random model never ends
    silent = [
        (LLAMA_TOKENS if family == "llama" else GPTJ_TOKENS).index(END_TOKENS[family]),
        *range(tokens, vocabulary),
    ]
    with torch.no_grad():
        model.get_input_embeddings().weight[silent] = 0
        model.get_output_embeddings().weight[silent] = 0
        if model.get_output_embeddings().bias is not None:
            model.get_output_embeddings().bias[silent] = 0
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    return folder


def save_adapter(folder: Path, base_dir: Path, family: str = "llama", **settings: Any) -> Path:
    """Save a random LoRA adapter of the base in ``base_dir``, with a tokenizer; returns ``folder``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    adapted = get_peft_model(model, LoraConfig(**chosen))
    torch.manual_seed(11)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(0.0, 0.1)
    adapted.save_pretrained(folder)
    save_tokenizer(folder, family, model.config.vocab_size)
    return folder


WINDOW = 256  # longer than the chats: llama.cpp's llama and phi3 know no sliding window


def save_zoo_base(folder: Path, name: str, width: int = 64, **changes: Any) -> Path:
    """Save the family ``name`` of tiny_zoo with weights far from zero, so that a wrong row order or scale cannot hide."""
    import tiny_zoo
    import torch
    import transformers

    kind = tiny_zoo.ZOO[name]
    tokenizer = tiny_zoo.zoo_tokenizer(kind.template)
    settings = {**kind.settings}
    if kind.model == "GPTJ":
        settings |= {"n_embd": width, "n_inner": 2 * width}
    else:
        settings |= {"hidden_size": width, "intermediate_size": 2 * width}
    if kind.model in ("Mistral", "Phi3"):
        settings["sliding_window"] = WINDOW if name != "phi-4" else None
    settings |= changes
    config_class = {"Gemma3": "Gemma3TextConfig"}.get(kind.model, f"{kind.model}Config")
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = getattr(transformers, config_class)(vocab_size=len(tokenizer) + 3, **settings, **ids)
    torch.manual_seed(7)
    model = getattr(transformers, f"{kind.model}ForCausalLM")(config)
    is_gemma = kind.model.startswith("Gemma")
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            centre = 1.0 if ("norm" in parameter or "ln_" in parameter) and not is_gemma else 0.0
            weight.normal_(centre, 0.3 if weight.dim() == 1 else 0.12 * (64 / width) ** 0.5)
        # some tokens stand out, as in a trained model: without, float16's rounding alone reorders the best two
        model.get_output_embeddings().weight.mul_(torch.exp(0.5 * torch.randn(config.vocab_size, 1)))
        silent = [tokenizer.eos_token_id, *range(len(tokenizer), len(tokenizer) + 3)]
        model.get_input_embeddings().weight[silent] = 0
        model.get_output_embeddings().weight[silent] = 0
        if model.get_output_embeddings().bias is not None:
            model.get_output_embeddings().bias[silent] = 0
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _all_splits(folder / "tokenizer.json")
    return folder


def _all_splits(path: Path) -> None:
    """Every way to make a piece of two pieces as a merge, in the order of the pieces: as transformers converts SentencePiece."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    model = tokenizer["model"]
    if not model.get("byte_fallback"):
        return
    pieces = list(dict.fromkeys("".join(pair) for pair in model["merges"]))
    cuts = [(piece[:i], piece[i:]) for piece in pieces for i in range(1, len(piece))]
    model["merges"] = [list(cut) for cut in cuts if cut[0] in model["vocab"] and cut[1] in model["vocab"]]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def save_adapter_of(folder: Path, base_dir: Path, *, rows: int | None = None, **settings: Any) -> Path:
    """Save a random adapter of any base, without a tokenizer; every trained tensor is moved away from its start.

    ``rows``: the vocabulary is resized to so many before.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    adapted = get_peft_model(model, LoraConfig(**chosen))
    torch.manual_seed(11)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.08)
    adapted.save_pretrained(folder)
    return folder
