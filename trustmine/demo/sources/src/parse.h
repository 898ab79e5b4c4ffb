/* Frames: an 8-byte header (type, flags, 16-bit tag, 32-bit length), then the payload. */
#ifndef PARCEL_PARSE_H
#define PARCEL_PARSE_H

#include "buffer.h"

#define FIELD_MAX 16

enum frame_type { FRAME_COMMAND = 1, FRAME_DATA = 2, FRAME_REPLY = 3, FRAME_BYE = 4 };

struct frame {
    uint8_t type;
    uint8_t flags;
    uint16_t tag;
    uint32_t length;
    const unsigned char *payload;
};

struct field {
    char name[PARCEL_NAME_MAX];
    const char *value;
    size_t value_len;
};

struct field_list {
    struct field fields[FIELD_MAX];
    size_t count;
};

uint16_t read_be16(const unsigned char *p);
uint32_t read_be32(const unsigned char *p);
int parse_frame(const struct buffer *in, struct frame *frame);
int parse_fields(const char *text, size_t len, struct field_list *list);

#endif
