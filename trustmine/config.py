"""Settings: defaults, profile, trustmine.toml, environment and flags, in that order.

Every value in force knows where it came from. A name that does not exist, a
wrong type or a value out of range is an error that names the place, before
anything is opened.
"""

import datetime
import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from trustmine import profiles
from trustmine.errors import SettingsError
from trustmine.profiles import words as _words
from trustmine.text import is_utf_8

FILE_NAME = "trustmine.toml"
ENV_PREFIX = "TRUSTMINE_"

# Upper bounds of numbers: far beyond what makes sense, so that what is refused is a slip.
FEW = 10_000
MANY = 1_000_000
MANY_TOKENS = 100_000_000
MANY_CHARS = 1_000_000_000
WEEK_S = 7 * 24 * 3_600
MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ, https://github.com/ggml-org/llama.cpp/blob/master/src/llama-cparams.h
MAX_SEED = 2**32 - 2  # llama.cpp takes seeds of 32 bits, the highest of which asks for a random one


def _entries(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split(",") if entry.strip())


# Vulnerability types, then actions, then problems.
KEYWORDS = (
    _words("""overflow underflow memory free malloc leak uaf use-after-free heap stack buffer bounds null
        nullptr null-pointer race deadlock concurrency injection sql xss csrf integer divide format
        string privilege permission sandbox escape""")
    + _words("""fix patch repair mitigate prevent protect secure security safeguard sanitize validate check
        audit review block filter exploit attack threat crash corruption bypass break vulnerable
        vulnerability vuln cve advisory security-issue""")
    + _words("""bug issue defect unsafe insecure dangerous missing improper incorrect broken invalid
        malicious unauthorized unauth compromise breach critical severe""")
)
# What a message says of the change, for the order of the queue: after the two tiers of Zhou and Sharma (ESEC/FSE 2017)
# and the lists of git-vuln-finder (https://github.com/cve-search/git-vuln-finder), with the names that CWE, compilers'
# sanitizers and fuzzers give the errors of C and C++. Strong words name a weakness or an attack; medium ones what it
# looks like from outside, or the tool that found it; weak ones any repair; unlikely ones another purpose (after Tian,
# Lawall and Lo, ICSE 2012). "*" is any ending.
STRONG_WORDS = _entries("""
    buffer overflow*, heap overflow*, stack overflow*, integer overflow*, int overflow*, arithmetic overflow*,
    integer underflow*, buffer underflow*, buffer overrun*, buffer underrun*, overrun*, over read*, overread*,
    out of bound*, oob, out of range read*, out of range write*, past the end*, beyond the end*, before the start*,
    wraparound*, wrap around*, use after free*, use after scope, use after return, uaf, using freed, use of freed,
    freed memory, double free*, invalid free*, dangling*, memory corruption*, heap corruption*, stack corruption*,
    stack smash*, uninitialized memory, uninitialised memory, invalid read*, invalid write*, invalid memory*,
    illegal memory access*, type confusion, race condition*, toctou, symlink attack*, path traversal*,
    directory traversal*, injection*, smuggl*, xss, csrf, ssrf, denial of service, privilege escalation*,
    information leak*, info leak*, information disclosure, memory disclosure, arbitrary code, code execution, rce,
    vulnerab*, vuln, exploit*, attack*, malicious*, crafted, untrusted, security, hijack*, spoof*
    """)
MEDIUM_WORDS = _entries("""
    overflow*, underflow*, off by one, null pointer*, nullptr, null dereference*, null deref*, double close, crash*,
    segfault*, segv, sigsegv, segmentation fault*, bus error, core dump*, abort*, corrupt*, memory error*,
    memory safety, valgrind, sanitizer*, asan, msan, ubsan, tsan, addresssanitizer, fuzz*, afl, infinite loop*,
    endless loop*, infinite recursion, endless recursion, stack exhaustion, division by zero, divide by zero,
    undefined behavio*, format string*, bounds check*, bound check*, boundary check*, length check*, size check*,
    range check*, sanity check*, unsafe, insecure, harden*, bypass*, privilege*, credential*, sandbox*, data race*,
    deadlock*, truncated, malformed, bogus, overlong, too long, too large, too short, negative
    """)
