"""A small CLIP tokenizer that is trained on a dataset's prompts; it can encode any other text byte by byte."""

import json
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
MAX_TOKENS = 48


def build_tokenizer(prompts: list[str], num_merges: int = 200) -> CLIPTokenizer:
    """Byte-level BPE (Sennrich et al., 2016) trained on `prompts`, with all 256 bytes in its vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = alphabet + [symbol + END_OF_WORD for symbol in alphabet]
    bpe = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(base) + num_merges,
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    bpe.train_from_iterator([prompt.lower() for prompt in prompts], trainer)
    merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = base + [left + right for left, right in merges] + [START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    with tempfile.TemporaryDirectory() as folder:
        vocab_file, merges_file = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab_file.write_text(json.dumps(vocabulary), encoding="utf-8")
        merges_file.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS, unk_token=END, pad_token=END)
