#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "command.h"
#include "log.h"

#define BACKLOG 16
#define READ_SIZE 2048

static int listen_on(unsigned port)
{
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, BACKLOG) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Reads what has come and runs every whole frame of it; negative: end the session. */
static int serve(struct server *server, struct session *s)
{
    char chunk[READ_SIZE];
    struct frame frame;
    ssize_t n = read(s->fd, chunk, sizeof(chunk));
    int taken;

    if (n <= 0 || buffer_append(&s->in, chunk, (size_t)n) != PARCEL_OK)
        return PARCEL_E_IO;
    while ((taken = parse_frame(&s->in, &frame)) > 0) {
        s->frames++;
        if (frame.type == FRAME_BYE)
            return PARCEL_E_IO;
        if (command_run(server, s, &frame) != PARCEL_OK)
            session_reply(s, frame.tag, "refused");
        buffer_consume(&s->in, (size_t)taken);
    }
    if (s->out.len > 0) {
        n = write(s->fd, s->out.data, s->out.len);
        if (n < 0)
            return PARCEL_E_IO;
        buffer_consume(&s->out, (size_t)n);
    }
    return taken;
}

int server_run(struct server *server, unsigned port)
{
    struct pollfd fds[SESSION_LIMIT + 1];
    int listener = listen_on(port);
    size_t i;

    if (listener < 0)
        return PARCEL_E_IO;
    for (;;) {
        size_t used = server->sessions.used;

        fds[0].fd = listener;
        fds[0].events = POLLIN;
        for (i = 0; i < used; i++) {
            fds[i + 1].fd = server->sessions.slots[i]->fd;
            fds[i + 1].events = POLLIN;
        }
        if (poll(fds, (nfds_t)(used + 1), -1) < 0)
            continue;
        for (i = used; i > 0; i--) {
            struct session *s = server->sessions.slots[i - 1];

            if (fds[i].revents != 0 && serve(server, s) < 0)
                session_close(&server->sessions, s);
        }
        if (fds[0].revents & POLLIN) {
            int fd = accept(listener, NULL, NULL);
            struct session *s = fd < 0 ? NULL : session_open(&server->sessions, fd, "local");

            if (s != NULL)
                session_greet(s, NULL, NULL);
            else if (fd >= 0)
                close(fd);
        }
    }
}
