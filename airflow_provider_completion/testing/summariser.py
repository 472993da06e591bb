"""The local app's default generator: a small extractive summariser, so that a real text gets a real, modest summary."""

from __future__ import annotations

import re
from collections import Counter

from airflow_provider_completion.testing.prompt import Prompt

_SENTENCE_END = re.compile(
    r"(?<=[.!?…])\s+|(?<=[.!?…][\"'”’)\]])\s+|(?<=[。！？])(?![」』”’）])|(?<=[。！？][」』”’）])|\n{2,}"
)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"  # Thai to Chinese
_SPACED_WORD, _UNSPACED_RUN = re.compile(rf"[^\W{_UNSPACED}]+"), re.compile(rf"[{_UNSPACED}]+")
_STOP_WORDS = frozenset(
    "a about after all also an and any are as at be because been before but by can could did do does for from had has "
    "have he her his how i if in into is it its just like more most no not of on one only or other our out over she so "
    "some such than that the their them then there these they this to up was we were what when which who will with "
    "would you your".split()
)


def summarise(prompt: Prompt) -> str:
    """Return the sentences that say most of the longest input text, in their order.

    A sentence counts as much as the words in it that come up often in the text. How many are kept is the input
    ``sentences``, 3 without it.
    """
    texts = [value for value in prompt.inputs.values() if isinstance(value, str)]
    text = max(texts, key=len, default="") or prompt.text
    wanted = prompt.inputs.get("sentences")
    count = max(1, int(wanted)) if isinstance(wanted, int | float) else 3
    sentences = [" ".join(part.split()) for part in _SENTENCE_END.split(text) if part.strip()]
    if len(sentences) <= count:
        return text.strip()

    words = [_words(sentence) for sentence in sentences]
    frequency = Counter(word for sentence in words for word in sentence)

    def weight(index: int) -> float:
        # Divided by the length, softened, or the longest sentence would always win.
        return sum(frequency[word] for word in set(words[index])) / (len(words[index]) + 5)

    best = sorted(sorted(range(len(sentences)), key=weight, reverse=True)[:count])
    kept = [sentences[index] for index in best]
    return "".join(sentence if sentence[-1] in "。！？」』”’）" else f"{sentence} " for sentence in kept).strip()


def _words(sentence: str) -> list[str]:
    """Return what carries the meaning: words, or pairs of letters where words are not set apart."""
    words = [word for word in _SPACED_WORD.findall(sentence.lower()) if word not in _STOP_WORDS]
    return words + [run[i : i + 2] for run in _UNSPACED_RUN.findall(sentence) for i in range(len(run) - 1)]
