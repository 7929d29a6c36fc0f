# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Text as tokens: the byte-level tokenizer, learnt from the dialogues, and each token's weight."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
MESSAGE_START = "<|im_start|>"
MESSAGE_END = "<|im_end|>"
IMAGE = "<|image|>"
PRINTED = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Special tokens that stay visible in the output, because the tool-call parser looks for them."""
SPECIAL = (END_OF_TEXT, MESSAGE_START, MESSAGE_END, *PRINTED, IMAGE)

PROMPT_WEIGHT = 0.1
"""What predicting a prompt's token counts in the loss, where an answer's counts 1."""


def learn_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Encoder:
    """Texts as token ids, and what each token counts in the loss."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.end_of_text: int = tokenizer.token_to_id(END_OF_TEXT)
        self.image: int = tokenizer.token_to_id(IMAGE)
        self._message_end: int = tokenizer.token_to_id(MESSAGE_END)
        self._answer_start: list[int] = tokenizer.encode(f"{MESSAGE_START}assistant").ids

    def encode(self, text: str) -> list[int]:
        """The text's token ids, nothing added."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def encode_dialogues(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's token ids, after the token that begins a document."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return [[self.end_of_text, *encoding.ids] for encoding in encodings]

    def weights(self, ids: Sequence[int]) -> list[float]:
        """One weight per token: 1 in the assistant's messages, their end included."""
        start = self._answer_start
        weights: list[float] = []
        while len(weights) < len(ids):
            position = len(weights)
            if list(ids[position : position + len(start)]) == start:
                weights += [PROMPT_WEIGHT] * len(start)
                weights += [1.0] * self._answer_length(ids, position + len(start))
            else:
                weights.append(PROMPT_WEIGHT)
        return weights

    def _answer_length(self, ids: Sequence[int], begin: int) -> int:
        """Tokens from `begin` to the end of the message; a cut message ends with the text."""
        end = next((i for i in range(begin, len(ids)) if ids[i] == self._message_end), len(ids) - 1)
        return end + 1 - begin
