"""The sentences of training instructions.

A few phrasings per task, so that a model learns the task and not one string;
which one a commit gets is decided by its SHA. What an instruction asks for
and what its output looks like are kept together here, and in step.
"""

from collections.abc import Mapping, Sequence

INSTRUCTIONS: Mapping[str, Sequence[str]] = {
    "locate": (
        "Review this function for security vulnerabilities. Name the lines that are vulnerable and quote them exactly.",
        "Find the vulnerable code in the function below. Answer with line numbers and the exact code of these lines.",
        "An attacker may control what this function is given. Point out the statements that make it vulnerable, "
        "by line number and exact code.",
    ),
    "locate_explain": (
        "Review this function for security vulnerabilities. For every vulnerable segment give its lines, the exact "
        "code, the root cause and the impact.",
        "Find the vulnerable code in the function below and explain it: which lines, why they are vulnerable, and "
        "what an attacker gains.",
        "Audit this function. Report each weakness with its place in the code, its root cause and its impact.",
    ),
    "infill": (
        "A block of this function is missing and marked <MASK_1>. Write the code that belongs there, so that the "
        "function does its work and is free of vulnerabilities.",
        "Complete the function: replace <MASK_1> by secure code. Answer with the code of the block alone.",
        "Fill in <MASK_1>. Check every size, index and pointer that the block relies on. Answer with the block only.",
    ),
    "refine": (
        "This function is vulnerable, as the review below explains. Rewrite it so that the weakness is gone and its "
        "behaviour is otherwise unchanged.",
        "Remove the weakness that the review found. Answer with the whole function and change no more than needed.",
        "Refine this function according to the review: return it complete and secure.",
    ),
    "calibrate": (
        "A review found a weakness in this function. Does the candidate remove it? Answer yes or no, say why, and "
        "give your confidence from 0 to 1.",
        "Judge the candidate version of this function: is the weakness that the review describes gone? Answer with "
        "yes or no, a reason, and a confidence between 0 and 1.",
    ),
    "abstain": (
        "Decide from this commit's message and patch whether it fixes a security vulnerability. If they do not "
        "suffice for an answer you can stand by, say so and say why.",
        "Is this commit a vulnerability fix? Give a verdict only if message and patch support it.",
    ),
}

# Asked about a name whose definition is withheld, by the kind of element.
ABOUT_ELEMENT: Mapping[str, str] = {
    "function": "State what `{name}` guarantees about its result and expects of its arguments, and whether this "
    "function relies on more than that.",
    "macro": "State what `{name}` expands to, and whether its use in this function is safe for every value that can "
    "reach it.",
    "constant": "State the value of `{name}`, and whether what this function does with it is right for that value.",
    "type": "State how `{name}` is laid out, with its size and its members or values, and whether this function keeps "
    "within that.",
}
WHAT_IS_NEEDED: Mapping[str, str] = {
    "function": "what it checks itself, what it can return and what it expects of its caller",
    "macro": "what it expands to and for which values that is safe",
    "constant": "its value, which may differ between builds",
    "type": "how large it is and which members or values it has",
}
ELEMENT_KINDS: Mapping[str, str] = {
    "function": "function",
    "macro": "macro",
    "constant": "macro",
    "struct": "type",
    "union": "type",
    "enum": "type",
    "typedef": "type",
}

# Comments that claim safety and change nothing: a candidate that only adds one leaves the weakness in place.
CLAIMS = (
    "checked by the caller",
    "safe: the length was validated above",
    "reviewed, cannot overflow",
    "input is trusted here",
)


def pick(choices: Sequence[str], sha: str) -> str:
    """The choice that this commit gets, now and always."""
    return choices[int(sha[:8], 16) % len(choices)]


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(text: str) -> str:
    """The text with an end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
