"""Text of strangers for servers that look for control tokens in whole prompts.

vLLM and llama-server render the chat template themselves and tokenise the
result with control tokens parsed, so `<|im_end|>` in a commit would end the
turn. What spells a control token of a known family of models is taken apart
by one space, which keeps the text readable and which no tokenizer's clean-up
puts together again (zero-width characters are removed by some):

- `<|` and `|>` wherever they stand (Llama 3, ChatML, Phi, GLM, gpt-oss,
  StarCoder, Gemma 4, DeepSeek with its wide bars): `< |im_end| >`
- `<name>` and `</name>` of a list (Gemma, Mistral, Llama 2, Qwen, SmolLM2,
  fill-in-the-middle and media marks): `< end_of_turn>`
- `[NAME]` and `[/NAME]` of a list (Mistral, GLM): `[ INST]`

All else stays as it is: C has `<stdio.h>` and `[SIZE]` everywhere.
"""

import re

VERSION = 1  # raise when the same text would become another

_ANGLED = r"""s|bos|eos|pad|unk|mask|sop|eop|eot|cls|sep|start_of_turn|end_of_turn|think|tools|tool_call|tool_response|
    tool_code|SYS|repo_name|reponame|file_sep|filename|gh_stars|issue_start|issue_comment|issue_closed|jupyter_start|
    jupyter_text|jupyter_code|jupyter_output|jupyter_script|empty_output|commit_before|commit_msg|commit_after|
    fim_prefix|fim_middle|fim_suffix|fim_pad|endoftext|image|audio|video|__media__|start_of_image|end_of_image|
    img_start|img_end|unused\d+|extra_id_\d+|0x[0-9A-F]{2}"""
_SQUARE = r"""INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_CONTENT|TOOL_RESULTS|ARGS|CALL_ID|THINK|IMG|IMG_BREAK|
    IMG_END|PREFIX|MIDDLE|SUFFIX|AUDIO|BEGIN_AUDIO|TRANSCRIBE|MODEL_SETTINGS|gMASK|sMASK|MASK|BOS|EOS|PAD|CLS|SEP|
    UNK|control_\d+|UNUSED\w*"""

# What comes before the space to be put in; what it is followed by is looked at, not taken.
_PLACES = re.compile(rf"<(?=[|｜]) | [|｜](?=>) | <(?=/?(?:{_ANGLED})>) | \[(?=/?(?:{_SQUARE})\])", re.VERBOSE)


def inert(text: str) -> str:
    """The text with every known spelling of a control token taken apart, in valid Unicode; twice is like once."""
    return _PLACES.sub(lambda found: found[0] + " ", text.encode("utf-8", "replace").decode("utf-8"))
