"""One token, one vector or one score: a request whose answer shows that a model is still itself.

After a wake with weights that were not read back vLLM answers 200, and talks garbage.
"""

from engine_http import ask

_WORDS = '"The capital of France is"'
# Path, request and what comes before the telling part of the answer, by the kind of model.
_REQUESTS = {
    # logprobs: where the weights are not numbers, they are not either, and the answer becomes an error
    "generate": (
        "/v1/completions",
        f'"prompt": {_WORDS}, "max_tokens": 1, "temperature": 0, "logprobs": 1',
        b'"text":',
    ),
    "embed": ("/v1/embeddings", f'"input": {_WORDS}', b'"embedding":'),
    "score": ("/score", f'"text_1": {_WORDS}, "text_2": "Paris"', b'"score":'),
    "classify": ("/classify", f'"input": {_WORDS}', b'"probs":'),
}
_TOLERANCE = 0.01  # of the largest number: other kernels, other roundings
_NUMBERS = 16  # of a vector's, which tell as much as all of them


def probe(path: str, model: str, kind: str, *, until: float) -> tuple[str, str]:
    """The telling part of the model's answer, and "" or why there is none."""
    target, asked, marker = _REQUESTS[kind]
    try:
        status, body = ask(path, "POST", target, f'{{"model": "{model}", {asked}}}'.encode(), until=until)
    except OSError as error:
        return "", str(error) or type(error).__name__
    if status != "200":
        return "", f"{target} answered {status}"
    fingerprint = telling_part(body, marker)
    return (
        (fingerprint, "")
        if is_plausible(fingerprint)
        else ("", f"{target} answered nonsense: {fingerprint or body[:80]!r}")
    )


def is_same(fingerprint: str, recorded: str) -> bool:
    """The same token; numbers may be a little off."""
    if fingerprint == recorded:
        return True
    now, before = _numbers(fingerprint), _numbers(recorded)
    largest = max((abs(number) for number in before), default=0.0)
    return len(now) == len(before) > 0 and all(
        abs(one - other) <= _TOLERANCE * largest for one, other in zip(now, before, strict=True)
    )


def telling_part(body: bytes, marker: bytes) -> str:
    """A string with its quotes, a number or the first numbers of a list, as they stand in the JSON."""
    text = body.partition(marker)[2].lstrip().decode("utf-8", "replace")
    if text.startswith("["):
        return ",".join(text[1:].partition("]")[0].split(",")[:_NUMBERS]).replace(" ", "")
    if not text.startswith('"'):
        return text.partition("}")[0].partition(",")[0].rstrip()
    end = 1
    while end < len(text) and text[end] != '"':
        end += 2 if text[end] == "\\" else 1
    return text[: end + 1]


def is_plausible(fingerprint: str) -> bool:
    """A token, be it an empty one, or numbers that are numbers and not all nothing."""
    if fingerprint.startswith('"'):
        return True
    numbers = _numbers(fingerprint)
    return any(numbers) and all(number == number for number in numbers)  # not a number differs from itself


def _numbers(fingerprint: str) -> list[float]:
    """No numbers where one of the words is none."""
    try:
        return [float(word) for word in fingerprint.split(",")]
    except ValueError:
        return []