WEAK_WORDS = _entries("""
    fix*, bug*, check*, validat*, verif*, prevent*, avoid*, protect*, guard*, ensure*, make sure, sanit*, reject*,
    missing, invalid*, incorrect*, wrong*, uninit*, leak*, hang*, bounds, boundary, limit*, length*, range*, assert*
    """)
UNLIKELY_WORDS = _entries("""
    typo*, spelling, misspell*, comment*, whitespace, white space, indentation, formatting, reformat*, style,
    cosmetic*, tidy, warning*, build*, compil*, cmake, autoconf, automake, autotools, configure, makefile*, cppcheck,
    lint*, unused, doc, docs, document*, readme, changelog, manual, man page*, test, tests, testing, unittest*,
    unit test*, ci, refactor*, renam*, cleanup*, clean up*, simplif*, copyright*, license*, licence*, year*, revert*,
    merge*, version*, release*, translat*, add support, support for, feature*, implement*, introduce*, performance,
    optimi*, speed*
    """)
COMMON_CALLS = _words("""strcmp strncpy strcpy strlen memset memcpy fprintf exit malloc free sizeof getenv stat
    perror closesocket htons sscanf strrchr strchr tolower toupper""")
BASIC_TYPES = ("char", "unsigned char", "size_t", "uint16_t", "uint8_t", "NULL")
ERROR_CODES = _words("""ENOMEM EIO EINVAL EAGAIN EPERM ENOENT EEXIST EPIPE ERANGE EACCES EFAULT EBUSY ENODEV
    EOVERFLOW ETIMEDOUT EINTR ECANCELED EADDRINUSE ENOTSUP EISDIR ENOTDIR ENOTEMPTY""")


# Weaknesses of C and C++ code (MITRE's views 658 and 659) and of the CWE Top 25 that a function can show.
# https://cwe.mitre.org/data/definitions/658.html, /659.html, /1435.html
CWES = tuple(
    f"CWE-{number}"
    for number in (
        20, 22, 59, 77, 78, 88, 89, 94, 113, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 134, 135,
        170, 188, 190, 191, 193, 194, 195, 196, 197, 200, 201, 212, 242, 243, 252, 253, 269, 276, 284, 287, 295, 297,
        305, 306, 319, 327, 330, 345, 362, 364, 366, 367, 369, 377, 400, 401, 404, 415, 416, 434, 436, 441, 444, 457,
        459, 460, 462, 463, 464, 466, 467, 468, 469, 476, 478, 479, 480, 481, 482, 483, 484, 522, 562, 587, 590, 601,
        610, 617, 662, 665, 667, 668, 674, 676, 681, 682, 685, 688, 690, 704, 732, 754, 755, 758, 761, 762, 763, 770,
        772, 775, 787, 788, 789, 805, 806, 822, 823, 824, 825, 833, 834, 835, 839, 843, 862, 863, 908, 909, 911, 918,
        1284, 1325, 1335, 1341,
    )
)  # fmt: skip


# Profile -> its defaults, where they differ from the settings' own.
PROFILES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {"paper": {}, "wide": {"keywords": KEYWORDS + profiles.REPORT_WORDS, **profiles.WIDE}}
)


def _url(text: str) -> str:
    """An endpoint's address in its one form: no slash at the end, /v1 where there is no path.

    Raises ValueError with what it must be. Passwords and queries may be secrets, and the address is shown and stored.
    """
    wanted = "an address like http://host:8000/v1, without user, password, query or fragment"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(wanted) from error
    is_odd = "@" in parts.netloc or parts.query or parts.fragment or not text.isprintable() or " " in text.strip()
    if parts.scheme not in ("http", "https") or not parts.hostname or is_odd or port == 0:
        raise ValueError(wanted)
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((parts.scheme, parts.netloc.lower(), path or "/v1", "", ""))


def _variable(text: str) -> str:
    """The name of an environment variable; raises ValueError with what it must be."""
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("the name of the environment variable that holds the key, not the key itself")
    return text


