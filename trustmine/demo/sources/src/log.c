#include "log.h"

#include <stdarg.h>
#include <time.h>

#include "parcel.h"

#define STAMP_SIZE 24

struct log_sink log_default = {NULL, LOG_INFO_LEVEL, 0};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_line(enum log_level level, const char *module, const char *text)
{
    FILE *file = log_default.file ? log_default.file : stderr;
    char stamp[STAMP_SIZE];
    time_t now = time(NULL);
    struct tm parts;

    if (level < log_default.threshold)
        return;
    if ((size_t)level >= ARRAY_LEN(level_names))
        level = LOG_ERROR_LEVEL;
    gmtime_r(&now, &parts);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &parts);
    fprintf(file, "%s %-5s %s: ", stamp, level_names[level], module);
    fprintf(file, text);
    fputc('\n', file);
    fflush(file);
    log_default.written++;
}

void log_printf(enum log_level level, const char *module, const char *format, ...)
{
    char text[PARCEL_LINE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_line(level, module, text);
}
