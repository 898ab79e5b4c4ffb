"""kto: JSON Lines for TRL's KTOTrainer: prompt and completion as conversations, and whether it is a good one."""

from collections.abc import Iterator

from trustmine.export.files import JsonLines
from trustmine.export.messages import TURNS
from trustmine.export.preferences import Preference, answer

NAME, SOURCE = "kto", "preferences"
COLUMNS = {
    "prompt": "one turn of the `user`: instruction, empty line, input",
    "completion": "one turn of the `assistant`",
    "label": "true for the better answer, false for the worse one",
}
TYPES = {"prompt": TURNS, "completion": TURNS, "label": {"dtype": "bool"}}
open_file = JsonLines


def place(preference: Preference) -> str:
    return f"{preference.split}.jsonl"


def rows(preference: Preference) -> Iterator[dict[str, object]]:
    source = preference.example.provenance()
    for text, label in ((preference.example.output, True), (preference.worse, False)):
        if text is not None:
            key = f"{source['id']}/{'good' if label else 'bad'}"
            yield {"prompt": preference.prompt, "completion": answer(text), "label": label, **source, "id": key}
