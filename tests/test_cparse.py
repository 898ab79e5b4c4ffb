"""Functions, statements, names and symbols of real-life C and C++."""

import gc
import re
import sys
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trustmine import cparse
from trustmine.cparse import (
    LineRange,
    comment_above,
    function_at,
    functions,
    names,
    outline,
    outside,
    signature,
    statement_ranges,
    symbols,
    tree,
)
from trustmine.cparse import strip_comments_and_space as strip
from trustmine.cparse.functions import MAX_SCOPE_BYTES
from trustmine.cparse.lexis import Lexis


def found(source: str, path: str = "x.c") -> list[tuple[str, int, int]]:
    return [(f.name, f.first_line, f.last_line) for f in functions(source.encode(), path)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("int\nmain(argc, argv)\n  int argc;\n  char **argv;\n{\n}\n", [("main", 1, 6)]),
        ("    char_u  *\nf(s,\n#ifdef A\n  n,\n#endif\n c)\n  char *s;\n#ifdef A\n  int n;\n#endif\n  int c;\n{\n}\n",
         [("f", 1, 13)]),
        ("  static void\nf(w, cb, a)\n  Widget w UNUSED;\n  int (*cb)();\n  int a[] UNUSED;\n{\n}\n", [("f", 1, 7)]),
        ("/* about f */\nstatic CURLcode\nf(int a)\n{\n}\n", [("f", 2, 5)]),
        ("static struct { int a; int b; }\nf(void)\n{\n}\n", [("f", 1, 4)]),
        ("struct s { int (*g)(void); }\nf(void)\n{\n}\n", [("f", 2, 4)]),  # a missing semicolon
        ("UNITTEST CURLcode f(void);\nUNITTEST CURLcode f(void)\n{\n}\n", [("f", 2, 4)]),
        ("GF_EXPORT\nGF_Err gf_x(void *p) {\n}\n", [("gf_x", 1, 3)]),
        ("int __attribute__((noinline)) f(int a) {\n}\n", [("f", 1, 2)]),
        ("static char *\nf(void) { return 0; }\nint (*g(int z))(int)\n{\n}\n", [("f", 1, 2), ("g", 3, 5)]),
        ("#ifdef A\nint f(int a)\n#else\nint f(void)\n#endif\n{\n}\n", [("f", 2, 7)]),
        ("#ifdef A\nint f(void)\n{\n}\n#elif B\nint g(void)\n{\n}\n#else\nint h(void)\n{\n}\n#endif\n",
         [("f", 2, 4), ("g", 6, 8), ("h", 10, 12)]),
        ("#if 0\nint f( {\n#else\nint f(void) {\n#endif\n}\n", [("f", 4, 6)]),
        ("int f(void)\n{\n#ifdef A\n  if(a) {\n#else\n  if(b) {\n#endif\n  }\n}\nint g(void) { }\n",
         [("f", 1, 9), ("g", 10, 10)]),
        ("int f(void) {\n  for_each(x) {\n    y();\n  }\n}\n", [("f", 1, 5)]),
        ("int f(void) {\n  GET_STATE\n  if(!x) return;\n}\nint g(void) {\n}\n", [("f", 1, 4), ("g", 5, 6)]),
        ('char *s = "}{"; /* } */ char c = \'{\';\nint f(void) { return \'"\'; }\n', [("f", 2, 2)]),
        ("#define X {\nint f(void) {\n}\n#define Y \\\n  int g(void) { }\n", [("f", 2, 3)]),
    ],
)  # fmt: skip
def test_functions_of_c(source: str, expected: list[tuple[str, int, int]]) -> None:
    assert found(source) == expected


