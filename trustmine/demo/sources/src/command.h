#ifndef PARCEL_COMMAND_H
#define PARCEL_COMMAND_H

#include "session.h"
#include "store.h"

struct server {
    struct session_table sessions;
    struct store store;
};

typedef int (*command_fn)(struct server *server, struct session *s, const char *arg);

struct command {
    const char *name;
    command_fn run;
    unsigned permissions;
};

int command_run(struct server *server, struct session *s, const struct frame *frame);

#endif