def _setting(
    default: object,
    help: str,
    *,
    low: int = 0,
    high: int = 0,
    choices: tuple[str, ...] = (),
    form: Callable[[str], str] | None = None,
) -> Any:
    """`low` and `high` bound a number, both allowed.

    `form` puts a string into its one form, or raises ValueError with what it must be; then it is never shown.
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices, "form": form})


@dataclass(frozen=True)
class Settings:
    """Everything that steers a run. Field names are the names in trustmine.toml."""

    profile: str = _setting("paper", "named set of defaults for the others", choices=tuple(PROFILES))
    # s0_1
    admit: tuple[str, ...] = _setting(
        ("keywords",), "what in a message lets a commit in", choices=("keywords", "identifiers", "crash_words")
    )
    keywords: tuple[str, ...] = _setting(KEYWORDS, "words searched in messages, any case")
    match_mode: str = _setting(
        "substring",
        "how a keyword matches: anywhere, as a whole word, at a word's start",
        choices=("substring", "word", "start"),
    )
    identifier_kinds: tuple[str, ...] = _setting(
        ("CVE", "GHSA", "CWE"),
        "identifiers looked for in messages",
        choices=("CVE", "GHSA", "CWE", "OSV", "OSS-Fuzz", "report", "issue"),
    )
    crash_words: tuple[str, ...] = _setting(profiles.CRASH_WORDS, "whole words that a crash leaves in a message")
    # s0_2 and what later stages show of a patch
    counted_files: str = _setting("all", "files of a patch that are counted and shown", choices=("all", "source"))
    ignored_files: tuple[str, ...] = _setting((), "patterns as in .gitignore: files that are no source")
    headers: str = _setting(
        "counted",
        "are headers files of their own where a patch changes a source file too",
        choices=("counted", "beside"),
    )
    max_diff_chars: int = _setting(
        1_000_000, "patches of this many characters or more are rejected", low=1, high=MANY_CHARS
    )
    max_commit_tokens: int = _setting(
        1_000, "commit texts of this many cl100k tokens or more are rejected", low=1, high=MANY
    )
    extensions: tuple[str, ...] = _setting((".c", ".cc", ".cpp", ".h"), "extensions of C and C++ files")
    # s0_2: the order of the queue from then on
    strong_words: tuple[str, ...] = _setting(STRONG_WORDS, "words that name a weakness or an attack; * is any ending")
    medium_words: tuple[str, ...] = _setting(MEDIUM_WORDS, "words for how a weakness shows, or what finds it")
    weak_words: tuple[str, ...] = _setting(WEAK_WORDS, "words for any repair")
    unlikely_words: tuple[str, ...] = _setting(UNLIKELY_WORDS, "words in a subject that speak against a fix")
    order: str = _setting(
        "priority",
        "which pending rows come first: the most promising (before s0_2: the oldest), newest or oldest",
        choices=("priority", "newest", "oldest"),
    )
    # s0_3
    # Of the commits that OSS-Fuzz names for curl 2 of 8 found exactly, and 8 of 16 at the end of a range, fix nothing
    # (a year in a notice, a typo in documentation; by their subjects, 2026-11).
    trusted_labels: tuple[str, ...] = _setting(
        ("list", "advisory"),
        "qualities of labels that outrank the model's verdict",
        choices=("list", "advisory", "bisected", "bisected_range", "message"),
    )
    rationale: str = _setting("yes", "for which verdicts a rationale is asked", choices=("none", "yes", "all"))
    min_p_fix: float = _setting(0.5, "calibrated probability from which a verdict is yes", low=0, high=1)
    calibration_rows: int = _setting(64, "rows a calibration is estimated on", low=0, high=MANY)
    undecided_share: float = _setting(
        0.1, "share of rows, most drawn to 'cannot decide', taken as undecided", low=0, high=1
    )
    # s1_1
    fix_scope: str = _setting("hunk", "what a fix may span", choices=("hunk", "function"))
    only_additions: str = _setting("reject", "fixes that delete no line", choices=("reject", "keep"))
    max_function_tokens: int = _setting(
        1_000, "functions of this many cl100k tokens or more are rejected", low=1, high=MANY
    )
    cutoff: datetime.date = _setting(
        datetime.date(2023, 1, 1), "commits from this day (UTC) on need a CVE and go to split bench"
    )
    # s1_2, s3_1
    masked_by: str = _setting(
        "model",
        "who names the risky block at s1_2: the model, or the fix itself (no model is asked)",
        choices=("model", "fix"),
    )
    max_masks: int = _setting(3, "blocks the model may name at s1_2", low=1, high=FEW)
    max_segments: int = _setting(3, "segments the model may name at s3_1", low=1, high=FEW)
    max_segment_lines: int = _setting(20, "lines of one segment at s3_1", low=1, high=MANY)
    # s2_1, s2_2
    elements_by: str = _setting(
        "both",
        "who lists elements and picks definitions at s2_1: parser and model, or the parser alone (no model is asked)",
        choices=("both", "parser"),
    )
    max_elements: int = _setting(40, "elements the model may list", low=1, high=FEW)
    max_candidates: int = _setting(5, "definitions of one name shown to the model to pick from", low=1, high=FEW)
    common_calls: tuple[str, ...] = _setting(COMMON_CALLS, "library calls left out of the context")
    basic_types: tuple[str, ...] = _setting(BASIC_TYPES, "types left out of the context")
    error_codes: tuple[str, ...] = _setting(ERROR_CODES, "error codes left out of the context")
    min_name_chars: int = _setting(3, "shorter names are left out of the context", low=1, high=FEW)
    context_tokens: int = _setting(1_000, "cl100k tokens of definitions in one sample", low=0, high=MANY)
    definition_tokens: int = _setting(250, "cl100k tokens of one definition", low=1, high=MANY)
    # s3_2
    cwes: tuple[str, ...] = _setting(CWES, "weaknesses that an explanation may name")
    explanation_tokens: int = _setting(256, "tokens the model may write to explain a segment", low=16, high=MANY)
    # propose
    proposal_tokens: int = _setting(256, "tokens the model may write for one candidate patch", low=16, high=MANY)
    # s4
    taught_segments: str = _setting(
        "confirmed",
        "segments taught: those that the fix touches, or all that the model named",
        choices=("confirmed", "all"),
    )
    # the model
    model: str | None = _setting(
        None, "GGUF file, or the name of the endpoint's model; none: the built-in SmolLM2, or the endpoint's only one"
    )
    endpoint: str | None = _setting(
        None, "OpenAI-compatible server that answers in the place of a model file: http://host:8000/v1", form=_url
    )
    api_key_env: str | None = _setting(
        None, "environment variable that holds the endpoint's key; none: no key", form=_variable
    )
    endpoint_concurrency: int = _setting(
        16, "requests in flight to the endpoint; to llama-server two per slot at most", low=1, high=FEW
    )
    endpoint_timeout_s: float = _setting(600.0, "seconds that the endpoint may take for one answer", low=1, high=WEEK_S)
    endpoint_patience_s: float = _setting(
        300.0, "seconds that the endpoint may be down or too busy before the run stops", low=0, high=WEEK_S
    )
    n_ctx: int = _setting(
        8_192, "context in tokens (never more than the model was trained for)", low=256, high=MANY_TOKENS
    )
    n_gpu_layers: int = _setting(-1, "layers on the GPU; -1: all, if the build can", low=-1, high=FEW)
    n_threads: int = _setting(0, "CPU threads of the model; 0: one per core", low=0, high=FEW)
    n_sequences: int = _setting(
        0, "sequences the model works on side by side; 0: what suits the device", low=0, high=MAX_SEQUENCES
    )
    n_batch: int = _setting(0, "tokens handed to llama.cpp at once; 0: what suits the device", low=0, high=MANY)
    n_ubatch: int = _setting(0, "of these, in one pass over the layers; 0: what suits the device", low=0, high=MANY)
    kv_layout: str = _setting(
        "auto",
        "memory of sequences: shared (unified) or each its own (separate); auto: what suits the device",
        choices=("auto", "unified", "separate"),
    )
    flash_attention: str = _setting(
        "auto",
        "faster and less exact on a CPU; auto: off there, elsewhere as llama.cpp decides",
        choices=("auto", "on", "off"),
    )
    deterministic: bool = _setting(False, "answers that do not depend at all on what shares their batch; slower")
    seed: int = _setting(0, "seed of sampling", low=0, high=MAX_SEED)
    temperature: float = _setting(0.0, "temperature of generated text; 0: the most likely token", low=0, high=10)
    repeat_penalty: float = _setting(
        1.1, "how much a model is held from repeating itself in prose, as in llama.cpp; 1: not at all", low=1, high=10
    )
    prompts: str | None = _setting(None, "folder of prompts; none: those that come with trustmine")
    # git
    cache: str | None = _setting(None, "folder for clones of URLs; none: trustmine/repos in the user's cache")
    # the database and its queue
    db: str = _setting("trustmine.db", "the database")
    batch_size: int = _setting(500, "rows a git or CPU worker claims at once", low=1, high=MANY)
    lease_s: float = _setting(900.0, "seconds after which a silent worker loses its rows", low=1, high=WEEK_S)
    max_attempts: int = _setting(3, "failures after which a row is set aside", low=1, high=MANY)


@dataclass(frozen=True)
class Loaded:
    """Settings with the place each value came from."""

    settings: Settings
    sources: Mapping[
        str, str
    ]  # setting -> 'default', 'profile wide', 'file trustmine.toml', 'environment TRUSTMINE_X', 'flag'


def load(
    file: Path | None = None, flags: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None
) -> Loaded:
    """Settings in force for this call.

    `file` is read if given (it must exist); otherwise trustmine.toml in the
    present folder, if there is one. Flags that are None are not given.
    Raises SettingsError.
    """
    environment = os.environ if env is None else env
    given: dict[str, Any] = {}
    sources: dict[str, str] = {f.name: "default" for f in fields(Settings)}
    path = file if file is not None else Path(FILE_NAME)
    if file is not None or path.exists():
        place = f"file {path}"
        for name, value in _read(path).items():
            given[name] = _checked(name, value, place)
            sources[name] = place
    for variable, text in environment.items():
        if variable.startswith(ENV_PREFIX):
            name, place = variable[len(ENV_PREFIX) :].lower(), f"environment {variable}"
            given[name] = _checked(name, _parsed(name, text, place), place)
            sources[name] = place
    for name, value in (flags or {}).items():
        if value is not None:
            given[name] = _checked(name, value, "flag")
            sources[name] = "flag"
    profile = given.get("profile", Settings.profile)
    for name, value in PROFILES[profile].items():
        if name not in given:
            given[name] = value
            sources[name] = f"profile {profile}"
    return Loaded(replace(Settings(), **given), MappingProxyType(sources))


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError("Cannot read the settings file", f"{path}: {error.strerror}", "Check --config") from error
    except ValueError as error:  # of TOML, of UTF-8, or of a number of thousands of digits
        raise SettingsError("The settings file is not valid TOML", f"{path}: {error}", "See https://toml.io") from error


def _field(name: str, place: str) -> Any:
    for known in fields(Settings):
        if known.name == name:
            return known
    close = difflib.get_close_matches(name, [f.name for f in fields(Settings)], n=1)
    hint = f"Did you mean {close[0]}?" if close else "See: trustmine settings"
    raise SettingsError(f"Unknown setting {name!r}", place, hint)


def _parsed(name: str, text: str, place: str) -> object:
    """An environment variable's text as a TOML value; bare words are strings."""
    _field(name, place)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text


