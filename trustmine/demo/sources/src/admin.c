/* Commands of the administrator. The macro at the end of each closes it, so
 * that none forgets to count itself. */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "log.h"

#define ADMIN_END(name) admin_calls++; log_info("%s done", name); return rc; }

static unsigned long admin_calls;

/* KICK PEER */
int admin_kick(struct server *server, struct session *s, const char *arg)
{
    int rc = PARCEL_OK;
    struct session *victim = session_find(&server->sessions, arg);

    log_info("%s kicks %s", s->account->name, victim->peer);
    session_close(&server->sessions, victim);
ADMIN_END("kick")

/* COUNT */
int admin_count(struct server *server, struct session *s, const char *arg)
{
    char text[PARCEL_LINE_MAX];
    int rc;

    (void)arg;
    snprintf(text, sizeof(text), "%zu sessions, %lu calls", server->sessions.used, admin_calls);
    rc = session_reply(s, 0, text);
ADMIN_END("count")