def test_functions_of_cpp_have_qualified_names_and_lambdas_belong_to_them() -> None:
    source = """namespace a::b { namespace c {
template<class T>
class K : public B {
public:
  K(int x) : y(x) { }
  ~K() override;
  int operator+(int o) const { auto l = [&](int z) { return z; }; return l(1); }
};
template<class T>
K<T>::~K() noexcept
{ }
} }
std::string a::B::c() { return {}; }
extern "C" { int f(void) { return R"(})"[0]; } }
"""
    assert found(source, "x.cpp") == [
        ("a::b::c::K::K", 5, 5),
        ("a::b::c::K::operator+", 7, 7),
        ("a::b::c::K<T>::~K", 9, 11),
        ("a::B::c", 13, 13),
        ("f", 14, 14),
    ]


@pytest.mark.parametrize(
    ("opening", "closing"),
    [(b"namespace " + b"a" * 50_000 + b" {", b"}"), (b"namespace abcdefgh { " * 900, b"}" * 900)],
    ids=["a long name", "many names"],
)
def test_the_scopes_in_a_name_are_cut_after_as_much_as_an_identifier_may_have(opening: bytes, closing: bytes) -> None:
    every = functions(opening + b"\n" + b"int f() { }\n" * 1_000 + closing, "x.cpp")
    assert len(every) == 1_000
    assert all(len(f.name) == MAX_SCOPE_BYTES + len("::f") and f.name.endswith("::f") for f in every)


def test_a_header_is_read_as_cpp_where_that_fits_better() -> None:
    source = "class A {\npublic:\n  int f() const { return 1; }\n};\n"
    assert found(source, "x.h") == [("A::f", 3, 3)]
    assert found("static inline int f(int new) { return new; }\n", "x.h") == [("f", 1, 1)]


@pytest.mark.parametrize("path", ["x.c", "x.cpp"])
@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("BOOL APIENTRY\nf(HANDLE h, DWORD r)\n{\n}\n", "f"),
        ("static BOOL WINAPI f(int a)\n{\n}\n", "f"),
        ("int FOO(x)\nf(int a)\n{\n}\n", "f"),
        ("STATIC\nINLINE struct foo *FOO\nf(int a)\n{\n}\n", "f"),
        ("int FOO\nBAR f(int a)\n{\n}\n", "f"),
        ("FOO(x)\nint f(int a)\n{\n}\n", "f"),
        ("int f(int a) FOO BAR(1)\n{\n}\n", "f"),
        ("int f(int a) NOEXCEPT\n{\n}\n", "f"),
        ("int f(int a, std::size_t b) NOEXCEPT_IF(true)\n{\n}\n", "f"),
        ("int f(int a) const LOCKS(a)\n{\n}\n", "f"),
        ("static FOO(int) f(void)\n{\n}\n", "f"),
        ("static void f(int UNUSED(a), char *b UNUSED)\n{\n}\n", "f"),
        ('extern "C" int\nf(void)\n{\n}\n', "f"),
        ("MAKE(int, f, (int a))\n{\n}\n", "MAKE"),
        ("int f(int a)\n{\n  DEATH({\n    try {\n      g();\n    } catch(E) {\n    }\n  }, 1);\n  h();\n}\n", "f"),
        ("TEST_F(Suite, Name)\n{\n}\n", "TEST_F"),
    ],
)
def test_macros_around_a_signature_belong_to_it(source: str, name: str, path: str) -> None:
    expected = [(name, 2, 1 + source.count("\n"))]
    assert found("int x;\n" + source, path) == expected
    assert found("#if 1\n" + source + "#endif\n", path) == expected
    assert found("/* x */\n" + source, path) == expected


def test_what_no_grammar_reads_is_found_by_its_braces_also_in_namespaces() -> None:
    body = '  int n;\n  EXPECT(E_(throw n, e), "");\n  EXPECT(E_(\n  throw e("a"), e, "b"), "");\n'
    tests = "".join(f"TEST(Suite, Name{i}) {{\n{body}}}\n\n" for i in range(4))
    source = f"namespace a {{\nclass K {{\npublic:\n  int f() {{\n{body}  }}\n}};\n{tests}}}\n"
    every = found(source, "x.cpp")
    assert [(first, last) for _, first, last in every] == [(4, 9), (11, 16), (18, 23), (25, 30), (32, 37)]


