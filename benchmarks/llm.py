"""Rows per second of the local engine, beside a plain loop and llama.cpp's own server, on a project's own commits.

    python benchmarks/llm.py REPO                   # 200 verdicts and 50 explanations; hours on two cores
    python benchmarks/llm.py REPO --verdicts 24 --explanations 8 --rounds 1 --model llama-3-8b.Q4_K_M.gguf

(a) plain: a loop over `Llama.create_chat_completion` of llama-cpp-python
(b) server: llama.cpp's server (package xllamacpp) with parallel slots and its prompt cache, as many requests in
    flight as it has slots
(c) trustmine: the engine of this checkout as `trustmine run` uses it

Same GGUF file, same threads, same prompts, one run; engines take turns and each is a process of its own. Time is from
the first request to the last answer, loading aside. Three kinds of answer are asked for:

verdict    one pass: the probabilities of the labels (a and b: one token with its most likely alternatives)
rationale  the verdict, then a reason of up to 48 tokens (a and b: one answer, its beginning held by a grammar)
explain    a JSON object with root cause, impact and CWE, up to 256 tokens, by grammar

and of (c) alone what shared evidence is worth: locating and explaining, row by row as `run` goes (the function is read
once for both), and all rows at one stage before the next, as `advance` goes: tokens evaluated and rows per second.

With --forms same it is asked instead whether company changes answers: all verdicts and rationales with as many
sequences as suit the device, then with one: labels and texts that differ, and by how much probabilities do.

The rows: commits that pass s0_2, in the order of their SHAs; functions that s1_1 finds in them, whatever a model would
say, with their first statement that the fix touches as the segment and no definitions around them.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import machine, table, timed, trustmine

from trustmine import answers, calibrate, config, resources, samples, tools
from trustmine.db.connect import connect
from trustmine.lines import cut_lines
from trustmine.llm.local import LocalEngine
from trustmine.records import Advance, Completion, FunctionPair, Message, Request
from trustmine.stages import line_ranges, s0_3_classify, s1_1_refine, s3_2_explain
from trustmine.stages.base import Context

N_CTX = 4_096
RATIONALE_TOKENS = 48
EXPLANATION_TOKENS = 256
N_SLOTS = 8  # of the server: as many as trustmine has on a CPU
FORMS = ("verdict", "rationale", "explain")
PEERS = ("plain", "server", "trustmine")
WAYS = {"evidence": ("row_by_row", "stage_by_stage"), "same": ("trustmine", "one_at_a_time")}
# In the place of s3_1's sentence, so that both questions are known beforehand.
FINDING = "The function does not check the length that it reads from the record before it copies that many bytes."
# A verdict and a reason in one answer.
VERDICT_GRAMMAR = 'root ::= ("yes" | "no" | "cannot decide") ": " [^\\n]+'


Next = Callable[[Completion], Request]  # a question made of the answer before
Row = tuple[Request, list[Next]]  # the first question, and the ones that follow


@dataclass(frozen=True, slots=True)
class Result:
    """One engine at one kind of answer."""

    seconds: float
    n_rows: int
    n_evaluated: int  # tokens; 0: not told
    answers: list[list[Any]] = field(default_factory=list)  # by row and question: text and label probabilities


# --------------------------------------------------------------------------- the questions


def questions(db: Path, n_verdicts: int, n_explanations: int) -> dict[str, list[Request]]:
    """Requests by kind: verdict, explain, and locate of the same functions as explain."""
    conn = connect(db)
    ctx = tools.context(conn, config.Settings())
    commits = calibrate.sample(conn, 50 * max(n_verdicts, n_explanations))
    verdicts = [s0_3_classify.classify_requests(commit, ctx)[-1] for commit in commits[:n_verdicts]]
    locate: list[Request] = []
    explain: list[Request] = []
    for commit in commits:
        if len(explain) == n_explanations:
            break
        outcome = s1_1_refine.run(commit, ctx)
        pairs = [fact for fact in outcome.facts if isinstance(fact, FunctionPair)]
        if isinstance(outcome, Advance) and pairs:
            asked = _about(pairs[0], commit.message, ctx)
            if asked is not None:
                locate.append(asked[0])
                explain.append(asked[1])
    conn.close()
    return {"verdict": verdicts, "locate": locate, "explain": explain}


def _about(function: FunctionPair, message: str, ctx: Context) -> tuple[Request, Request] | None:
    """The questions of s3_1 and s3_2 about a function; None if the fix touches no whole statement."""
    limits = ctx.settings
    allowed = line_ranges.allowed(function, limits.max_segment_lines)
    touched = [lines for lines in allowed if line_ranges.n_fix_lines(function, lines)]
    if not touched:
        return None
    evidence: dict[str, Any] = {
        "function": samples.one_line(function.name),
        "path": samples.one_line(function.old_path),
        "numbered": samples.numbered(function.pre_text),
        "context": samples.context((), (), with_post=False),
        "mark": answers.LINES,
    }
    locate = ctx.prompts.get("s3_1_locate").request(
        grammar=line_ranges.reasoned_grammar(allowed, limits.max_segments),
        message=message,
        max_segments=str(limits.max_segments),
        max_lines=str(limits.max_segment_lines),
        max_tokens=line_ranges.reasoned_tokens(limits.max_segments),
        **evidence,
    )
    max_chars = EXPLANATION_TOKENS * s3_2_explain.CHARS_PER_TOKEN // 2
    explain = ctx.prompts.get("s3_2_explain").request(
        grammar=answers.explanation_grammar(max_chars, config.CWES, s3_2_explain.MIN_CHARS),
        max_tokens=EXPLANATION_TOKENS,
        repeat_penalty=1.1,
        lines=samples.span(touched[0].first_line, touched[0].last_line),
        snippet=cut_lines(function.pre_text, touched[0]),
        finding=FINDING,
        **evidence,
    )
    return locate, explain


# ----------------------------------------------------------------------------- the engines


def plain(model: Path, form: str, asked: Sequence[Request], n_threads: int) -> Result:
    """(a) One after the other."""
    import llama_cpp
    from llama_cpp.llama_grammar import LlamaGrammar

    llama = llama_cpp.Llama(
        str(model), n_ctx=N_CTX, n_threads=n_threads, n_threads_batch=n_threads, n_gpu_layers=-1, verbose=False,
        logits_all=form == "verdict",  # llama-cpp-python gives logprobs only so
    )  # fmt: skip
    began = time.perf_counter()
    for request in asked:
        more: dict[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
        if form != "verdict":
            text = VERDICT_GRAMMAR if form == "rationale" else str(request.grammar)
            more = {"grammar": LlamaGrammar.from_string(text, verbose=False), "max_tokens": _n_tokens(form)}
        turns: list[Any] = [asdict(turn) for turn in request.messages]
        llama.create_chat_completion(turns, temperature=0.0, **more)
    return Result(time.perf_counter() - began, len(asked), 0)


def server(model: Path, form: str, asked: Sequence[Request], n_threads: int) -> Result:
    """(b) The server, with a client per slot."""
    import httpx
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.port = N_CTX * N_SLOTS, N_SLOTS, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    params.n_gpu_layers, params.verbosity, params.kv_unified = -1, -1, False
    running = xllamacpp.Server(params)
    url = running.listening_address

    def ask(request: Request) -> None:
        more: dict[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
        if form != "verdict":
            grammar = VERDICT_GRAMMAR if form == "rationale" else request.grammar
            more = {"grammar": grammar, "max_tokens": _n_tokens(form)}
        body = {"messages": [asdict(turn) for turn in request.messages], "temperature": 0.0, "cache_prompt": True}
        httpx.post(f"{url}/v1/chat/completions", json=body | more, timeout=3600).raise_for_status()

    began = time.perf_counter()
    with ThreadPoolExecutor(N_SLOTS) as clients:
        list(clients.map(ask, asked))
    return Result(time.perf_counter() - began, len(asked), 0)


def ours(model: Path, form: str, asked: Sequence[Request], n_threads: int) -> Result:
    """(c) The engine of this checkout."""

    why = form == "rationale"
    rows: list[Row] = [(request, [_why(request)] if why else []) for request in asked]
    return _drive(model, rows, n_threads)


def _why(request: Request) -> Next:
    """Asks for the reason of a verdict."""

    def ask(verdict: Completion) -> Request:
        asked = Message("user", "Give the reason in one short sentence.")
        turns = (*request.messages, Message("assistant", verdict.text), asked)
        return replace(request, messages=turns, labels=(), max_tokens=RATIONALE_TOKENS, prompt_name="s0_3_rationale")

    return ask


def one_at_a_time(model: Path, asked: Sequence[Request], n_threads: int) -> Result:
    """(c) with one sequence."""
    rows: list[Row] = [(request, [_why(request)]) for request in asked]
    return _drive(model, rows, n_threads, n_sequences=1)


def _drive(model: Path, rows: Sequence[Row], n_threads: int, n_sequences: int = 0) -> Result:
    """Ask the first question of each row, and the following ones when the one before is answered."""
    engine = LocalEngine.open(
        model,
        n_ctx=N_CTX,
        n_threads=n_threads,
        n_sequences=n_sequences,
        flash_attention=os.environ.get("TRUSTMINE_FLASH_ATTENTION", "auto"),
        known_sha256="0",
    )
    waiting = list(enumerate(rows))
    left: dict[int, list[Next]] = {}
    answers: list[list[Any]] = [[] for _ in rows]
    n_evaluated = 0
    began = time.perf_counter()
    while waiting or left:
        while waiting and len(left) < engine.capacity:
            ticket, (request, following) = waiting.pop(0)
            left[ticket] = list(following)
            engine.submit(ticket, request)
        for ticket, answer in engine.poll():
            if isinstance(answer, Completion):
                n_evaluated += answer.n_prompt - answer.n_cached + answer.n_completion
                logprobs = answer.label_logprobs or {}
                answers[ticket].append([answer.text, {label: math.exp(p) for label, p in logprobs.items()}])
            if isinstance(answer, Completion) and left[ticket]:
                engine.submit(ticket, left[ticket].pop(0)(answer))
            else:
                del left[ticket]
    seconds = time.perf_counter() - began
    engine.close()
    return Result(seconds, len(rows), n_evaluated, answers)


def row_by_row(model: Path, asked: Sequence[tuple[Request, Request]], n_threads: int) -> Result:
    """Each row through both questions, as `run` goes."""
    return _drive(model, [(first, [_whatever_it_said(then)]) for first, then in asked], n_threads)


def _whatever_it_said(request: Request) -> Next:
    return lambda _: request


def stage_by_stage(model: Path, asked: Sequence[tuple[Request, Request]], n_threads: int) -> Result:
    """All rows through the first question, then all through the second, as `advance` goes."""
    first = _drive(model, [(one, []) for one, _ in asked], n_threads)
    then = _drive(model, [(two, []) for _, two in asked], n_threads)
    return Result(first.seconds + then.seconds, len(asked), first.n_evaluated + then.n_evaluated)


def _n_tokens(form: str) -> int:
    return RATIONALE_TOKENS + 4 if form == "rationale" else EXPLANATION_TOKENS  # the label and what follows it


# ------------------------------------------------------------------------------- the table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path, nargs="?")
    parser.add_argument("--db", type=Path, help="a database in which the repository has passed s0_2 already")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--verdicts", type=int, default=200)
    parser.add_argument("--explanations", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--forms", nargs="+", choices=(*FORMS, "evidence", "same"), default=[*FORMS, "evidence"])
    parser.add_argument("--one", nargs=3, metavar=("ENGINE", "FORM", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = given.model or resources.built_in_model()
    n_threads = given.threads or len(os.sched_getaffinity(0))
    if given.one:
        peer, form, questions_file = given.one
        print(json.dumps(asdict(_one(peer, form, questions_file, model, n_threads))))
        return
    if given.repo is None and given.db is None:
        parser.error("give a repository, or a database with --db")
    with tempfile.TemporaryDirectory(prefix="trustmine-bench-") as folder:
        db = given.db or Path(folder) / "bench.db"
        if given.db is None:
            timed(trustmine("ingest", str(given.repo), "--db", str(db)))
            for stage in ("s0_1", "s0_2"):
                timed(trustmine("advance", "--stage", stage, "--db", str(db)))
        asked = questions(db, given.verdicts, given.explanations)
        file = Path(folder) / "questions.json"
        file.write_text(json.dumps({k: [asdict(r) for r in v] for k, v in asked.items()}), encoding="utf-8")
        results: dict[tuple[str, str], list[Result]] = {}
        for _ in range(given.rounds):
            for form in given.forms:
                for peer in WAYS.get(form, PEERS):
                    command = [sys.executable, __file__, "--one", peer, form, str(file), "--model", str(model)]
                    done = subprocess.run(
                        [*command, "--threads", str(n_threads)], check=True, stdout=subprocess.PIPE, text=True
                    )
                    result = Result(**json.loads(done.stdout.splitlines()[-1]))
                    results.setdefault((form, peer), []).append(result)
                    shown = f"{result.n_rows} rows in {result.seconds:.1f} s, {result.n_evaluated} tokens"
                    print(f"{form} {peer}: {shown}", file=sys.stderr, flush=True)
    print(report(results, model, n_threads, given.rounds))


def _one(peer: str, form: str, file: str, model: Path, n_threads: int) -> Result:
    kinds = {k: [_request(fields) for fields in v] for k, v in json.loads(Path(file).read_text("utf-8")).items()}
    if form == "evidence":
        pairs = list(zip(kinds["locate"], kinds["explain"], strict=True))
        return {"row_by_row": row_by_row, "stage_by_stage": stage_by_stage}[peer](model, pairs, n_threads)
    if form == "same":
        if peer == "one_at_a_time":
            return one_at_a_time(model, kinds["verdict"], n_threads)
        return ours(model, "rationale", kinds["verdict"], n_threads)
    asked = kinds["explain" if form == "explain" else "verdict"]
    return {"plain": plain, "server": server, "trustmine": ours}[peer](model, form, asked, n_threads)


def _request(fields: dict[str, Any]) -> Request:
    messages = tuple(Message(**turn) for turn in fields["messages"])
    return Request(**fields | {"messages": messages, "labels": tuple(fields["labels"])})


def report(results: dict[tuple[str, str], list[Result]], model: Path, n_threads: int, rounds: int) -> str:
    """The tables in Markdown: medians over the rounds."""
    rate = {key: statistics.median(r.n_rows / r.seconds for r in found) for key, found in results.items()}
    lines = [f"{machine()}; {model.name}, {n_threads} threads, median of {rounds}\n"]
    rows = []
    for form in FORMS:
        if (form, "trustmine") in rate:
            mine = rate[form, "trustmine"]
            best = max(rate[form, "plain"], rate[form, "server"])
            n = results[form, "trustmine"][0].n_rows
            rows.append([form, n, *(f"{rate[form, peer]:.3f}" for peer in PEERS), f"{mine / best:.2f}"])
    columns = ["answer", "rows", "plain, rows/s", "server, rows/s", "trustmine, rows/s", "ratio to the better"]
    if rows:
        lines.append(table(columns, rows))
    if ("evidence", "row_by_row") in rate:
        together, apart = (results["evidence", way][0] for way in ("row_by_row", "stage_by_stage"))
        rows = [
            ["row by row (run)", together.n_evaluated // together.n_rows, f"{rate['evidence', 'row_by_row']:.3f}"],
            ["stage by stage", apart.n_evaluated // apart.n_rows, f"{rate['evidence', 'stage_by_stage']:.3f}"],
        ]
        ratio = rate["evidence", "row_by_row"] / rate["evidence", "stage_by_stage"]
        lines.append(table(["s3_1 and s3_2", "tokens evaluated per row", "rows/s"], rows))
        lines.append(f"Row by row is {ratio:.2f} times as fast.\n")
    if ("same", "trustmine") in results:
        lines.append(_same(results["same", "trustmine"][0].answers, results["same", "one_at_a_time"][0].answers))
    return "\n".join(lines)


def _same(many: list[list[Any]], one: list[list[Any]]) -> str:
    """How answers given side by side differ from those given alone."""
    labels = sum(a[0][0] != b[0][0] for a, b in zip(many, one, strict=True))
    texts = sum(a[1][0] != b[1][0] for a, b in zip(many, one, strict=True))
    apart = max(abs(a[0][1][k] - b[0][1][k]) for a, b in zip(many, one, strict=True) for k in a[0][1])
    return f"Of {len(many)} rows {labels} labels and {texts} texts differ; probabilities by {apart:.1e} at most.\n"


if __name__ == "__main__":
    main()
