"""Check the subject of a commit: `area: imperative`, at most 60 characters.

    python -m tests.commit_subject .git/COMMIT_EDITMSG

A commit-msg hook of .pre-commit-config.yaml.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MAX_CHARACTERS = 60

# `git revert` and `git commit --fixup` write these.
_BY_GIT = ("Revert ", "fixup! ", "squash! ", "amend! ")
_AREAS = re.compile(r"[a-z0-9._/*-]+(?:, [a-z0-9._/*-]+)*")
_VERBS = """
accept add admit allow answer ask assert avoid await block bound break bring build bump bundle cache call cancel cap
catch change check choose clarify clean clear close collect combine compare compute convert copy correct count cover
create cut date deal decide declare decode decrease default define delay delete deny depend deprecate describe
detect disable do document draw drop enable encode end ensure estimate exclude exempt expect explain export expose
extend extract fail fall find fit fix fold follow forbid format forget free generate get give group guard handle
have hide hold ignore implement import improve include increase inline install introduce isolate join judge keep
kill label launch lay leave let limit link list listen load lock log look lower make map mark match measure mend
merge mirror move name note notice offer omit open order pack parse pass pin place plan point prefer prepare present
preserve prevent print probe protect prove provide publish pull push put quote raise read record recover reduce
refer refuse register reject release reload remember remove rename reopen reorder repair replace report request
require reserve reset resolve restart restore restrict retry return reuse revert rewrite round route run save say
schedule search send separate serve set shape share ship shorten show simplify size skip sleep sort speak speed
split start state stay step stop store stream strip supervise support suspend swap switch take teach tell test
throttle tidy tighten time translate treat trim try turn type unify unload update upgrade use validate verify wait
wake walk warn watch widen word wrap write yield
"""


def objection(message: str) -> str:
    """Return what is wrong with the subject of a commit message, or an empty string."""
    subject = message.partition("\n")[0].rstrip()
    if subject.startswith(_BY_GIT):
        return ""
    area, colon, text = subject.partition(": ")
    if not colon or not _AREAS.fullmatch(area):
        return "it does not start with an area, like `gateway: …` or `cli, man: …`"
    if len(subject) > MAX_CHARACTERS:
        return f"it has {len(subject)} characters, more than {MAX_CHARACTERS}"
    verb = text.partition(" ")[0].rstrip(",")
    if verb not in _VERBS.split():
        return f"`{verb}` is not in the list of verbs (imperative, lower case) of {Path(__file__).name}"
    if text.endswith("."):
        return "it ends with a full stop"
    return ""


def main(path: str) -> int:
    message = Path(path).read_text("utf-8")
    wrong = objection(message)
    if wrong:
        print(f"commit subject: {wrong}\n  {message.partition(chr(10))[0]}\n→ area: add, fix, move, …", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
