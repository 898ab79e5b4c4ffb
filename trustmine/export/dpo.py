"""dpo: JSON Lines for TRL's DPOTrainer: prompt, chosen and rejected as conversations."""

from collections.abc import Iterator

from trustmine.export.files import JsonLines
from trustmine.export.messages import TURNS
from trustmine.export.preferences import Preference, answer

NAME, SOURCE = "dpo", "preferences"
COLUMNS = {
    "prompt": "one turn of the `user`: instruction, empty line, input",
    "chosen": "one turn of the `assistant`: the better answer",
    "rejected": "one turn of the `assistant`: the worse answer",
}
TYPES = dict.fromkeys(COLUMNS, TURNS)
open_file = JsonLines


def place(preference: Preference) -> str:
    return f"{preference.split}.jsonl"


def rows(preference: Preference) -> Iterator[dict[str, object]]:
    if preference.worse is not None:
        yield {
            "prompt": preference.prompt,
            "chosen": answer(preference.example.output),
            "rejected": answer(preference.worse),
            **preference.example.provenance(),
        }
