"""What comes out of a call: the completion and its usage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias, get_args

from pydantic import TypeAdapter

from airflow_provider_completion.api.errors import InvalidRequestError, UnfinishedAnswerError
from airflow_provider_completion.api.fields import ApiModel, Count, Money, OptionalId, OptionalSeconds
from airflow_provider_completion.api.storable import without_unstorable

#: How a generation ended. ``complete``; ``stopped``: we asked the server to stop; ``suspect``: a regular end with the
#: marks of one that the server ended itself (contract §4.6, §13), or of text that was paid and did not come.
Finish: TypeAlias = Literal["complete", "stopped", "suspect"]

#: Just below the shortest time limit that servers are known to cut a generation at, 240 s (contract §4.6).
SUSPECT_AFTER_SECONDS = 235.0

#: How many completion tokens an answer without text may have cost. A model says its end in one or two; some name the
#: part that they begin first (``<|channel|>final<|message|><|return|>``). More were text that is not here: thoughts
#: that went on to the limit, or pieces that were lost on the way.
MOST_TOKENS_OF_NO_TEXT = 4

#: The ends that are accepted as an answer unless the user accepts more.
WHOLE: tuple[Finish, ...] = ("complete",)


def checked_accept(accept: Collection[Finish]) -> Collection[Finish]:
    """Return which ends are an answer; asked before a call, since after it a slip would have cost an answer.

    :raises InvalidRequestError: it is no collection of :data:`Finish`, or an empty one
    """
    if (
        isinstance(accept, str)
        or not isinstance(accept, Collection)
        or not accept
        or set(accept) - set(get_args(Finish))
    ):
        raise InvalidRequestError(
            f"accept is no collection of {', '.join(map(repr, get_args(Finish)))}.", hint="Nothing was sent."
        )
    return accept


_SUMMED = (
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_price", "completion_price", "total_price", "latency",
)  # fmt: skip


class Usage(ApiModel):
    """Tokens and prices of one generation (contract §3).

    Counts are 0 and prices None where the server does not tell them; some model providers never report usage. A total
    that it does not tell is that of the tokens in and out.
    Prices are in ``currency``; ``*_price_unit`` is the number of tokens' share that a ``*_unit_price`` is for
    (``0.000001``: per million).
    """

    prompt_tokens: Count = 0
    prompt_unit_price: Money = None
    prompt_price_unit: Money = None
    prompt_price: Money = None
    completion_tokens: Count = 0
    completion_unit_price: Money = None
    completion_price_unit: Money = None
    completion_price: Money = None
    total_tokens: Count = 0
    total_price: Money = None
    currency: OptionalId = None
    #: Seconds of the whole run, measured by the server.
    latency: OptionalSeconds = None
    time_to_first_token: OptionalSeconds = None
    time_to_generate: OptionalSeconds = None

    def model_post_init(self, _: Any) -> None:
        if not self.total_tokens:
            object.__setattr__(self, "total_tokens", self.prompt_tokens + self.completion_tokens)

    @property
    def is_zero(self) -> bool:
        """Whether no token was reported."""
        return not (self.prompt_tokens or self.completion_tokens or self.total_tokens)

    @property
    def has_unit_prices(self) -> bool:
        """Whether the server knows what this model's tokens cost. Prices of 0 are told where usage is not known."""
        return bool(self.prompt_unit_price or self.completion_unit_price)

    @property
    def has_price(self) -> bool:
        """Whether the server knows the price. Of a model without prices it tells 0."""
        return bool(self.total_price) or (self.total_price is not None and self.has_unit_prices)

    @property
    def price_text(self) -> str:
        """The price for people, ``no price`` when the server told none."""
        if self.total_price is None:
            return "no price"
        return f"{self.total_price:f} {self.currency or ''}".rstrip()

    def plus(self, other: Usage | None) -> Usage:
        """Return the usage of two generations together; unit prices and times to first token are the first's."""
        if other is None:
            return self
        if self.currency != other.currency:
            other = other.model_copy(update=dict.fromkeys(("prompt_price", "completion_price", "total_price")))
        summed = {
            name: value if (own := getattr(self, name)) is None else own + value
            for name in _SUMMED
            if (value := getattr(other, name)) is not None
        }
        return self.model_copy(update=summed)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data: ints, and prices as decimal strings in fixed notation."""
        return self.model_dump(mode="json", exclude_none=True)

    def serialize(self) -> dict[str, Any]:
        """Return what Airflow keeps of it in XCom; its own way makes floats of prices."""
        return self.as_json()

    @staticmethod
    def deserialize(data: dict[str, Any], version: int) -> Usage:  # noqa: ARG004 - Airflow's signature
        """Return what Airflow has kept of it."""
        return Usage.model_validate(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One finished generation.

    :param answer: the whole text
    :param message_id: the message, for feedback and speech; None on servers that do not tell it
    :param task_id: the generation
    :param usage: None when the server sent none
    :param metadata: the server's ``metadata`` as it came, retriever resources included
    :param files: files that the model made, as the server describes them; their URLs expire after minutes
    :param replaced: whether the server has put a text of its own in the place of the model's, or of a part of it:
        moderation. Where it refused the inputs, so that the model was not asked, a stream has the marks of it only: no
        usage, and a character an event (contract §4.2). A blocking answer has none
    :param server_version: what the server says of its version
    :param created_at: when the message was made, UTC
    :param finish: see :data:`Finish`; only ``complete`` is an answer, see :meth:`accepted`
    :param seconds_to_first_text: from sending the request; None for a blocking call or an empty answer
    :param seconds: from sending the request to the end
    """

    answer: str = field(repr=False)
    message_id: str | None = None
    task_id: str | None = None
    usage: Usage | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    replaced: bool = False
    server_version: str | None = None
    created_at: datetime | None = None
    finish: Finish = "complete"
    seconds_to_first_text: float | None = None
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """What it cost and took, in one line for people."""
        tokens = "no usage reported"
        if (usage := self.usage) is not None and not usage.is_zero:
            tokens = (
                f"{usage.total_tokens} tokens ({usage.prompt_tokens} in, {usage.completion_tokens} out), "
                f"{usage.price_text}"
            )
        first = self.seconds_to_first_text
        to_first = f"first text after {first:.2f} s, " if first is not None else ""
        replaced = ", replaced by the server" if self.replaced else ""
        server = f", server {self.server_version}" if self.server_version else ""
        return f"{tokens}, {to_first}{self.seconds:.2f} s in all, message_id {self.message_id}{replaced}{server}"

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data, with the fields that are known, and the usage as :meth:`Usage.as_json` gives it."""
        plain: dict[str, Any] = _PLAIN.dump_python(self, mode="json", exclude_none=True)
        return plain

    def serialize(self) -> dict[str, Any]:
        """Return what Airflow keeps of it in XCom: of ``metadata`` and ``files`` what every XCom takes. What else the
        server tells beside a paid answer does not fail its task.
        """
        plain = self.as_json()
        beside = {name: plain.pop(name) for name in ("metadata", "files")}
        return {**plain, **without_unstorable(beside)}

    @staticmethod
    def deserialize(data: dict[str, Any], version: int) -> Completion:  # noqa: ARG004 - Airflow's signature
        """Return what Airflow has kept of it."""
        return _PLAIN.validate_python(data)

    def accepted(self, accept: Collection[Finish] = WHOLE) -> Completion:
        """Return this completion if its ``finish`` is one of ``accept``.

        :raises UnfinishedAnswerError: it is not; the text is the error's ``partial_text``
        """
        if self.finish in accept:
            return self
        what, hint = self._why_refused
        raise UnfinishedAnswerError(
            what,
            hint=hint,
            # What was stopped once can come to its end another time; what hits a limit hits it again.
            retry="delay" if self.finish == "stopped" else "never",
            task_id=self.task_id,
            message_id=self.message_id,
            partial_text=self.answer,
        )

    @property
    def _why_refused(self) -> tuple[str, str]:
        """What is wrong with its end, and what to do about it."""
        if self.finish == "stopped":
            return "The generation was stopped before its end.", ""
        if self.finish == "complete":
            return "The generation was completed.", "It was not accepted."
        accept = 'accept=("complete", "suspect")'
        usage = self.usage
        if usage is not None and not usage.is_zero:
            return (
                f"The answer has no text, and yet it cost {usage.completion_tokens} completion tokens, as when a model "
                "spends all that it may on its thoughts.",
                f"Look at the app's limit of tokens and its log. If an answer may be empty, accept it with {accept}.",
            )
        if usage is not None and usage.has_unit_prices:
            return (
                "The server has ended the generation itself, at its time limit or because somebody else stopped it: it "
                f"reports {usage.prompt_tokens} tokens in and {usage.completion_tokens} out, at unit prices of "
                f"{usage.prompt_unit_price or Decimal():f} and {usage.completion_unit_price or Decimal():f}.",
                "In blocking mode an answer that moderation has replaced looks the same. If all answers of this app "
                f"do, its model never reports usage: accept them with {accept}.",
            )
        return (
            f"The answer came to a regular end after {self.seconds:.0f} s with no usage reported, as it does when the "
            "server cuts it at a time limit.",
            f"If this app's model never reports usage and takes this long, accept it with {accept}.",
        )


_PLAIN = TypeAdapter(Completion)


def finish_of(
    *, stopped: bool, usage: Usage | None, answer: str, replaced: bool, any_file: bool, seconds: float
) -> Finish:
    """Say how a generation ended that the server ended regularly.

    The server gives truncated text a normal end (contract §4.6), and counts its tokens anew with counting switched off:
    none, at the model's real unit prices (contract §13). Zero usage without prices is no proof, since some model
    providers never report any; after a time at which servers cut it is too much of a coincidence.

    The time to the first token, which such an end lacks as well, is no further mark: it comes from the provider, and
    where that does not tell it, whole answers have none either.

    :param replaced: whether the text is moderation's, which ends the generation as well. A blocking answer never says
    :param any_file: whether the model made a file, which can be all there is
    """
    if stopped:
        return "stopped"
    if usage is None or usage.is_zero:
        ended = usage is not None and usage.has_unit_prices and not replaced
        return "suspect" if ended or seconds > SUSPECT_AFTER_SECONDS else "complete"
    nothing = not (_is_said(answer) or any_file or replaced)
    return "suspect" if nothing and usage.completion_tokens > MOST_TOKENS_OF_NO_TEXT else "complete"


def _is_said(answer: str) -> bool:
    """Whether there is anything in an answer but blanks, and thoughts that have no end."""
    text = answer.strip()
    return bool(text) and not (text.startswith("<think>") and "</think>" not in text)
