#include <assert.h>
#include <string.h>

#include "path.h"

struct join_case {
    const char *root;
    const char *name;
    int rc;
    const char *path;
};

static const struct join_case join_cases[] = {
    {"/spool", "letter", PARCEL_OK, "/spool/letter"},
    {"/spool/", "letter", PARCEL_OK, "/spool/letter"},
    {"/spool///", "letter", PARCEL_OK, "/spool/letter"},
    {"/", "letter", PARCEL_OK, "//letter"},
    {"/spool", "a/b", PARCEL_OK, "/spool/a/b"},
    {"/spool", "..a", PARCEL_OK, "/spool/..a"},
    {"/spool", "a..", PARCEL_OK, "/spool/a.."},
    {"/spool", "", PARCEL_E_LIMIT, NULL},
    {"/spool", "/etc/passwd", PARCEL_E_DENIED, NULL},
    {"/spool", "..", PARCEL_E_DENIED, NULL},
    {"/spool", "../letter", PARCEL_E_DENIED, NULL},
    {"/spool", "a/../../letter", PARCEL_E_DENIED, NULL},
    {"/spool", "a/..", PARCEL_E_DENIED, NULL},
};

static void joins_below_the_root(void)
{
    char path[PARCEL_PATH_MAX * 2];
    size_t i;

    for (i = 0; i < ARRAY_LEN(join_cases); i++) {
        const struct join_case *c = &join_cases[i];

        assert(path_join(path, sizeof(path), c->root, c->name) == c->rc);
        if (c->path != NULL)
            assert(strcmp(path, c->path) == 0);
    }
}

static void refuses_what_does_not_fit(void)
{
    char path[8];

    assert(path_join(path, sizeof(path), "/s", "1234") == PARCEL_OK);
    assert(strcmp(path, "/s/1234") == 0);
    assert(path_join(path, sizeof(path), "/s", "12345") == PARCEL_E_LIMIT);
}

static void knows_components(void)
{
    assert(path_is_component("letter"));
    assert(path_is_component("..."));
    assert(path_is_component(".hidden"));
    assert(!path_is_component(""));
    assert(!path_is_component("."));
    assert(!path_is_component(".."));
    assert(!path_is_component("a/b"));
    assert(!path_is_component("/a"));
}

static void decodes_escapes(void)
{
    char out[8];

    assert(path_decode(out, sizeof(out), "a%20b") == PARCEL_OK);
    assert(strcmp(out, "a b") == 0);
    assert(path_decode(out, sizeof(out), "%41%42%63") == PARCEL_OK);
    assert(strcmp(out, "ABc") == 0);
    assert(path_decode(out, sizeof(out), "%2e%2E") == PARCEL_OK);
    assert(strcmp(out, "..") == 0);
    assert(path_decode(out, sizeof(out), "a%00") == PARCEL_E_SYNTAX);
    assert(path_decode(out, sizeof(out), "a%") == PARCEL_E_SYNTAX);
    assert(path_decode(out, sizeof(out), "a%4") == PARCEL_E_SYNTAX);
    assert(path_decode(out, sizeof(out), "a%zz") == PARCEL_E_SYNTAX);
    assert(path_decode(out, sizeof(out), "1234567") == PARCEL_OK);
    assert(path_decode(out, sizeof(out), "12345678") == PARCEL_E_LIMIT);
}

static void finds_parents(void)
{
    assert(path_has_parent(".."));
    assert(path_has_parent("a/../b"));
    assert(path_has_parent("a/.."));
    assert(!path_has_parent("a..b"));
    assert(!path_has_parent("..b/c.."));
}

int main(void)
{
    finds_parents();
    joins_below_the_root();
    refuses_what_does_not_fit();
    knows_components();
    decodes_escapes();
    return 0;
}
