#ifndef PARCEL_CONFIG_H
#define PARCEL_CONFIG_H

#include <stdio.h>

#include "parcel.h"

#define CONFIG_KEY_MAX 32
#define CONFIG_VALUE_MAX 128

struct config {
    char spool[PARCEL_PATH_MAX];
    char host[CONFIG_VALUE_MAX];
    char motd[CONFIG_VALUE_MAX];
    unsigned port;
    size_t quota;
    size_t workers;
};

void config_defaults(struct config *config);
int config_set(struct config *config, const char *key, const char *value);
int config_read(struct config *config, FILE *file);

#endif
