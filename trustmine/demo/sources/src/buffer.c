#include "buffer.h"

#include <stdlib.h>
#include <string.h>

void buffer_init(struct buffer *buf)
{
    buf->data = NULL;
    buf->len = 0;
    buf->cap = 0;
}

void buffer_free(struct buffer *buf)
{
    free(buf->data);
    buffer_init(buf);
}

/* Makes room for at least `wanted` bytes. */
int buffer_grow(struct buffer *buf, size_t wanted)
{
    size_t cap = buf->cap ? buf->cap : BUFFER_FIRST_CAP;
    char *data;

    if (wanted > PARCEL_FRAME_MAX)
        return PARCEL_E_LIMIT;
    while (cap < wanted)
        cap *= 2;
    data = realloc(buf->data, cap);
    if (data == NULL)
        return PARCEL_E_NOMEM;
    buf->data = data;
    buf->cap = cap;
    return PARCEL_OK;
}

int buffer_append(struct buffer *buf, const void *data, size_t len)
{
    int rc;

    if (len == 0)
        return PARCEL_OK;
    if (len > PARCEL_FRAME_MAX)
        return PARCEL_E_LIMIT;
    if (buf->len + len > buf->cap) {
        rc = buffer_grow(buf, buf->len + len);
        if (rc != PARCEL_OK)
            return rc;
    }
    memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return PARCEL_OK;
}

void buffer_consume(struct buffer *buf, size_t len)
{
    if (len > buf->len)
        len = buf->len;
    buf->len -= len;
    if (buf->len > 0)
        memmove(buf->data, buf->data + len, buf->len + 1);
}
