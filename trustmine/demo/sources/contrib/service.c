/* Runs parcel as a service of another system: one control line per request. */
#include <stdio.h>
#include <string.h>

#include "parcel.h"

enum service_state { SERVICE_STOPPED, SERVICE_RUNNING, SERVICE_PAUSED };

struct service {
    enum service_state state;
    char label[PARCEL_NAME_MAX];
};

/* "start LABEL", "pause" or "stop". */
int service_control(struct service *service, const char *line)
{
    const char *label;

    if (strncmp(line, "start ", 6) == 0) {
        label = line + 6;
        if (service->state == SERVICE_RUNNING)
            return PARCEL_E_DENIED;
        strncpy(service->label, label, strlen(label) + 1);
        service->state = SERVICE_RUNNING;
        return PARCEL_OK;
    }
    if (strcmp(line, "pause") == 0 && service->state == SERVICE_RUNNING) {
        service->state = SERVICE_PAUSED;
        return PARCEL_OK;
    }
    if (strcmp(line, "stop") == 0) {
        service->state = SERVICE_STOPPED;
        service->label[0] = '\0';
        return PARCEL_OK;
    }
    return PARCEL_E_SYNTAX;
}
