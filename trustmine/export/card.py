"""README.md of an export: the dataset card, with the front matter that Hugging Face reads."""

import html
import json
from types import ModuleType
from typing import Any

from trustmine import cwe, samples
from trustmine.export.manifest import FILE_NAME, Manifest
from trustmine.export.rows import OF_CODE

CARD_NAME = "README.md"

_PROVENANCE = {
    "id": "`repo/commit/task/number`, unique",
    "task": "locate, locate_explain, infill, refine, calibrate, abstain, or benign: asked like locate, of a function "
    "that has lived long unchanged, in which no vulnerability is known",
    "split": "the side it is on",
    "repo": "the repository",
    "commit": "full SHA of the commit that the example was made from; of benign: that made the function what it is",
    "date": "of the commit, UTC; null if it is beyond the calendar",
    "path": "file after the fix",
    "function": "name of the changed function",
    "cve": "CVE identifiers, from the message and from lists of known fixes",
    "cwe": "CWE identifiers, of the first source that names any",
    "cwe_source": "`label` (a list of known fixes), else `message`, else `model`",
    "cwe_by_model": "CWE identifiers that the model named",
    "licence": "SPDX expression of the file's licence at the commit, or `unknown`",
    "label_source": "who says it is a fix: `model`, or a list of known fixes",
    "made_by": f"key in `{FILE_NAME}`: the recipe (code version, settings, prompts, model) of every stage",
    "requests": "`stage:request_hash` of the model's answers behind the example; `llm_calls` of the database has them",
    "meta": "JSON text with the facts behind the answer: spans, confidence, reason, ...",
}
_ABOUT = {
    "instructions": "turned into instructions to locate, explain and mend it, to judge a change, and to decline where "
    "nothing can be known",
    "preferences": "turned into questions with better and worse answers: to locate and mend it, to judge a change, and "
    "to decline where nothing can be known",
    "gaps": "as functions with a gap to fill: TRUST-Bench",
    "functions": "as the one function that each of them changes, before (vulnerable) and after (not), and functions in "
    "which no vulnerability is known because they have lived long unchanged while their files were worked on",
    "pairs": "as the one function that each of them changes, before and after",
}
_SIDES = {
    None: "`bench`: commits from the cutoff date on that have a CVE; `train`: everything before.",
    "date": "`bench`: commits from the cutoff date on that have a CVE. Of everything before, the oldest 80 % of the "
    "commits are `train`, then 10 % `val` and 10 % `test`.",
    "project": "`bench`: commits from the cutoff date on that have a CVE. Of everything before, each repository is "
    "whole in `train`, `val` or `test`, in shares near 80, 10 and 10 %.",
}
_BENIGN_SIDES = (
    " A benign function is on the side of the date of the commit that made it what it is: in `bench` from the "
    "cutoff date on, for which it needs no CVE."
)
_DROPPED = {
    "copy_of_an_earlier_commit": "cherry-picks and copies on other branches: the same patch (`git patch-id --stable`), "
    "or the same function before and after",
    "function_labelled_both_ways": "the fixed function is what another commit fixes",
    "function_in_another_split": "shares a function with bench, test or val, which keep theirs in this order",
    "cve_in_another_split": "shares a CVE with them",
    "versions_too_different": "pairs whose versions have too little in common to be compared character by character",
    "holds_mask": "functions that hold something like a mask already",
    "mask_whole_function": "fixes that leave nothing of the function around them",
}


