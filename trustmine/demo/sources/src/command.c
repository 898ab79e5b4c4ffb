#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "path.h"

static int cmd_login(struct server *server, struct session *s, const char *arg)
{
    struct field_list fields;
    int rc = parse_fields(arg, strlen(arg), &fields);

    (void)server;
    return rc == PARCEL_OK ? session_login(s, &fields) : rc;
}

static int cmd_get(struct server *server, struct session *s, const char *arg)
{
    char name[PARCEL_PATH_MAX];
    int rc = path_decode(name, sizeof(name), arg);

    return rc == PARCEL_OK ? store_get(&server->store, name, &s->out) : rc;
}

static int cmd_stat(struct server *server, struct session *s, const char *arg)
{
    return store_stat(&server->store, arg, &s->out);
}

/* COPY from=NAME;to=NAME */
static int cmd_copy(struct server *server, struct session *s, const char *arg)
{
    char names[2][PARCEL_PATH_MAX] = {"", ""};
    struct field_list fields;
    size_t i;
    int rc;

    rc = parse_fields(arg, strlen(arg), &fields);
    if (rc != PARCEL_OK)
        return rc;
    for (i = 0; i < fields.count; i++) {
        int which = strcmp(fields.fields[i].name, "to") == 0;

        snprintf(names[which], sizeof(names[which]), "%.*s", (int)fields.fields[i].value_len, fields.fields[i].value);
    }
    rc = store_copy(&server->store, names[0], names[1]);
    return rc == PARCEL_OK ? session_reply(s, 0, "copied") : rc;
}

/* PURGE NAME: a parcel is gone for everyone. */
static int cmd_purge(struct server *server, struct session *s, const char *arg)
{
    char path[PARCEL_PATH_MAX * 2];
    int rc;

    if (s->account == NULL)
        return PARCEL_E_DENIED;
    if (!path_is_component(arg))
        return PARCEL_E_SYNTAX;
    rc = path_join(path, sizeof(path), server->store.root, arg);
    if (rc != PARCEL_OK)
        return rc;
    if (unlink(path) != 0) {
        log_warn("%s could not purge %s", s->account->name, path);
        return PARCEL_E_IO;
    }
    log_info("%s purged %s", s->account->name, path);
    return session_reply(s, 0, "purged");
}

static const struct command commands[] = {
    {"LOGIN", cmd_login, PERM_NONE},
    {"GET", cmd_get, PERM_READ},
    {"STAT", cmd_stat, PERM_NONE},
    {"COPY", cmd_copy, PERM_READ | PERM_WRITE},
    {"PURGE", cmd_purge, PERM_NONE},
};

/* Runs "NAME argument" of a command frame. */
int command_run(struct server *server, struct session *s, const struct frame *frame)
{
    char line[PARCEL_LINE_MAX];
    char *arg;
    size_t i;

    if (frame->length >= sizeof(line))
        return PARCEL_E_LIMIT;
    memcpy(line, frame->payload, frame->length);
    line[frame->length] = '\0';
    arg = strchr(line, ' ');
    if (arg != NULL)
        *arg++ = '\0';
    else
        arg = line + frame->length;
    for (i = 0; i < ARRAY_LEN(commands); i++) {
        const struct command *command = &commands[i];

        if (strcmp(command->name, line) != 0)
            continue;
        if (command->permissions != PERM_NONE && !session_may(s, command->permissions))
            return PARCEL_E_DENIED;
        return command->run(server, s, arg);
    }
    return PARCEL_E_UNKNOWN;
}
