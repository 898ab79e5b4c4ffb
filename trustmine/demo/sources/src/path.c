#include "path.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* One name without separators, and neither "." nor "..". */
int path_is_component(const char *name)
{
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    return strchr(name, PATH_SEPARATOR) == NULL;
}

/* Whether any component of `name` is "..". */
int path_has_parent(const char *name)
{
    const char *p = name;

    while ((p = strstr(p, "..")) != NULL) {
        int starts = p == name || p[-1] == PATH_SEPARATOR;
        int ends = p[2] == '\0' || p[2] == PATH_SEPARATOR;

        if (starts && ends)
            return 1;
        p += 2;
    }
    return 0;
}

/* The path of `name` below `root`. */
int path_join(char *out, size_t out_size, const char *root, const char *name)
{
    size_t root_len = strlen(root);
    int written;

    if (*name == '\0' || strlen(name) >= PARCEL_PATH_MAX)
        return PARCEL_E_LIMIT;
    while (root_len > 1 && root[root_len - 1] == PATH_SEPARATOR)
        root_len--;
    if (name[0] == PATH_SEPARATOR)
        return PARCEL_E_DENIED;
    written = snprintf(out, out_size, "%.*s/%s", (int)root_len, root, name);
    if (written < 0 || (size_t)written >= out_size)
        return PARCEL_E_LIMIT;
    return PARCEL_OK;
}

static int hex_value(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return tolower(c) - 'a' + 10;
}

/* Undoes %XX escapes. */
int path_decode(char *out, size_t out_size, const char *text)
{
    size_t used = 0;

    while (*text != '\0') {
        char c = *text++;

        if (c == '%') {
            if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]))
                return PARCEL_E_SYNTAX;
            c = (char)(hex_value(text[0]) << 4 | hex_value(text[1]));
            text += 2;
            if (c == '\0')
                return PARCEL_E_SYNTAX;
        }
        if (used >= out_size)
            return PARCEL_E_LIMIT;
        out[used++] = c;
    }
    out[used] = '\0';
    return PARCEL_OK;
}