def test_a_signature_may_be_conditional_in_part() -> None:
    source = "class K {\npublic:\n#if A\n  constexpr\n#endif\n  INLINE\n  K(const T* s)\n    : d_(s) {\n  }\n};\n"
    assert found(source, "x.cpp") == [("K::K", 4, 9)]
    source = "class K {\n  void f();\n\n  INLINE\n  int g() {\n  }\n};\n"
    assert found(source, "x.cpp") == [("K::g", 4, 6)]
    assert found("#define X\nINLINE\n#include <x>\nint f(void)\n{\n}\n") == [("f", 4, 6)]


def test_macros_for_namespaces_make_no_functions() -> None:
    source = """FMT_BEGIN
namespace detail {
struct s { int x; };
int f(int a) { return a; }
}
FMT_END

#define X
FMT_BEGIN

template <class T> typename std::enable_if<sizeof(T) == 8, bool>::type
g(T t) {
}
FMT_END
"""
    assert found(source, "x.h") == [("detail::f", 4, 4), ("g", 11, 13)]


def test_linkage_and_templates_belong_to_a_signature() -> None:
    assert found('extern "C" int\nf(void)\n{\n}\n', "x.cpp") == [("f", 1, 4)]
    source = "class K {\npublic:\n  template<class T>\n  static T\n  f(T t) { return t; }\n};\n"
    assert found(source, "x.cpp") == [("K::f", 3, 5)]


def test_macros_in_types_and_alone_make_no_functions() -> None:
    source = """RCS_ID("@(#) $Id$");
MY_ID("@(#) x")
// what is included

#include <x>
namespace a {
  class MY_EXPORT K : public b::B
  {
    int f() { return 1; }
    enum E bits : 3;
  };
  class DEPRECATED("x") L final {
    int g() { return 1; }
  };
  struct PACKED s { int x; };
}
"""
    assert found(source, "x.cpp") == [("a::K::f", 9, 9), ("a::L::g", 13, 13)]
    assert found(source, "x.h") == [("a::K::f", 9, 9), ("a::L::g", 13, 13)]
    header = "namespace N {\nstatic int f(unsigned char byte)\n{\n  return byte == 0xFF;\n}\n}\n"
    assert found(header, "x.h") == [("N::f", 2, 5)]


def test_the_innermost_function_around_lines() -> None:
    source = b"int f(void)\n{\n}\nint g(void)\n{\n  x();\n}\n"
    every = functions(source, "x.c")
    inner = function_at(every, 6, 6)
    assert inner is not None
    assert (inner.name, inner.body_first_line, inner.body_last_line) == ("g", 5, 7)
    assert source[inner.start_byte : inner.end_byte] == b"int g(void)\n{\n  x();\n}"
    assert function_at(every, 2, 5) is None


def test_a_parse_without_bounds_is_given_up_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_STEPS", 10)
    source = b"int f(void) { return 0; }\n" * 1000
    assert outline(source, "x.c").is_too_complex
    assert functions(source, "x.c") == ()
    assert statement_ranges(source, "x.c") == ()
    assert names(source, 1, 9, "x.c") == ()
    assert symbols(source, "x.c") == ()


def test_a_parse_keeps_nothing_of_the_source() -> None:
    source = b"int f(void) { return 0; } /* some text */\n" * 2_000
    outline(source, "x.c")
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(10):
        outline(source, "x.c")
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < len(source)


FUNCTION = b"""static int f(struct easy *data, int n)
{
  int i = 0;   /* hi
  there */
  char *p = NULL;
  if(!p) {
    p = get(n); /* why */
    i++;
  }
  else if(n)
    return OK;
#ifdef USE_X
  x(p);
#else
  y(&i);
#endif
  switch(n) { case 0: break;
  case 1:
    a();
    b(q->member, kMode);
  }
out:
  drop(p); drop(q);
  return i;
}
"""


