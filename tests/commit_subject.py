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
_AREAS = re.compile(r"[\w./*-]+(?:, [\w./*-]+)*")
_VERBS = """
accept adapt add admit adopt allow answer apply arrange ask assert assign attach avoid await begin block bound break
bring build bump bundle cache call cancel cap catch change check choose clarify clean clear clone close collect
combine commit compare compute connect consolidate construct continue control convert copy correct count cover create
cut date deal debug decide declare decode decrease deduplicate default define delay delete demote deny depend
deprecate derive describe detach detect disable discard dispatch distinguish divide do document drain draw drop edit
emit enable encode end enforce ensure estimate exclude exempt exit expect explain export expose extend extract factor
fail fall filter find finish fit fix flatten flush fold follow forbid forget format forward free gather generate get
give grant group guard handle hash have hide hint hold ignore implement import improve include increase inject inline
inspect install introduce invoke isolate join judge keep kill label launch lay learn leave let lift limit link list
listen load lock log look loosen lower maintain make map mark match measure mend merge mirror mock monitor move name
narrow nest normalize note notice observe offer omit open optimize order outline own pack parse pass patch pause
persist pick pin place plan point poll port postpone prefer prefix prepare present preserve prevent print probe
promote propagate protect prove provide prune publish pull push put quote raise rank read rebuild receive recommend
reconnect record recover redirect reduce refer reference reflect refresh refuse regenerate register reject relax
release reload rely remember remove rename render reopen reorder repair repeat replace reply report reproduce request
require reserve reset resolve restart restore restrict retire retry return reuse revert reword rework rewrite round
route run sanitize save say scan schedule score seal search select send separate serve set settle shape share sharpen
shift ship shorten show signal silence simplify size skip sleep slow snapshot sort speak speed spell split stabilize
stage standardize start state stay step stop store stream strip stub substitute suggest summarize supervise support
suspend swap switch sync take target teach tell test throttle tidy tighten time trace track transfer translate treat
trim trust try turn type unblock undo unify unload unpin unwrap update upgrade use validate vary vendor verify wait
wake walk warn watch widen word wrap write yield zero
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
