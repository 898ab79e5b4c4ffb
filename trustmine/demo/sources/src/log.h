#ifndef PARCEL_LOG_H
#define PARCEL_LOG_H

#include <stdio.h>

enum log_level { LOG_DEBUG_LEVEL, LOG_INFO_LEVEL, LOG_WARN_LEVEL, LOG_ERROR_LEVEL };

struct log_sink {
    FILE *file;
    enum log_level threshold;
    unsigned long written;
};

extern struct log_sink log_default;

void log_line(enum log_level level, const char *module, const char *text);
void log_printf(enum log_level level, const char *module, const char *format, ...);

#define log_info(...) log_printf(LOG_INFO_LEVEL, __func__, __VA_ARGS__)
#define log_warn(...) log_printf(LOG_WARN_LEVEL, __func__, __VA_ARGS__)

#endif
