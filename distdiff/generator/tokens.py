"""How a generator's tokenizers read prompts: what they cut off, and which words they do not know.

A tokenizer cuts a prompt that is longer than its text encoder takes, and no library stops for it. What is cut off changes
no image, so two classes that differ only there would get images of one kind.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distdiff.errors import UserError
from distdiff.generator.families.base import Family
from distdiff.wording import counted, printable, some

LEARNED_WORD = re.compile(r"<[^<>\s]+>")  # the form that words of textual inversions usually have
SHOWN = 60  # characters of a prompt in a message


@dataclass(frozen=True)
class Reading:
    """What the text encoders get of a prompt: `kept` has the token ids for each encoder, `cut` the text cut off for it."""

    kept: tuple[tuple[int, ...], ...]
    cut: tuple[str, ...]

    @property
    def is_cut(self) -> bool:
        return any(self.cut)


def read(family: Family, prompt: str) -> Reading:
    """Reads a prompt as the family's pipeline does."""
    kept, cut = [], []
    for tokenizer, limit, _ in family.tokenizers():
        text = family.as_tokenized(prompt, tokenizer)
        whole = tokenizer(text, verbose=False).input_ids
        taken = tokenizer(text, truncation=True, max_length=limit).input_ids
        kept.append(tuple(taken))
        left = whole[len(taken) - 1 : -1] if len(whole) > len(taken) else []  # the last token only marks the end
        cut.append(tokenizer.decode(left, skip_special_tokens=True).strip() or ("…" if left else ""))
    return Reading(tuple(kept), tuple(cut))


def check_prompts(
    family: Family, of_classes: Sequence[Sequence[str]], class_names: Sequence[str], key: str
) -> Iterator[str]:
    """Yields a sentence if prompts are cut, and one if prompts of different classes have the same tokens without a cut.

    `of_classes` has the prompts of each class. `key` is the configuration key that sets them. Raises `UserError` if
    prompts of two classes have the same tokens for all text encoders because they are cut, and if a text encoder does not
    know a token.
    """
    readings = {prompt: read(family, prompt) for own in of_classes for prompt in own}
    for number, (_, _, known) in enumerate(family.tokenizers()):
        last = max((identity for reading in readings.values() for identity in reading.kept[number]), default=0)
        if last >= known:
            raise UserError(
                f"generator.model is not allowed: a tokenizer gives the token {last} for these prompts, and its text encoder "
                f"knows {known} tokens"
            )
    equal: dict[tuple[tuple[int, ...], ...], list[tuple[str, str]]] = {}  # tokens -> (prompt, class)
    for name, own in zip(class_names, of_classes, strict=True):
        for prompt in own:
            equal.setdefault(readings[prompt].kept, []).append((prompt, name))
    shared = [owners for owners in equal.values() if len({name for _, name in owners}) > 1]
    for owners in shared:
        one, first = next((owner for owner in owners if readings[owner[0]].is_cut), (None, None))
        if one is not None:
            second = next(name for _, name in owners if name != first)
            lost = _quoted(next(filter(None, readings[one].cut)))
            raise UserError(
                f"{key} is not allowed: the classes {first!r} and {second!r} get the same prompt, because this generator "
                f"reads {_limits(family)} and cuts off {lost} of {_quoted(one)}; give shorter prompts, with the class nearer to "
                "the beginning"
            )
    cut = [prompt for prompt, reading in readings.items() if reading.is_cut]
    if cut:
        more = f" ({counted(len(cut), 'prompt')} are cut)" if len(cut) > 1 else ""
        yield f"{key}: {_cut(family, cut[0], readings[cut[0]])}{more}"
    if shared:
        one, first = shared[0][0]
        other, second = next(owner for owner in shared[0] if owner[1] != first)
        if one == other:
            yield f"{key}: the classes {first!r} and {second!r} have the same prompt, {_quoted(one)}"
        else:
            yield (
                f"{key}: this generator reads {_quoted(one)} and {_quoted(other)} as the same prompt, so the classes "
                f"{first!r} and {second!r} share it"
            )


def check_negative_prompt(family: Family, negative: str) -> Iterator[str]:
    """Yields a sentence if the negative prompt is cut."""
    reading = read(family, negative)
    if reading.is_cut:
        yield f"generator.negative_prompt: {_cut(family, negative, reading)}"


def check_words(
    family: Family, prompts: Sequence[str], negative: str, learned: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yields a sentence for unknown `<words>`, and for each textual inversion that no prompt or part of a word uses.

    `learned` maps each entry of `generator.textual_inversion` to the words that it added.
    """
    texts = [*prompts, negative]
    written = dict.fromkeys(word for text in texts for word in LEARNED_WORD.findall(text))
    known = [tokenizer.get_vocab() for tokenizer, *_ in family.tokenizers()]
    unknown = [word for word in written if not any(word in vocabulary for vocabulary in known)]
    if unknown:
        are = "is no learned word" if len(unknown) == 1 else "are no learned words"
        yield (
            f"{', '.join(map(printable, unknown))} {are} of this generator, so the letters are read as ordinary text; "
            "generator.textual_inversion=[<file>] adds a word"
        )
    used = {number for text in texts for ids in read(family, text).kept for number in ids}
    for entry, words in learned.items():
        numbers = {tokenizer.convert_tokens_to_ids(word) for word in words for tokenizer, *_ in family.tokenizers()}
        if not numbers & used:
            yield (
                f"generator.textual_inversion={entry} changes no image: its word {words[0]} is in no prompt; write it into "
                "dataset.prompt_template or generator.negative_prompt"
            )
        if within := _within_words(family, texts, words):
            yield (
                f"generator.textual_inversion={entry}: its word {words[0]} is also read inside of {some(within)}; write other "
                "words, or rename the learned word, such as to <name>"
            )


def _within_words(family: Family, texts: Sequence[str], learned: Sequence[str]) -> list[str]:
    """The longer words of `texts` in which a tokenizer finds a word of `learned`: it looks for them everywhere."""
    longer = dict.fromkeys(
        word
        for text in texts
        for word in re.findall(r"\w+", text)
        if word not in learned and any(own.lower() in word.lower() for own in learned)
    )
    numbers = {tokenizer.convert_tokens_to_ids(own) for own in learned for tokenizer, *_ in family.tokenizers()}
    return [word for word in longer if any(numbers & {*ids} for ids in read(family, word).kept)]


def _cut(family: Family, prompt: str, reading: Reading) -> str:
    cut = next(filter(None, reading.cut))
    rest = ""
    if not all(reading.cut):
        some, number = sum(map(bool, reading.cut)), len(reading.cut)
        rest = f" for {some} of the {number} text encoders"
    return f"{_quoted(prompt)} is longer than {_limits(family)}: {_quoted(cut)} is cut off{rest}"


def _limits(family: Family) -> str:
    limits = sorted({limit for _, limit, _ in family.tokenizers()})
    return f"{' or '.join(map(str, limits))} tokens"


def _quoted(text: str) -> str:
    text = printable(text)
    return f"'{text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'}'"
