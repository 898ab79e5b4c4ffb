#include <assert.h>
#include <string.h>

#include "parse.h"

static void reads_one_frame(void)
{
    struct buffer in;
    struct frame frame;

    buffer_init(&in);
    assert(buffer_append(&in, "\1\0\0\7\0\0\0\4PING", 12) == PARCEL_OK);
    assert(parse_frame(&in, &frame) == 12);
    assert(frame.tag == 7 && memcmp(frame.payload, "PING", 4) == 0);
    buffer_free(&in);
}

static void splits_fields(void)
{
    struct field_list list;
    const char *text = "user=mara;secret=none";

    assert(parse_fields(text, strlen(text), &list) == PARCEL_OK);
    assert(list.count == 2 && strcmp(list.fields[1].name, "secret") == 0);
}

int main(void)
{
    reads_one_frame();
    splits_fields();
    return 0;
}
