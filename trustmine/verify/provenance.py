"""Checks of what made the results: recipes, calibrations, and the recorded calls behind facts."""

import hashlib
import json
import math
import re
from collections.abc import Iterator

from trustmine.db.facts import as_json
from trustmine.verify.base import Finding, Look

_HASH = re.compile(r"[0-9a-f]{64}")
_TOLERANCE = 1e-3  # of the sum of label probabilities


def recipes(look: Look) -> Iterator[Finding]:
    """A recipe has the hash of its content and is of the stage and model in it; steps name one of their stage."""
    for recipe_id, stage, digest, content, model in look.rows(
        """SELECT recipes.id, stage, hash, content, sha256 FROM recipes LEFT JOIN models ON models.id = model_id"""
    ):
        if hashlib.sha256(content.encode()).hexdigest() != digest:
            what = "its content has another hash"
        elif (read := json.loads(content)).get("stage", stage) != stage:
            what = f"its content is of {read['stage']}"
        elif model is not None and read.get("model", model) != model:
            what = "its content names another model"
        else:
            continue
        drop = (("DELETE FROM recipes WHERE id = ?1 AND ?1 NOT IN (SELECT recipe_id FROM steps)", (recipe_id,)),)
        yield Finding(None, f"recipe {recipe_id} of {stage}: {what}", mend=drop)
        for (commit_id,) in look.rows("SELECT commit_id FROM steps WHERE recipe_id = ?", (recipe_id,)):
            yield Finding(commit_id, f"{stage} was decided by the damaged recipe {recipe_id}", back=stage)
    for commit_id, stage, other in look.rows(
        """SELECT commit_id, steps.stage, recipes.stage FROM steps JOIN recipes ON recipes.id = recipe_id
           WHERE steps.stage <> recipes.stage"""
    ):
        yield Finding(commit_id, f"{stage} was decided by a recipe of {other}", back=stage)


def calibrations(look: Look) -> Iterator[Finding]:
    """A calibration has the hash of its numbers."""
    for number, digest, values in _calibrations(look):
        if hashlib.sha256(as_json(values).encode()).hexdigest() == digest:
            continue
        unused = "SELECT 1 FROM verdicts WHERE calibration_id = ?1"
        drop = ((f"DELETE FROM calibrations WHERE id = ?1 AND NOT EXISTS ({unused})", (number,)),)
        yield Finding(None, f"calibration {number}: its numbers have another hash", mend=drop)
        for (commit_id,) in look.rows("SELECT commit_id FROM verdicts WHERE calibration_id = ?", (number,)):
            yield Finding(commit_id, f"judged by the damaged calibration {number}", back="s0_3")


def _calibrations(look: Look) -> Iterator[tuple[int, str, dict[str, object]]]:
    names = ("model", "prompt", "method", "offset", "scale", "undecided_cutoff", "n_rows")
    for number, digest, *values in look.rows(
        """SELECT calibrations.id, hash, sha256, prompt_hash, method, "offset", scale, undecided_cutoff, n_rows
           FROM calibrations JOIN models ON models.id = model_id"""
    ):
        yield number, digest, dict(zip(names, values, strict=True))


def calls(look: Look) -> Iterator[Finding]:
    """A recorded call has hashes, and probabilities of labels that sum to one where labels were asked for."""
    for commit_id, stage, request, prompt, rendered, finish, logprobs in look.rows(
        """SELECT commit_id, stage, request_hash, prompt_hash, rendered_hash, finish_reason, label_logprobs
           FROM llm_calls"""
    ):
        if not all(_HASH.fullmatch(digest) for digest in (request, prompt, rendered)):
            what = "a hash is none"
        elif (finish == "label") != (logprobs is not None):
            what = f"it ended as {finish}, " + ("with" if logprobs else "without") + " label probabilities"
        elif logprobs is not None and not _sums_to_one(logprobs):
            what = "the label probabilities do not sum to one"
        else:
            continue
        drop = ("DELETE FROM llm_calls WHERE commit_id = ? AND stage = ? AND request_hash = ?",
                (commit_id, stage, request))  # fmt: skip
        yield Finding(commit_id, f"call {request[:12]} of {stage}: {what}", back=stage, mend=(drop,))


def _sums_to_one(logprobs: str) -> bool:
    values = json.loads(logprobs)
    if not isinstance(values, dict) or not all(isinstance(value, int | float) for value in values.values()):
        return False
    return abs(math.fsum(math.exp(min(value, 1.0)) for value in values.values()) - 1) < _TOLERANCE


def _calls_of(look: Look, stage: str, table: str, where: str = "1") -> Iterator[Finding]:
    """Facts that name a request: it was recorded, asked of the model and with a prompt of the row's recipe."""
    for commit_id, request in look.rows(
        f"""SELECT DISTINCT f.commit_id, f.request_hash FROM {table} AS f
            JOIN steps AS t ON t.commit_id = f.commit_id AND t.stage = '{stage}'
            JOIN recipes AS r ON r.id = t.recipe_id
            WHERE {where} AND NOT EXISTS (
                SELECT 1 FROM llm_calls AS l
                WHERE l.commit_id = f.commit_id AND l.stage = '{stage}' AND l.request_hash = f.request_hash
                      AND l.model_id IS r.model_id
                      AND l.prompt_hash IN (SELECT value FROM json_each(r.content, '$.prompts')))"""
    ):
        what = f"{table}: no call {(request or 'NULL')[:12]} of {stage} by its recipe's model and prompt"
        yield Finding(commit_id, what, back=stage)


def verdict_calls(look: Look) -> Iterator[Finding]:
    """The answer behind each verdict of a model was recorded."""
    return _calls_of(look, "s0_3", "verdicts", "f.source = 'model'")


def mask_calls(look: Look) -> Iterator[Finding]:
    """The answer behind each mask was recorded."""
    return _calls_of(look, "s1_2", "masked_functions", "(f.request_hash IS NOT NULL OR r.model_id IS NOT NULL)")


def element_calls(look: Look) -> Iterator[Finding]:
    """The list of elements that the model gave was recorded."""
    for (commit_id,) in look.rows(
        """SELECT f.commit_id FROM element_counts AS f
           JOIN steps AS t ON t.commit_id = f.commit_id AND t.stage = 's2_1' JOIN recipes AS r ON r.id = t.recipe_id
           WHERE r.model_id IS NOT NULL AND NOT EXISTS (
               SELECT 1 FROM llm_calls AS l WHERE l.commit_id = f.commit_id AND l.stage = 's2_1'
                   AND l.model_id IS r.model_id
                   AND l.prompt_hash = json_extract(r.content, '$.prompts.s2_1_elements'))"""
    ):
        yield Finding(commit_id, "elements: no list by its recipe's model and prompt was recorded", back="s2_1")


def segment_calls(look: Look) -> Iterator[Finding]:
    """The answer behind each segment was recorded."""
    return _calls_of(look, "s3_1", "segments")


def explanation_calls(look: Look) -> Iterator[Finding]:
    """The answer behind each explanation was recorded."""
    return _calls_of(look, "s3_2", "explanations")
