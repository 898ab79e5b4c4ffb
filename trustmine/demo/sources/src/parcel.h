/* parcel: limits, status codes and small helpers that every module uses. */
#ifndef PARCEL_H
#define PARCEL_H

#include <stddef.h>
#include <stdint.h>

#define PARCEL_VERSION "0.1"

#define PARCEL_NAME_MAX 64   /* user and parcel names, with the final NUL */
#define PARCEL_LINE_MAX 512  /* one line of the text protocol */
#define PARCEL_PATH_MAX 256  /* a path below the spool folder */
#define PARCEL_FRAME_MAX (1u << 20)
#define PARCEL_HEADER_SIZE 8 /* type, flags, tag, length */

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MUL_OVERFLOWS(a, b) ((b) != 0 && (a) > SIZE_MAX / (b))

enum parcel_status {
    PARCEL_OK = 0,
    PARCEL_E_SYNTAX = -1,
    PARCEL_E_LIMIT = -2,
    PARCEL_E_DENIED = -3,
    PARCEL_E_NOMEM = -4,
    PARCEL_E_IO = -5,
    PARCEL_E_UNKNOWN = -6,
};

#endif