def _checked(name: str, value: object, place: str) -> object:
    """The value as the field wants it, or SettingsError."""
    known = _field(name, place)
    default, choices = known.default, known.metadata["choices"]

    def wrong(wanted: str) -> SettingsError:
        return SettingsError(f"Setting {name} must be {wanted}, not {value!r}", place, "See: trustmine settings")

    if isinstance(value, str) and not is_utf_8(value):  # a variable may hold any bytes
        raise wrong("UTF-8")
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
            raise wrong("a list of strings")
        if choices and not set(value) <= set(choices):
            raise wrong("a list of " + ", ".join(choices))
        return tuple(value)
    if isinstance(default, datetime.date):
        if isinstance(value, str):
            try:
                return datetime.date.fromisoformat(value)
            except ValueError:
                raise wrong("a date like 2023-01-01") from None
        if isinstance(value, datetime.datetime) or not isinstance(value, datetime.date):
            raise wrong("a date like 2023-01-01")
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise wrong("true or false")
        return value
    if isinstance(default, int | float):
        low, high = known.metadata["low"], known.metadata["high"]
        wanted = f"{'a whole number' if isinstance(default, int) else 'a number'} from {low:,} to {high:,}"
        if isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else int | float):
            raise wrong(wanted)
        if not low <= value <= high:  # nor is nan
            raise wrong(wanted)
        return type(default)(value)
    if not isinstance(value, str) or not value:
        raise wrong("a string")
    if choices and value not in choices:
        raise wrong("one of " + ", ".join(choices))
    if known.metadata["form"] is not None:
        try:
            return known.metadata["form"](value)
        except ValueError as error:  # what was given may be a secret: neither it nor its traceback is shown
            raise SettingsError(f"Setting {name} must be {error}", place, "See: trustmine settings") from None
    return value
