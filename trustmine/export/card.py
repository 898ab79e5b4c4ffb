"""README.md of an export: the dataset card."""

from trustmine.export.manifest import FILE_NAME, Manifest

CARD_NAME = "README.md"

_COLUMNS = {
    "alpaca": {
        "instruction": "what to do",
        "input": "what is given: code, context, an explanation",
        "output": "what the model shall answer",
    },
    "messages": {"messages": "a chat of two turns: `user` (instruction, empty line, input) and `assistant` (output)"},
}
_PROVENANCE = {
    "id": "`repo/commit/task/number`, unique",
    "task": "locate, locate_explain, infill, refine, calibrate, abstain, or benign: asked like locate, of a function "
    "that has lived long unchanged, in which no vulnerability is known",
    "split": "`bench`: commits from the cutoff date on that have a CVE; `train`: everything before",
    "repo": "the repository",
    "commit": "full SHA of the commit that the example was made from; of benign: that made the function what it is",
    "path": "file after the fix",
    "function": "name of the changed function",
    "cve": "CVE identifiers separated by a space, from the message and from lists of known fixes",
    "cwe": "CWE identifiers, likewise",
    "cwe_by_model": "CWE identifiers that the model named",
    "label_source": "who says it is a fix: `model`, or a list of known fixes",
    "made_by": f"key in `{FILE_NAME}`: the recipe (code version, settings, prompts, model) of every stage",
    "requests": "`stage:request_hash` of the model's answers behind the example; `llm_calls` of the database has them",
    "meta": "JSON text with the facts behind the answer: spans, confidence, reason, ...",
}


def card(manifest: Manifest) -> str:
    """The text of README.md."""
    tasks = sorted({task for counts in manifest.counts.values() for task in counts})
    splits = list(manifest.counts)
    columns = {**_COLUMNS[manifest.format], **_PROVENANCE}
    data_files = ", ".join(f'"{file.split}": "{name}"' for name, file in manifest.files.items())
    lines = [
        "# Vulnerability instructions from git histories",
        "",
        f"Written by trustmine {manifest.trustmine} from {_many(len(manifest.repos), 'repository', 'repositories')}: "
        "commits of C and C++ projects that fix a vulnerability, turned into instructions to locate, explain and "
        "mend it, to judge a change, and to decline where nothing can be known. The answers rest on code and on what a "
        "language model said about it; nobody has checked them one by one. The next export into this folder replaces "
        "all its files.",
        "",
        "## Counts",
        "",
        f"| task | {' | '.join(splits)} |",
        f"|---|{'---:|' * len(splits)}",
        *(f"| {task} | {' | '.join(str(manifest.counts[s].get(task, 0)) for s in splits)} |" for task in tasks),
        "",
        "## Loading",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'data = load_dataset("json", data_files={{{data_files}}})',
        "```",
        "",
        "## Columns",
        "",
        "| column | holds |",
        "|---|---|",
        *(f"| {name} | {holds} |" for name, holds in columns.items()),
        "",
        "Every column but `messages` is a string, empty where nothing is known.",
        "",
        "## Origin",
        "",
        f"`{FILE_NAME}` has SHA-256 and size of each file, the repositories with the revisions that were read, and the "
        "recipes, models and prompts that made the rows.",
        "",
        "## Licence",
        "",
        manifest.note,
        "",
    ]
    return "\n".join(lines)


def _many(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"
