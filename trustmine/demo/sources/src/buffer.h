/* A growable run of bytes that always ends in a NUL which is not counted. */
#ifndef PARCEL_BUFFER_H
#define PARCEL_BUFFER_H

#include "parcel.h"

#define BUFFER_FIRST_CAP 128

struct buffer {
    char *data;
    size_t len;
    size_t cap;
};

void buffer_init(struct buffer *buf);
void buffer_free(struct buffer *buf);
int buffer_grow(struct buffer *buf, size_t wanted);
int buffer_append(struct buffer *buf, const void *data, size_t len);
void buffer_consume(struct buffer *buf, size_t len);

#endif
