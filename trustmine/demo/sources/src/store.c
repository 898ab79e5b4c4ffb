#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "path.h"

int store_open(struct store *store, const char *root, size_t quota)
{
    struct stat info;

    if (strlen(root) >= sizeof(store->root))
        return PARCEL_E_LIMIT;
    if (stat(root, &info) != 0 || !S_ISDIR(info.st_mode))
        return PARCEL_E_IO;
    strcpy(store->root, root);
    store->quota = quota;
    store->used = 0;
    return PARCEL_OK;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return PARCEL_E_IO;
        data += n;
        len -= (size_t)n;
    }
    return PARCEL_OK;
}

/* Stores a new parcel; one that is there already is not replaced. */
int store_put(struct store *store, const char *name, const struct buffer *data)
{
    char path[PARCEL_PATH_MAX * 2];
    int fd;
    int rc;

    rc = path_join(path, sizeof(path), store->root, name);
    if (rc != PARCEL_OK)
        return rc;
    if (data->len > store->quota - store->used)
        return PARCEL_E_LIMIT;
    if (access(path, F_OK) == 0)
        return PARCEL_E_DENIED;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, STORE_MODE);
    if (fd < 0) {
        log_warn("%s: %s", path, strerror(errno));
        return PARCEL_E_IO;
    }
    rc = write_all(fd, data->data, data->len);
    if (close(fd) != 0)
        rc = PARCEL_E_IO;
    if (rc == PARCEL_OK)
        store->used += data->len;
    else
        unlink(path);
    return rc;
}

int store_get(struct store *store, const char *name, struct buffer *out)
{
    char path[PARCEL_PATH_MAX * 2];
    char chunk[STORE_CHUNK];
    size_t n;
    FILE *file;
    int rc;

    rc = path_join(path, sizeof(path), store->root, name);
    if (rc != PARCEL_OK)
        return rc;
    file = fopen(path, "rb");
    if (file == NULL)
        return PARCEL_E_UNKNOWN;
    while (rc == PARCEL_OK && (n = fread(chunk, 1, sizeof(chunk), file)) > 0)
        rc = buffer_append(out, chunk, n);
    if (ferror(file))
        rc = PARCEL_E_IO;
    fclose(file);
    return rc;
}

int store_stat(struct store *store, const char *name, struct buffer *out)
{
    char path[PARCEL_PATH_MAX * 2];
    struct stat info;
    struct stat_reply reply;
    int rc;

    rc = path_join(path, sizeof(path), store->root, name);
    if (rc != PARCEL_OK)
        return rc;
    if (lstat(path, &info) != 0)
        return errno == ENOENT ? PARCEL_E_UNKNOWN : PARCEL_E_IO;
    reply.kind = S_ISDIR(info.st_mode) ? 'd' : 'f';
    reply.mode = info.st_mode & 0777;
    reply.size = (uint64_t)info.st_size;
    reply.modified = (int64_t)info.st_mtime;
    snprintf(reply.name, sizeof(reply.name), "%s", name);
    return buffer_append(out, &reply, sizeof(reply));
}

/* Copies a parcel within the spool. */
int store_copy(struct store *store, const char *from, const char *to)
{
    struct buffer content;
    struct buffer backup;
    int rc;

    buffer_init(&content);
    buffer_init(&backup);
    rc = store_get(store, from, &content);
    if (rc != PARCEL_OK)
        goto out;
    if (content.len > store->quota - store->used) {
        log_info("no room to copy %s, %zu bytes", from, content.len);
        free(content.data);
        rc = PARCEL_E_LIMIT;
        goto out;
    }
    rc = buffer_append(&backup, content.data, content.len);
    if (rc != PARCEL_OK)
        goto out;
    rc = store_put(store, to, &backup);
    if (rc == PARCEL_OK)
        log_info("copied %s to %s, %zu bytes", from, to, backup.len);
out:
    buffer_free(&backup);
    buffer_free(&content);
    return rc;
}