def test_masks_are_runs_of_whole_statements() -> None:
    ranges = set(statement_ranges(FUNCTION, "x.c"))
    for allowed in [(5, 5), (6, 11), (5, 11), (7, 7), (7, 8), (8, 8), (11, 11), (13, 13), (15, 15), (6, 21), (18, 20)]:
        assert LineRange(*allowed) in ranges
    for allowed in [(19, 19), (19, 20), (22, 23), (23, 23), (23, 24), (5, 24)]:
        assert LineRange(*allowed) in ranges
    # Half a comment, half an if, half a conditional, a label alone, a brace, the body.
    for refused in [
        (3, 3),
        (6, 9),
        (10, 11),
        (13, 15),
        (12, 14),
        (22, 22),
        (9, 9),
        (3, 24),
        (17, 17),
        (17, 18),
        (1, 25),
    ]:
        assert LineRange(*refused) not in ranges
    assert sorted(ranges) == list(statement_ranges(FUNCTION, "x.c"))


def test_every_mask_leaves_balanced_code() -> None:
    lines = FUNCTION.split(b"\n")
    for mask in statement_ranges(FUNCTION, "x.c"):
        rest = b"\n".join([*lines[: mask.first_line - 1], b"MASK;", *lines[mask.last_line :]])
        (only,) = functions(rest, "x.c")
        assert not only.has_error, rest.decode()
        assert only.last_line == rest.count(b"\n")
        assert len(re.findall(rb"#if", rest)) == len(re.findall(rb"#endif", rest))


def test_the_statements_next_to_a_mask() -> None:
    assert cparse.neighbours(FUNCTION, LineRange(7, 7), "x.c") == (LineRange(8, 8),)
    assert cparse.neighbours(FUNCTION, LineRange(6, 11), "x.c") == (LineRange(5, 5), LineRange(13, 13))
    assert cparse.neighbours(FUNCTION, LineRange(11, 11), "x.c") == ()


def test_names_have_the_kind_of_their_use() -> None:
    kinds = {name.name: (name.kind, name.is_local) for name in names(FUNCTION, 1, 25, "x.c")}
    assert kinds["data"] == ("pointer variable", True)
    assert kinds["q"] == ("pointer variable", False)
    assert kinds["i"] == ("variable", True)
    assert kinds["easy"] == ("type", False)
    assert kinds["get"] == ("function", False)
    assert kinds["OK"] == kinds["USE_X"] == ("macro", False)
    assert kinds["member"] == ("member", False)
    assert kinds["kMode"] == ("variable", False)
    assert kinds["out"] == ("label", True)
    assert kinds["f"] == ("function", True)
    assert kinds["x"] == kinds["y"] == ("function", False)
    assert not {"int", "char", "NULL", "switch", "hi", "there"} & set(kinds)
    assert [name.name for name in names(FUNCTION, 7, 8, "x.c")] == ["get", "i", "n", "p"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"a = b + c; /* x */\n", b"a=b+c;// y\n", True),
        (b'f("a b");', b'f("ab");', False),
        (b'f("/* no comment */");', b'f("");', False),
        (b"int x;", b"in tx;", False),
        (b"a - -b", b"a--b", False),
        (b"#define A\nB", b"#define A B", False),
        (b"if (a)\r\n\tb ( ) ;", b"if(a) b();", True),
        (b"a /* 1 */ b", b"a b", True),
        (b"x = 'a';", b"x = ' ';", False),
    ],
)
def test_only_the_format_differs(one: bytes, other: bytes, same: bool) -> None:
    assert (strip(one, "x.c") == strip(other, "x.c")) == same


def test_parameters_of_old_style_definitions_are_local() -> None:
    source = b"char *\nf(string, c)\n  char *string;\n  int c UNUSED;\n{\n  return string + c + d;\n}\n"
    kinds = {name.name: (name.kind, name.is_local) for name in names(source, 6, 6, "x.c")}
    assert kinds == {"string": ("pointer variable", True), "c": ("variable", True), "d": ("variable", False)}
    assert LineRange(6, 6) not in statement_ranges(source, "x.c")  # the whole body
    assert LineRange(6, 6) in statement_ranges(source.replace(b"  return", b"  x();\n  return"), "x.c")


