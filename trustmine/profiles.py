"""Profiles: named tables of defaults for other settings.

`paper` is what the settings' own defaults say. `wide` lets in fixes that the
paper's filters lose: it measures and shows only the source that is compiled
into the product, reads more than keywords in messages, and takes a fix as
what it does to one function. Nothing else in the code knows a profile's name;
every value can also be set alone.

The lists are general knowledge about C and C++ projects: where tests,
generators and version stamps put their files, what sanitizers print, how bug
trackers spell their links. None is drawn from a list of known fixes.
"""

from collections.abc import Mapping
from types import MappingProxyType


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Patterns as in .gitignore, in any case: with a / at the end a folder anywhere, without a / a file's name.
TEST_FILES = words("""
    test/ tests/ testing/ testdir/ testsuite/ testsuites/ testdata/ test_data/ test-data/ testcases/ unittest/
    unittests/ unit_test/ unit_tests/ unit-tests/ gtest/ selftest/ selftests/ regress/ regression/ fuzz/ fuzzing/
    fuzzer/ fuzzers/ oss-fuzz/ ossfuzz/ corpus/ corpora/ bench/ benches/ benchmark/ benchmarks/
    test_* test-* *_test.* *-test.* *_tests.* *-tests.* *_unittest.* *_unittests.* unittest*
    test*.c test*.cc test*.cpp test*.h runtest* *_fuzzer.* *_fuzz.* fuzz_* fuzz-*
""")
EXAMPLE_FILES = words("example/ examples/ sample/ samples/ demo/ demos/ doc/ docs/ documentation/ man/")
# protoc, bison, flex, Qt's moc and rcc, and what calls itself generated.
GENERATED_FILES = words("""
    *.pb.cc *.pb.h *.pb-c.c *.pb-c.h *.tab.c *.tab.h *.tab.cc *.tab.hh lex.*.c lex.*.cc *.lex.c *.yy.c *.yy.cc
    moc_* qrc_* *_generated.* *.generated.* *_autogen.*
""")
VERSION_STAMPS = words("""
    version.c version.h *_version.h *-version.h version_*.h patchlevel.h
""")
# What is no source of the product itself.
IGNORED_FILES = TEST_FILES + EXAMPLE_FILES + GENERATED_FILES + VERSION_STAMPS

# What sanitizers, memory checkers and the kernel's signals leave in a message, and the tools that found it.
# https://clang.llvm.org/docs/AddressSanitizer.html and its siblings, https://valgrind.org/docs/manual/
CRASH_WORDS = (
    *words("""
    asan ubsan msan tsan lsan kasan kmsan kcsan addresssanitizer undefinedbehaviorsanitizer memorysanitizer
    threadsanitizer leaksanitizer sanitizer sanitizers fuzz fuzzer fuzzers fuzzing fuzzed afl libfuzzer honggfuzz
    syzkaller syzbot valgrind memcheck segv sigsegv sigabrt sigbus segfault segfaults segfaulted coredump oops
    heap-buffer-overflow stack-buffer-overflow global-buffer-overflow heap-use-after-free use-of-uninitialized-value
"""),
    "segmentation fault",
    "segmentation violation",
    "general protection fault",
    "core dump",
)

# Words for what reporters of vulnerabilities write about, beside the paper's: reports themselves
# (https://docs.kernel.org/process/submitting-patches.html, Reported-by), out-of-bounds access in its spellings,
# and authentication, credentials and certificates (CWE-287, CWE-295, CWE-522).
REPORT_WORDS = (
    *words("""
    reported-by found-by oob overrun overread over-read underrun out-of-bounds uninitialized uninitialised double-free
    dangling unterminated truncation wraparound untrusted crafted malformed attacker dos denial-of-service
    traversal symlink spoof smuggling credential password certificate authentication authorization unauthenticated
"""),
    "reported by",
    "found by",
    "discovered by",
    "denial of service",
    "infinite loop",
    "double free",
    "not terminated",
)

WIDE: Mapping[str, object] = MappingProxyType(
    {
        "match_mode": "start",
        "admit": ("keywords", "identifiers", "crash_words"),
        "identifier_kinds": ("CVE", "GHSA", "CWE", "OSV", "OSS-Fuzz", "report", "issue"),
        "counted_files": "source",
        "ignored_files": IGNORED_FILES,
        "headers": "beside",
        "extensions": (".c", ".cc", ".cpp", ".h", ".cxx", ".hpp", ".hh"),
        "max_commit_tokens": 1_500,
        "fix_scope": "function",
        "only_additions": "keep",
        "max_function_tokens": 2_000,
    }
)
# The keywords of `wide` are the paper's and REPORT_WORDS; config.py puts them together.
