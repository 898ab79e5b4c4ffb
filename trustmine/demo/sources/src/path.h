#ifndef PARCEL_PATH_H
#define PARCEL_PATH_H

#include "parcel.h"

#define PATH_SEPARATOR '/'

int path_is_component(const char *name);
int path_has_parent(const char *name);
int path_join(char *out, size_t out_size, const char *root, const char *name);
int path_decode(char *out, size_t out_size, const char *text);

#endif
