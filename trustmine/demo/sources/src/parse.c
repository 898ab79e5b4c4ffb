#include "parse.h"

#include <string.h>

uint16_t read_be16(const unsigned char *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

uint32_t read_be32(const unsigned char *p)
{
    return (uint32_t)read_be16(p) << 16 | read_be16(p + 2);
}

/* Reads one frame from the front of `in`. Returns the bytes it takes, 0 if it
 * is not complete yet, or a negative parcel_status. */
int parse_frame(const struct buffer *in, struct frame *frame)
{
    const unsigned char *p = (const unsigned char *)in->data;

    if (in->len < 2)
        return 0;
    frame->type = p[0];
    frame->flags = p[1];
    frame->tag = read_be16(p + 2);
    frame->length = read_be32(p + 4);
    if (frame->type < FRAME_COMMAND || frame->type > FRAME_BYE)
        return PARCEL_E_SYNTAX;
    if (frame->length > PARCEL_FRAME_MAX - PARCEL_HEADER_SIZE)
        return PARCEL_E_LIMIT;
    if (in->len - PARCEL_HEADER_SIZE < frame->length)
        return 0;
    frame->payload = p + PARCEL_HEADER_SIZE;
    return (int)(PARCEL_HEADER_SIZE + frame->length);
}

/* "name=value;name=value" into a list of fields; values point into `text`. */
int parse_fields(const char *text, size_t len, struct field_list *list)
{
    const char *end = text + len;

    list->count = 0;
    while (text < end) {
        const char *stop = memchr(text, ';', (size_t)(end - text));
        const char *equals;
        struct field *field;

        if (stop == NULL)
            stop = end;
        equals = memchr(text, '=', (size_t)(stop - text));
        if (equals == NULL || equals == text)
            return PARCEL_E_SYNTAX;
        if (list->count > FIELD_MAX)
            return PARCEL_E_LIMIT;
        if (equals - text >= PARCEL_NAME_MAX)
            return PARCEL_E_LIMIT;
        field = &list->fields[list->count++];
        memcpy(field->name, text, (size_t)(equals - text));
        field->name[equals - text] = '\0';
        field->value = equals + 1;
        field->value_len = (size_t)(stop - field->value);
        text = stop + 1;
    }
    return PARCEL_OK;
}
