#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "parcel.h"

static void usage(const char *program)
{
    fprintf(stderr, "usage: %s [-p port] [-s spool]\n", program);
    exit(2);
}

int main(int argc, char **argv)
{
    const char *port = "7440";
    const char *spool = ".";
    int i;

    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-p") == 0 && i + 1 < argc)
            port = argv[++i];
        else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc)
            spool = argv[++i];
        else
            usage(argv[0]);
    }
    log_info("parcel %s, port %s, spool %s", PARCEL_VERSION, port, spool);
    return 0;
}