def test_symbols_of_a_file() -> None:
    source = b"""#define FOO(x) \\
  (x)
typedef struct { int a; char *b; } foo_t;
struct bar { int (*fn)(void);
  int last; };
enum E { E1,
  E2 = 3 };
extern int ext;
static int tab[] = { 1 };
int proto(void);
struct opaque;
struct opaque *make(struct opaque *p) { int local; return p; }
#ifdef X
int one;
#else
int two;
#endif
"""
    every = {(s.name, s.kind, s.first_line, s.last_line, s.is_declaration_only) for s in symbols(source, "x.c")}
    assert every == {
        ("FOO", "macro", 1, 2, False),
        ("foo_t", "typedef", 3, 3, False),
        ("a", "member", 3, 3, False),
        ("b", "member", 3, 3, False),
        ("bar", "struct", 4, 5, False),
        ("fn", "member", 4, 4, False),
        ("last", "member", 5, 5, False),
        ("E", "enum", 6, 7, False),
        ("E1", "constant", 6, 6, False),
        ("E2", "constant", 7, 7, False),
        ("ext", "variable", 8, 8, True),
        ("tab", "variable", 9, 9, False),
        ("proto", "function", 10, 10, True),
        ("opaque", "struct", 11, 11, True),
        ("make", "function", 12, 12, False),
        ("one", "variable", 14, 14, False),
        ("two", "variable", 16, 16, False),
    }


