/* Archives: many parcels in one payload. */
#ifndef PARCEL_ARCHIVE_H
#define PARCEL_ARCHIVE_H

#include "store.h"

#define ARCHIVE_MAGIC 0x50434c31u /* "PCL1" */
#define ARCHIVE_ENTRY_SIZE 12     /* offset, size, name length */

struct archive_entry {
    uint32_t offset;
    uint32_t size;
    uint32_t name_len;
    char name[PARCEL_NAME_MAX];
};

struct archive {
    struct archive_entry *entries;
    size_t count;
    const unsigned char *data;
    size_t len;
};

int archive_load(struct archive *archive, const unsigned char *data, size_t len);
void archive_free(struct archive *archive);
int archive_extract(const struct archive *archive, struct store *store);

#endif
