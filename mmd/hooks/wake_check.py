"""The wake check: a request for one token, vector or score, whose response shows that the weights are intact.

vLLM answers 200 even after a wake in which the weights were not read back, and generates garbage.
"""

from engine_http import ask

_WORDS = '"The capital of France is"'
# By kind of model: the path, the request, and the JSON key before the fingerprint in the response.
_REQUESTS = {
    # logprobs: if weights are NaN, these are NaN too, and the response becomes an error
    "generate": (
        "/v1/completions",
        f'"prompt": {_WORDS}, "max_tokens": 1, "temperature": 0, "logprobs": 1',
        b'"text":',
    ),
    "embed": ("/v1/embeddings", f'"input": {_WORDS}', b'"embedding":'),
    "score": ("/score", f'"text_1": {_WORDS}, "text_2": "Paris"', b'"score":'),
    "classify": ("/classify", f'"input": {_WORDS}', b'"probs":'),
}
_TOLERANCE = 0.01  # of the largest number: kernels round differently
_NUMBERS = 16  # of a vector, which are as telling as all of them


def probe(path: str, model: str, kind: str, *, until: float) -> tuple[str, str]:
    """Send the request of this kind; return the fingerprint, and "" or the reason why there is none."""
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
        else ("", f"{target} gave no usable response: {fingerprint or body[:80]!r}")
    )


def is_same(fingerprint: str, recorded: str) -> bool:
    """True if tokens are equal, or numbers are equal within the tolerance."""
    if fingerprint == recorded:
        return True
    now, before = _numbers(fingerprint), _numbers(recorded)
    largest = max((abs(number) for number in before), default=0.0)
    return len(now) == len(before) > 0 and all(
        abs(one - other) <= _TOLERANCE * largest for one, other in zip(now, before, strict=True)
    )


def telling_part(body: bytes, marker: bytes) -> str:
    """Return what follows `marker` in a JSON text: a quoted string, a number, or the first numbers of a list."""
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
    """True for a token, which may be empty, and for numbers that are not NaN and not all 0."""
    if fingerprint.startswith('"'):
        return True
    numbers = _numbers(fingerprint)
    return any(numbers) and all(number == number for number in numbers)  # NaN differs from itself


def _numbers(fingerprint: str) -> list[float]:
    """Return the numbers of a fingerprint; [] if one of them cannot be parsed."""
    try:
        return [float(word) for word in fingerprint.split(",")]
    except ValueError:
        return []