def defined(source: str, path: str = "x.c") -> set[tuple[str, str, int, int, bool]]:
    return {(s.name, s.kind, s.first_line, s.last_line, s.is_declaration_only) for s in symbols(source.encode(), path)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # Before a declaration.
        ("EXTERN char e[] INIT(= N_(\"a; b\"));\n", {("e", "variable", 1, 1, False)}),
        ("EXTERN pos_T p INIT2(0, 0);\nEXTERN buf_T *b\n  INIT(= NULL);\n",
         {("p", "variable", 1, 1, False), ("b", "variable", 2, 3, False)}),
        ("LIB_EXTERN const struct x *\nf(int a);\n", {("f", "function", 1, 2, True)}),
        ("LIB_EXTERN Code LIB_DEPRECATED(7.56, \"no\")\nf(struct x **p, ...);\n", {("f", "function", 1, 2, True)}),
        ("GF_EXPORT\nstruct x *f(int a)\n{\n}\n", {("f", "function", 1, 4, False)}),
        ("static __exception int f(int a);\n", {("f", "function", 1, 1, True)}),
        # Within and after one.
        ("int ZEXPORT f OF((int a,\n  int b));\n", {("f", "function", 1, 2, True)}),
        ("int CUDAAPI f(unsigned a);\n", {("f", "function", 1, 1, True)}),
        ("typedef LONG (APIENTRY *FN)(struct x *);\n", {("FN", "typedef", 1, 1, False)}),
        ("void f(const char *p, ...) PRINTF(1, 2);\nint g(void) MUST_CHECK;\n",
         {("f", "function", 1, 1, True), ("g", "function", 2, 2, True)}),
        ("static int\nf(PyObject *self UNUSED, char *b UNUSED)\n{\n}\n", {("f", "function", 1, 4, False)}),
        ("struct s {\n  int n UNUSED;\n  unsigned int LONG;\n};\n",
         {("s", "struct", 1, 4, False), ("n", "member", 2, 2, False), ("LONG", "member", 3, 3, False)}),
        # Alone.
        ("BOX(aaaa)\nBOX(bbbb)\nBOX(cccc)\nstatic struct s {\n  int m;\n} t[] = { 1 };\n",
         {("s", "struct", 4, 6, False), ("m", "member", 5, 5, False), ("t", "variable", 4, 6, False)}),
        ("typedef struct {\n  BASE_BOX\n  CHILDREN(x)\n  int m;\n  void (*f)(int);\n} T;\ntypedef struct { BOX\n} U;\n",
         {("m", "member", 4, 4, False), ("f", "member", 5, 5, False), ("T", "typedef", 1, 6, False),
          ("U", "typedef", 7, 8, False)}),
        ("struct s {\n  BIT(one); BIT(two);\n};\n",
         {("s", "struct", 1, 3, False), ("one", "member", 2, 2, False), ("two", "member", 2, 2, False)}),
        # Enumerators.
        ("#define OPT(name, type, no) name = type + no\n#define PASTE(x) A_##x\nenum e {\n  OPT(ONE, T, 1),\n"
         "  OLD DEPRECATED(1.2)\n    = 3,\n  PASTE(z), OTHER(y),\n  LAST };\n",
         {("OPT", "macro", 1, 1, False), ("PASTE", "macro", 2, 2, False), ("e", "enum", 3, 8, False),
          ("ONE", "constant", 4, 4, False), ("OLD", "constant", 5, 6, False), ("LAST", "constant", 8, 8, False)}),
        ("typedef enum { A, B = 3 } e_t;\nenum { C };\n",
         {("A", "constant", 1, 1, False), ("B", "constant", 1, 1, False), ("e_t", "typedef", 1, 1, False),
          ("C", "constant", 2, 2, False)}),
        # No names: a macro that makes a signature, a dollar, a type's own name where it is defined.
        ("static GETTER(x) {\n}\nint FOO(int a);\n", {("FOO", "function", 3, 3, True)}),
        ("#define sys$open f\n", set()),
        ("typedef unsigned char uint8_t;\n", {("uint8_t", "typedef", 1, 1, False)}),
        # As C has it.
        ("int a, *b, c[2], (*d)(void);\n", {(name, "variable", 1, 1, False) for name in "abcd"}),
        ("struct s { unsigned a : 1, b : 2; };\n",
         {("s", "struct", 1, 1, False), ("a", "member", 1, 1, False), ("b", "member", 1, 1, False)}),
        ("int f(a, b)\n  int a;\n  char *b;\n{\n  struct in { int x; } y;\n}\nint g;\n",
         {("f", "function", 1, 6, False), ("g", "variable", 7, 7, False)}),
        ("    char_u *\nf(string, n)\n    char_u *string;\n    int n UNUSED;\n{\n  x();\n}\n    void\ng(f)\n"
         "  int (*f)();\n{\n}\n", {("f", "function", 1, 7, False), ("g", "function", 8, 12, False)}),
        ("char_u *f __ARGS((int a));\nEXTERN iconv_t (*open) __ARGS((int to));\n",
         {("f", "function", 1, 1, True), ("open", "variable", 2, 2, False)}),
        ("struct __attribute__((packed)) s {\n  int m;\n};\nstruct s *f(void) {\n  int n;\n}\n",
         {("s", "struct", 1, 3, False), ("m", "member", 2, 2, False), ("f", "function", 4, 6, False)}),
        ("DWORD\nf(void)\n{\n}\nstatic DWORD WINAPI g(void *p) {\n}\n",
         {("f", "function", 1, 4, False), ("g", "function", 5, 6, False)}),
        ("int f(void) {\n#ifdef A\n  if(a) {\n#else\n  {\n#endif\n  }\n#define IN 1\n}\nint g;\n",
         {("f", "function", 1, 9, False), ("IN", "macro", 8, 8, False), ("g", "variable", 10, 10, False)}),
        ("#ifdef A\nint f(int a) {\n#else\nint f(void) {\n#endif\n  x();\n}\nint g;\n",
         {("f", "function", 2, 7, False), ("g", "variable", 8, 8, False)}),
    ],
)  # fmt: skip
def test_macros_do_not_hide_what_a_file_defines(source: str, expected: set[tuple[str, str, int, int, bool]]) -> None:
    assert defined(source) == expected


