/* The spool: one file per parcel. */
#ifndef PARCEL_STORE_H
#define PARCEL_STORE_H

#include <sys/types.h>

#include "buffer.h"

#define STORE_MODE 0640
#define STORE_CHUNK 4096

struct store {
    char root[PARCEL_PATH_MAX];
    size_t quota;
    size_t used;
};

/* What STAT sends, as it goes over the wire. */
struct stat_reply {
    uint8_t kind;
    uint32_t mode;
    uint64_t size;
    int64_t modified;
    char name[PARCEL_NAME_MAX];
};

int store_open(struct store *store, const char *root, size_t quota);
int store_put(struct store *store, const char *name, const struct buffer *data);
int store_get(struct store *store, const char *name, struct buffer *out);
int store_stat(struct store *store, const char *name, struct buffer *out);
int store_copy(struct store *store, const char *from, const char *to);

#endif
