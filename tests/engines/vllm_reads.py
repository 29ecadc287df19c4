"""Let vLLM's parser read the command lines of stdin, on vLLM's own Python, and print the results.

    python -I vllm_reads.py < commands.json      # [["model", "--uds", "x"], …]

`refusals` has null for each command, or why it is refused; `tool_parsers` and `reasoning_parsers` are the names that
vLLM knows. Nothing is served.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys


def main() -> None:
    from vllm.entrypoints.cli.serve import cmd_init
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    root = FlexibleArgumentParser()
    serve = cmd_init()[0]
    serve.subparser_init(root.add_subparsers(required=True, dest="subparser"))

    def why_refused(command: list[str]) -> str | None:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                serve.validate(root.parse_args(["serve", *command]))
        except (SystemExit, TypeError, ValueError) as error:
            return said.getvalue().strip() or repr(error)
        return None

    with contextlib.redirect_stdout(sys.stderr):  # it logs to stdout
        refusals = [why_refused(command) for command in json.load(sys.stdin)]
    parsers = {
        "tool_parsers": ToolParserManager.list_registered(),
        "reasoning_parsers": ReasoningParserManager.list_registered(),
    }
    print(json.dumps({"refusals": refusals} | parsers))


if __name__ == "__main__":
    main()