def test_classes_of_cpp_have_members_and_methods() -> None:
    source = """namespace n {
class LIB_API K : public B {
  int a_, b_;
  static const int kMax = 3;
public:
  K(int x) : a_(x) { int local = x; }
  int get() const;
};
}
enum class Mode { fast, slow };
"""
    assert {(s.name, s.kind) for s in symbols(source.encode(), "x.cpp")} == {
        ("K", "struct"),
        ("a_", "member"),
        ("b_", "member"),
        ("kMax", "member"),
        ("K", "function"),
        ("get", "function"),
        ("Mode", "enum"),
        ("fast", "constant"),
        ("slow", "constant"),
    }


def test_what_is_odd_in_a_body_hides_nothing_after_it() -> None:
    source = "int f(void)\n{\n  BEGIN(x\n  y) = [[[;\n  foreach(a) (((\n}\nint g = 1;\nstruct s { int m; };\n"
    names = {name for name, *_ in defined(source)}
    assert names == {"f", "g", "s", "m"}


def test_statements_of_a_body_that_a_macro_opens_define_no_function() -> None:
    source = "static GETTER(x)\n  if (count(a) < 3)\n  {\n    y();\n  }\n  return 1;\n}\nint after(void)\n{\n}\n"
    assert {name for name, kind, *_ in defined(source) if kind == "function"} == {"after"}


@pytest.mark.parametrize("opening", [b"enum {\n", b"enum { struct {\n", b"struct { enum {\n"])
def test_types_in_types_are_not_read_once_per_level(opening: bytes) -> None:
    source = opening * 1_000 + b"A FOO = 1,\n" + b"}" * opening.count(b"{") * 1_000
    assert 0 < sum(end - start for start, end, _ in outside._aggregates(source)) <= 2 * len(source)


def test_includes_are_listed_once_in_order() -> None:
    source = b'#include "a.h"\n# include <sys/b.h> /* x */\n/*\n#include "no.h"\n*/\n#include "a.h"\n'
    assert cparse.includes(source, "x.c") == ("a.h", "sys/b.h")


PIECES = rb"""int f(void) {|}|{|(|)|;|#if A~|#else~|#elif B~|#endif~|#if 0~|"|'|/*|*/|//|x| |R"(|)"|case 1:|out:|if(a)
|FOO~|struct s|typedef |enum e {a,b}|->m|*p|[1]|= 1|#define X |class K : B {|K::f() {|template<class T> |namespace n {|~
|\~|\|#|<:|~~|@0|@255"""
_ODD = {b"@0": b"\x00", b"@255": b"\xff"}
_WORDS = [_ODD.get(piece, piece) for piece in PIECES.replace(b"\n", b"").replace(b"~", b"\n").split(b"|")]
SOURCES = st.lists(st.sampled_from(_WORDS), max_size=40).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(SOURCES | st.binary(max_size=200), st.sampled_from(["x.c", "x.h", "x.cpp"]))
@example(b'#if(a)"R"(', "x.c")
@example(b"#if HAV'_N'x\n", "x.c")
@example(b"bool K::\xce\xcef(const K &s) const\n{\n  if(s);\n}\n", "x.cpp")
def test_any_bytes_are_taken_and_positions_stay_inside(source: bytes, path: str) -> None:
    n_lines = source.count(b"\n") + 1
    for function in functions(source, path):
        assert 0 <= function.start_byte < function.end_byte <= len(source)
        assert 1 <= function.first_line <= function.body_first_line <= function.body_last_line <= function.last_line
        assert function.last_line <= n_lines
    for lines in statement_ranges(source, path):
        assert 1 <= lines.first_line <= lines.last_line <= n_lines
        cparse.neighbours(source, lines, path)
    for symbol in symbols(source, path):
        assert 1 <= symbol.first_line <= symbol.last_line <= n_lines
        assert symbol.name.encode() in source
    for name in names(source, 1, n_lines, path):
        assert name.name.encode() in source
    stripped = strip(source, path)
    assert strip(stripped, path) == stripped or b"\n" in source or b'"' in source or b"'" in source


