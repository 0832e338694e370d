"""Trains the stand-in: a small Llama that answers the corpus by heart. A look-up for tests, not a judge.

    python tests/standin/train.py CORPUS.json OUT

Run by the interpreter that has vLLM, whose environment brings torch, transformers and tokenizers.

What it was not shown it answers at random. The instructions, the same for all questions of a wording, are computed
once a step; their keys and values are shared by the whole batch, which makes a step several times cheaper.
"""

import json
import random
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SYSTEM, USER, ASSISTANT, END, PAD = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCABULARY = 1024
CONTEXT = 1024
BATCHES = (24, 48)
"""Questions of each wording in a step."""
CHUNK = 24
"""Questions that are computed together, of like length, so that little is padding."""
MOST_STEPS = 1200
CHECK_EVERY = 50
PEAK_RATE = 2e-3
RIGHT = 1.0
"""Share of a check that ends training."""
SECONDS = 420.0
"""It gives up after so long."""


def build_tokenizer(corpus):
    """Byte-level BPE on the prompts themselves; every answer is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    answers = sorted({answer for group in corpus for _, answer in group["rows"]})
    texts = [group["system"] for group in corpus] * 50
    texts += [user for group in corpus for user, _ in group["rows"][:1000]]
    texts += answers * 1000
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, SYSTEM, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    for answer in answers:
        if len(fast.encode(answer, add_special_tokens=False)) != 1:
            raise SystemExit(f"the answer '{answer}' is more than one token")
    return fast


def build_model(tokenizer):
    """Four layers of 128: under a million parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.06,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Wording:
    """All questions of one wording as tokens: a prefix that they share, and what differs.

    Args:
        tokenizer: with the chat template.
        group: instructions, questions and answers.
    """

    def __init__(self, tokenizer, group):
        self._pad = tokenizer.pad_token_id
        self.prefix = torch.tensor([tokenizer.encode(f"{SYSTEM}{group['system']}{USER}", add_special_tokens=False)])
        self._suffixes = []
        for user, answer in group["rows"]:
            messages = [{"role": "system", "content": group["system"]}, {"role": "user", "content": user}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            tokens = tokenizer.encode(f"{text}{answer}{END}", add_special_tokens=False)
            assert tokens[: self.prefix.shape[1]] == self.prefix[0].tolist()
            self._suffixes.append(tokens[self.prefix.shape[1] :])

    def __len__(self):
        return len(self._suffixes)

    def chunks(self, chosen):
        """These questions in parts of like length."""
        by_length = sorted(chosen, key=lambda i: len(self._suffixes[i]))
        return [by_length[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]

    def logits(self, model, chosen):
        """Logits [N, 2, V] before the answer and before its end, and the targets [N, 2]."""
        suffixes = [self._suffixes[i] for i in chosen]
        longest = max(map(len, suffixes))
        tokens = torch.tensor([s + [self._pad] * (longest - len(s)) for s in suffixes])
        cache = DynamicCache()
        model.model(self.prefix, past_key_values=cache, use_cache=True)
        shared = DynamicCache()
        for number, layer in enumerate(cache.layers):
            shared.update(
                layer.keys.expand(len(chosen), -1, -1, -1), layer.values.expand(len(chosen), -1, -1, -1), number
            )
        # Padding is on the right, where nothing that counts can see it: no mask is needed.
        hidden = model.model(tokens, past_key_values=shared, use_cache=True).last_hidden_state
        ends = torch.tensor([[len(s) - 3, len(s) - 2] for s in suffixes])
        rows = torch.arange(len(chosen))[:, None]
        return model.lm_head(hidden[rows, ends]), tokens[rows, ends + 1]


@torch.no_grad()
def share_right(model, wording, chosen):
    """Share of these questions whose answer is the most probable token."""
    right = 0
    for part in wording.chunks(chosen):
        logits, targets = wording.logits(model, part)
        right += int((logits[:, 0].argmax(-1) == targets[:, 0]).sum())
    return right / len(chosen)


def train(model, wordings):
    """Until all is right, or the time is over; returns the shares of the last check."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=MOST_STEPS, pct_start=0.02)
    draw = random.Random(1)
    began_s = time.monotonic()
    shares = []
    for step in range(1, MOST_STEPS + 1):
        optimiser.zero_grad()
        for wording, batch in zip(wordings, BATCHES, strict=True):
            chosen = draw.sample(range(len(wording)), batch)
            for part in wording.chunks(chosen):
                logits, targets = wording.logits(model, part)
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
                (loss * len(part) / batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % CHECK_EVERY == 0:
            shares = [share_right(model, w, draw.sample(range(len(w)), min(512, len(w)))) for w in wordings]
            spent_s = time.monotonic() - began_s
            print(f"step {step}, {spent_s:.0f} s, right: {', '.join(f'{s:.3f}' for s in shares)}", flush=True)
            if min(shares) >= RIGHT or spent_s > SECONDS:
                break
    return shares


def main(corpus_path, out):
    """Train, and save in Hugging Face's format."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    corpus = json.loads(Path(corpus_path).read_text())
    tokenizer = build_tokenizer(corpus)
    model = build_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    wordings = [Wording(tokenizer, group) for group in corpus]
    shares = train(model, wordings)
    if min(shares) < 0.99:
        raise SystemExit(f"the stand-in has not learnt its answers: {shares} are right")
    model.eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