def card(manifest: Manifest, form: ModuleType, has_pictures: bool) -> str:
    """The text of README.md."""
    kinds = sorted({kind for counts in manifest.counts.values() for kind in counts})
    splits = list(manifest.counts)
    columns = _columns(form)
    lines = [
        *_front_matter(manifest, form),
        "# Vulnerabilities and their fixes from git histories",
        "",
        f"Written by trustmine {manifest.trustmine} from {_many(len(manifest.repos), 'repository', 'repositories')}, "
        f"format `{manifest.format}`: commits of C and C++ projects that fix a vulnerability, {_ABOUT[form.SOURCE]}. "
        "The answers rest on code and on what a language model or a list of known fixes said about it; nobody has "
        "checked them one by one. The next export into this folder replaces all its files.",
        "",
        "## Counts",
        "",
        f"| {'CWE' if form.SOURCE in OF_CODE else 'task'} | {' | '.join(splits)} |",
        f"|---|{'---:|' * len(splits)}",
        *(f"| {_kind(kind)} | {' | '.join(str(manifest.counts[s].get(kind, 0)) for s in splits)} |" for kind in kinds),
        f"| all | {' | '.join(str(sum(manifest.counts[s].values())) for s in splits)} |",
        *(
            f"| of these {name} | {' | '.join(str(by_split.get(s, 0)) for s in splits)} |"
            for name, by_split in manifest.stats.get("target", {}).items()
        ),
        "",
        "## Splits",
        "",
        _SIDES[manifest.split_by]
        + (_BENIGN_SIDES if "benign" in kinds else "")
        + " No commit, no function (white space and comments aside) and no CVE is on two "
        "sides.",
        "",
        "Left out:",
        "",
        "| n | why | |",
        "|---:|---|---|",
        *(f"| {n} | {reason} | {_DROPPED[reason]} |" for reason, n in manifest.dropped.items()),
        "",
        *_leakage(manifest),
        "## Loading",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'data = load_dataset("path/of/this/folder")',
        "```",
        "",
        "## Columns",
        "",
        "| column | holds |",
        "|---|---|",
        *(f"| {name} | {holds} |" for name, holds in columns.items()),
        "",
        "Text is empty where nothing is known. Outside of Parquet, several identifiers in one text are separated by a "
        "space.",
        "",
        *_pictures(manifest, has_pictures),
        *_made_by(manifest),
        "## Files",
        "",
        f"`{FILE_NAME}` says the same for programs, has every recipe and the revisions of the "
        "repositories, and lists the files without rows, too.",
        "",
        "| file | rows | bytes | SHA-256 |",
        "|---|---:|---:|---|",
        *(f"| {name} | {f.n_rows} | {f.size_bytes} | `{f.sha256}` |" for name, f in manifest.files.items() if f.n_rows),
        "",
        "## Licences",
        "",
        manifest.note
        + " What a file says of itself (`SPDX-License-Identifier`) comes first, then the licence file at the "
        "top of the repository, or what its README holds or names, all as of the commit; `unknown` means that none of "
        "them could be understood.",
        "",
        "| repository | licence | commits |",
        "|---|---|---:|",
        *(
            f"| {_cell(repo)} | {_cell(spdx)} | {n} |"
            for repo, by_licence in manifest.licences.items()
            for spdx, n in by_licence.items()
        ),
        "",
    ]
    return "\n".join(lines)


# Pictures, by what they count, with their titles.
PLOTS = {
    "target": "Rows by label",
    "cwe": "Rows by CWE",
    "year": "Rows by year of the commit",
    "project": "Rows by repository",
    "length": "Rows by length: up to so many characters",
}


def _pictures(manifest: Manifest, has_pictures: bool) -> list[str]:
    if not has_pictures:
        return []
    return ["## Pictures", "", *(f"![{PLOTS[what]}](plots/{what}.png)" for what in manifest.stats), ""]


def _made_by(manifest: Manifest) -> list[str]:
    """Funnel, stages with their settings and prompts, models, packages."""
    recipes = sorted(manifest.recipes.items(), key=lambda one: (one[1]["stage"], one[0]))
    return [
        "## Funnel",
        "",
        "Commits of the database, stage by stage.",
        "",
        "| stage | passed | pending | failed | rejected |",
        "|---|---:|---:|---:|---|",
        *(
            f"| {stage} | {n['passed']} | {n['pending']} | {n['failed']} | "
            + ", ".join(f"{count} {reason}" for reason, count in n["rejected"].items())
            + " |"
            for stage, n in manifest.funnel.items()
        ),
        "",
        "## What made it",
        "",
        "| stage | version | model | settings | prompts |",
        "|---|---:|---|---|---|",
        *(
            f"| {recipe['stage']} | {recipe['content'].get('version', '')} | {_model(manifest, recipe)} | "
            f"{_settings(recipe['content'].get('settings', {}))} | {_prompts(recipe['content'].get('prompts', {}))} |"
            for _, recipe in recipes
        ),
        "",
        *(f"Sampling at {stage}: `{json.dumps(one)}`" for stage, used in manifest.sampling.items() for one in used),
        "",
        "Packages: " + ", ".join(f"{name} {version}" for name, version in manifest.packages.items()) + ".",
        "",
    ]


