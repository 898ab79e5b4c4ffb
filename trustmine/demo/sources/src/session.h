#ifndef PARCEL_SESSION_H
#define PARCEL_SESSION_H

#include "buffer.h"
#include "parse.h"

#define SESSION_LIMIT 64
#define BANNER_SIZE 80

enum permission { PERM_NONE = 0, PERM_READ = 1, PERM_WRITE = 2, PERM_ADMIN = 4 };

struct account {
    char name[PARCEL_NAME_MAX];
    char secret[PARCEL_NAME_MAX];
    unsigned permissions;
};

struct session {
    int fd;
    char peer[PARCEL_NAME_MAX];
    const struct account *account;
    struct buffer in;
    struct buffer out;
    unsigned long frames;
};

struct session_table {
    struct session *slots[SESSION_LIMIT];
    size_t used;
};

const struct account *account_find(const char *name);
int account_add(const char *name, const char *secret, unsigned permissions);

struct session *session_open(struct session_table *table, int fd, const char *peer);
void session_close(struct session_table *table, struct session *s);
struct session *session_find(struct session_table *table, const char *peer);
int session_may(const struct session *s, unsigned wanted);
int session_reply(struct session *s, uint16_t tag, const char *text);
int session_greet(struct session *s, const char *host, const char *motd);
int session_login(struct session *s, const struct field_list *fields);

#endif
