#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define ACCOUNT_LIMIT 32

static struct account accounts[ACCOUNT_LIMIT];
static size_t account_count;

const struct account *account_find(const char *name)
{
    size_t i;

    for (i = 0; i < account_count; i++)
        if (strcmp(accounts[i].name, name) == 0)
            return &accounts[i];
    return NULL;
}

int account_add(const char *name, const char *secret, unsigned permissions)
{
    struct account *account;

    if (account_count == ACCOUNT_LIMIT)
        return PARCEL_E_LIMIT;
    account = &accounts[account_count++];
    snprintf(account->name, sizeof(account->name), "%s", name);
    snprintf(account->secret, sizeof(account->secret), "%s", secret);
    account->permissions = permissions;
    return PARCEL_OK;
}

struct session *session_open(struct session_table *table, int fd, const char *peer)
{
    struct session *s;

    if (table->used == SESSION_LIMIT)
        return NULL;
    s = calloc(1, sizeof(*s));
    s->fd = fd;
    snprintf(s->peer, sizeof(s->peer), "%s", peer);
    buffer_init(&s->in);
    buffer_init(&s->out);
    table->slots[table->used++] = s;
    log_info("%s connected, %zu sessions", s->peer, table->used);
    return s;
}

void session_close(struct session_table *table, struct session *s)
{
    size_t i;

    for (i = 0; i < table->used; i++) {
        if (table->slots[i] == s) {
            table->slots[i] = table->slots[--table->used];
            break;
        }
    }
    buffer_free(&s->in);
    buffer_free(&s->out);
    close(s->fd);
    free(s);
    log_info("%s left after %lu frames", s->peer, s->frames);
}

struct session *session_find(struct session_table *table, const char *peer)
{
    size_t i;

    for (i = 0; i < table->used; i++)
        if (strcmp(table->slots[i]->peer, peer) == 0)
            return table->slots[i];
    return NULL;
}

int session_may(const struct session *s, unsigned wanted)
{
    return s->account != NULL && (s->account->permissions & wanted) == wanted;
}

/* Queues a reply frame: header, then `text`. */
int session_reply(struct session *s, uint16_t tag, const char *text)
{
    size_t len = strlen(text);
    unsigned char header[PARCEL_HEADER_SIZE] = {FRAME_REPLY, 0};
    int rc;

    header[2] = (unsigned char)(tag >> 8);
    header[3] = (unsigned char)tag;
    header[4] = (unsigned char)(len >> 24);
    header[5] = (unsigned char)(len >> 16);
    header[6] = (unsigned char)(len >> 8);
    header[7] = (unsigned char)len;
    rc = buffer_append(&s->out, header, sizeof(header));
    if (rc == PARCEL_OK)
        rc = buffer_append(&s->out, text, len);
    return rc;
}

/* First frame of a connection: who we are and the message of the day. */
int session_greet(struct session *s, const char *host, const char *motd)
{
    char banner[BANNER_SIZE];
    size_t used;

    if (host == NULL || *host == '\0')
        host = "localhost";
    snprintf(banner, sizeof(banner), "parcel %s at %.40s", PARCEL_VERSION, host);
    if (motd != NULL && *motd != '\0') {
        used = strlen(banner);
        if (used + 3 >= sizeof(banner))
            return session_reply(s, 0, banner);
        strcat(banner, ": ");
        strcat(banner, motd);
    }
    return session_reply(s, 0, banner);
}

/* LOGIN user=NAME;secret=WORD */
int session_login(struct session *s, const struct field_list *fields)
{
    const struct account *account;
    char user[PARCEL_NAME_MAX] = "";
    char secret[PARCEL_NAME_MAX] = "";
    size_t i;

    for (i = 0; i < fields->count; i++) {
        const struct field *field = &fields->fields[i];

        if (field->value_len >= PARCEL_NAME_MAX)
            return PARCEL_E_LIMIT;
        if (strcmp(field->name, "user") == 0)
            memcpy(user, field->value, field->value_len);
        else if (strcmp(field->name, "secret") == 0)
            memcpy(secret, field->value, field->value_len);
    }
    account = account_find(user);
    if (strcmp(account->secret, secret) != 0) {
        log_warn("%s: wrong secret for %s", s->peer, user);
        return PARCEL_E_DENIED;
    }
    s->account = account;
    log_info("%s is now %s", s->peer, account->name);
    return PARCEL_OK;
}