def _model(manifest: Manifest, recipe: dict[str, Any]) -> str:
    model = manifest.models.get(recipe["model"])
    return "" if model is None else f"{_cell(str(model['name']))} (`{recipe['model'][:12]}`, {_cell(model['engine'])})"


def _settings(settings: dict[str, Any]) -> str:
    """Each with its value; of long lists the number of words."""
    shown = {
        name: f"({len(value)} words)" if isinstance(value, list) and len(value) > 8 else json.dumps(value)
        for name, value in sorted(settings.items())
    }
    return "<br>".join(f"{name} = {_cell(value)}" for name, value in shown.items())


def _prompts(prompts: dict[str, str]) -> str:
    return "<br>".join(f"{name} `{hash[:12]}`" for name, hash in sorted(prompts.items()))


def _kind(kind: str) -> str:
    """A task, or a weakness with its name."""
    name = cwe.name(cwe.read(kind) or "")
    return kind if name is None else f"{cwe.read(kind)} {name}"


def _cell(text: str) -> str:
    """Text of strangers in a table."""
    return html.escape(samples.one_line(text), quote=False).replace("|", "\\|")


_LEAKS = {
    "commit": "commits",
    "cve": "CVEs",
    "function": "functions, character by character",
    "function_normalised": "functions, white space and comments aside",
    "near_copy": "functions that are nearly the same",
}


def _leakage(manifest: Manifest) -> list[str]:
    """What the sides have in common."""
    found = manifest.leakage
    if len(found["functions"]) < 2:
        return []
    return [
        "What `trustmine leakage` finds in two splits at once:",
        "",
        "| n | what |",
        "|---:|---|",
        *(f"| {n} | {_LEAKS[kind]} |" for kind, n in found["counts"].items()),
        "",
        f"Nearly the same: at least {found['threshold']} of the runs of five tokens that either has are in both. These "
        "are mostly one function that was fixed more than once.",
        "",
    ]


def _front_matter(manifest: Manifest, form: ModuleType) -> list[str]:
    """YAML. Strings are written as JSON, which is YAML."""
    n_rows = sum(file.n_rows for file in manifest.files.values())
    files: dict[str, list[str]] = {}
    for name, file in manifest.files.items():
        if file.n_rows:
            files.setdefault(file.split, []).append(name)
    return [
        "---",
        "pretty_name: Vulnerabilities and their fixes from git histories",
        "license: other",
        "task_categories:",
        f"- {'text-classification' if form.NAME == 'detection' else 'text-generation'}",
        "tags:",
        *(f"- {tag}" for tag in ("code", "security", "vulnerability", "c", "cpp", "trustmine")),
        "size_categories:",
        f"- {_size(n_rows)}",
        *_features(form),
        "configs:",
        "- config_name: default",
        "  data_files:",
        *(
            line
            for split, names in files.items()
            for line in (f"  - split: {'validation' if split == 'val' else split}", f"    path: {json.dumps(names)}")
        ),
        "---",
        "",
    ]


def _features(form: ModuleType) -> list[str]:
    """The types of the columns, where the format says them."""
    if not hasattr(form, "TYPES"):
        return []
    # Readers of JSON take the text of a date for a time; said to be text, it would end in 00:00:00.
    types = {"date": {"dtype": "date32"}, **form.TYPES}
    typed = [{"name": name, **types.get(name, {"dtype": "string"})} for name in _columns(form)]
    return ["dataset_info:", "  features:", *(f"  - {json.dumps(one)}" for one in typed)]


def _columns(form: ModuleType) -> dict[str, str]:
    """All of them, in their order, with what they hold."""
    return {**form.COLUMNS, **({} if form.SOURCE in OF_CODE else _PROVENANCE)}


def _size(n_rows: int) -> str:
    """Hugging Face's size categories."""
    bounds = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
    return next((name for bound, name in bounds if n_rows < bound), "1M<n<10M")


def _many(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"
