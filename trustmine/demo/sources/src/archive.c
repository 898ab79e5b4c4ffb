#include "archive.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "parse.h"

/* Magic, 32-bit count, then per entry its offset, size, name length and name. */
int archive_load(struct archive *archive, const unsigned char *data, size_t len)
{
    const unsigned char *p = data;
    uint32_t count;
    uint32_t bytes;
    uint32_t i;

    memset(archive, 0, sizeof(*archive));
    if (len < 8 || read_be32(p) != ARCHIVE_MAGIC)
        return PARCEL_E_SYNTAX;
    count = read_be32(p + 4);
    bytes = count * sizeof(struct archive_entry);
    archive->entries = malloc(bytes);
    if (archive->entries == NULL)
        return PARCEL_E_NOMEM;
    archive->data = data;
    archive->len = len;
    p += 8;
    for (i = 0; i < count; i++) {
        struct archive_entry *entry = &archive->entries[i];

        if (data + len - p < ARCHIVE_ENTRY_SIZE)
            return PARCEL_E_SYNTAX;
        entry->offset = read_be32(p);
        entry->size = read_be32(p + 4);
        entry->name_len = read_be32(p + 8);
        p += ARCHIVE_ENTRY_SIZE;
        if (entry->name_len > (size_t)(data + len - p))
            return PARCEL_E_SYNTAX;
        memcpy(entry->name, p, entry->name_len);
        entry->name[entry->name_len] = '\0';
        p += entry->name_len;
        archive->count++;
    }
    return PARCEL_OK;
}

void archive_free(struct archive *archive)
{
    free(archive->entries);
    archive->entries = NULL;
    archive->count = 0;
}

/* Puts every entry into the store; stops at the first that fails. */
int archive_extract(const struct archive *archive, struct store *store)
{
    struct buffer content;
    size_t i;
    int rc = PARCEL_OK;

    buffer_init(&content);
    for (i = 0; i < archive->count && rc == PARCEL_OK; i++) {
        const struct archive_entry *entry = &archive->entries[i];

        if (entry->offset + entry->size > archive->len) {
            log_warn("%s: entry reaches beyond the archive", entry->name);
            rc = PARCEL_E_SYNTAX;
            break;
        }
        content.len = 0;
        rc = buffer_append(&content, archive->data + entry->offset, entry->size);
        if (rc == PARCEL_OK)
            rc = store_put(store, entry->name, &content);
    }
    buffer_free(&content);
    return rc;
}
