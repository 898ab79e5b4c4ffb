#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"

#define DEFAULT_PORT 7440
#define DEFAULT_QUOTA (64u << 20)

void config_defaults(struct config *config)
{
    memset(config, 0, sizeof(*config));
    strcpy(config->spool, ".");
    strcpy(config->host, "localhost");
    config->port = DEFAULT_PORT;
    config->quota = DEFAULT_QUOTA;
    config->workers = 2;
}

static int set_text(char *out, size_t out_size, const char *value)
{
    int written = snprintf(out, out_size, "%s", value);

    return written < 0 || (size_t)written >= out_size ? PARCEL_E_LIMIT : PARCEL_OK;
}

int config_set(struct config *config, const char *key, const char *value)
{
    if (strcmp(key, "spool") == 0)
        return set_text(config->spool, sizeof(config->spool), value);
    if (strcmp(key, "host") == 0)
        return set_text(config->host, sizeof(config->host), value);
    if (strcmp(key, "motd") == 0)
        return set_text(config->motd, sizeof(config->motd), value);
    if (strcmp(key, "port") == 0)
        config->port = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(key, "quota") == 0)
        config->quota = strtoul(value, NULL, 10);
    else if (strcmp(key, "workers") == 0)
        config->workers = strtoul(value, NULL, 10);
    else
        return PARCEL_E_UNKNOWN;
    return PARCEL_OK;
}

/* Reads "key = value" lines; '#' starts a comment line. */
int config_read(struct config *config, FILE *file)
{
    char line[PARCEL_LINE_MAX];
    char key[CONFIG_KEY_MAX];
    char value[CONFIG_VALUE_MAX];
    unsigned number = 0;
    int rc;

    while (fgets(line, sizeof(line), file) != NULL) {
        number++;
        if (line[0] == '#' || line[strspn(line, " \t\r\n")] == '\0')
            continue;
        if (sscanf(line, " %[a-z] = %[^\r\n]", key, value) != 2) {
            log_warn("line %u is not 'key = value'", number);
            return PARCEL_E_SYNTAX;
        }
        rc = config_set(config, key, value);
        if (rc != PARCEL_OK) {
            log_warn("line %u: cannot set %s", number, key);
            return rc;
        }
    }
    return ferror(file) ? PARCEL_E_IO : PARCEL_OK;
}