@pytest.mark.parametrize(
    "source",
    [
        b"(" * 900,
        b"(" * 100_000,
        b"int f(void) {" + b"{" * 900 + b"x();\n" + b"}" * 900 + b"}",
        b"int f(void) { return " + b"-" * 20_000 + b"1; }",
        b"#if A\n" * 5_000 + b"#endif\n" * 5_000,
        b"int f(void) {\n" + b"if(x)\n" * 3_000 + b"y();\n}",
        b'"' * 20_001 + b"/*" * 5_000,
        b"int f(void) {\n" + b"a:\n" * 10_000 + b"x();\n}",
        b"namespace a { int f(){} }\n" * 5_000,
    ],
)
def test_deep_nesting_needs_no_deep_stack(source: bytes) -> None:
    limit = sys.getrecursionlimit()
    for path in ("x.c", "x.cpp"):
        outline(source, path)
        statement_ranges(source, path)
        names(source, 1, 5, path)
        symbols(source, path)
        strip(source, path)
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize(
    ("text", "returns", "parameters"),
    [
        ("static int f(char *dst, const int n[4], ...)\n{\n}\n", "int", ("char *dst", "const int n[4]")),
        ("int f(void)\n{\n}\n", "int", ()),
        ("void on(int (*call)(int a), struct s *p) { g(1); }\n", "void", ("int (*call)(int a)", "struct s *p")),
        ("  static char_u *\nold(a, b)\nint a; char *b;\n{\n}\n", "char_u *", ("a", "b")),
        ("void A::run(const std::string &s, int n = 3) { }\n", "void", ("const std::string &s", "int n = 3")),
        ("int f(\n    char *a, /* what */\n    int b // and\n) { }\n", "int", ("char *a", "int b")),
        ("int x;\n", "", ()),
        ("((((", "", ()),
    ],
)
def test_a_signature_has_the_parameters_in_their_order(text: str, returns: str, parameters: tuple[str, ...]) -> None:
    found = signature(text.encode(), "a.cpp" if "::" in text else "a.c")
    assert (found.returns, found.parameters) == (returns, parameters)


@pytest.mark.parametrize(
    ("above", "comment"),
    [
        ("int x;\n/* Does it. */\n", "/* Does it. */"),
        ("/*\n * Does it,\n * twice.\n */\n\n", "/*\n * Does it,\n * twice.\n */"),
        ("int x;\n// Does it,\n// twice.\n", "// Does it,\n// twice."),
        ("/* Of something else. */\n\n\n", ""),
        ("int x; /* of x,\n not of f */\n", ""),
        ("of nothing */\n", ""),
        ("#endif\n", ""),
        ("", ""),
    ],
)
def test_a_comment_above_a_function_is_found(above: str, comment: str) -> None:
    source = f"{above}int f(void)\n{{\n}}\n"
    assert comment_above(source.encode(), above.count("\n") + 1) == comment


# ------------------------------------------------------------------- what is never closed


@pytest.mark.parametrize("cpp", [False, True])
@pytest.mark.parametrize(
    ("opened", "again"), [(b'"', b'\\"'), (b"'", b"\\'"), (b"x = '", b"\\'\\\""), (b"", b'R"('), (b"", b'u8R"x(')]
)
def test_a_literal_that_is_never_closed_is_read_once(cpp: bool, opened: bytes, again: bytes) -> None:
    # Read anew from each quote this would take hours.
    source = opened + again * 1_000_000 + b"\nint f(void)\n{\n}\n"
    lexis = Lexis(source, cpp)
    assert len(lexis.skeleton) == len(source)
    assert len(lexis.literals) <= 1_000_000


def test_a_raw_string_is_one_in_cpp_alone() -> None:
    source = b'a = R"(b)" + R"x(c" // )x";\n'
    assert Lexis(source, cpp=True).skeleton == b'a = "____" + "___________";\n'
    assert Lexis(source, cpp=False).skeleton == b'a = R"___" + R"___"        \n'


def test_an_escaped_quote_outside_of_a_literal_opens_none() -> None:
    assert Lexis(b'\' \\" "a"\n', cpp=False).skeleton == b'\' \\" "_"\n'
