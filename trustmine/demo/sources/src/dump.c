/* Prints frames for people. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "parse.h"

#define DUMP_WIDTH 16
#define FLAG_LAST 0x01
#define FLAG_PACKED 0x02
#define FLAG_URGENT 0x04

/* One frame: a headline, its flags, what kind of command it is, its bytes in
 * hexadecimal and as text. Returns the number of lines printed. */
int dump_frame(FILE *file, const struct frame *frame)
{
    char text[DUMP_WIDTH + 1];
    char verb[DUMP_WIDTH];
    const char *kind;
    const char *meaning;
    size_t offset;
    size_t column;
    size_t width;
    int lines = 0;

    switch (frame->type) {
    case FRAME_COMMAND:
        kind = "command";
        break;
    case FRAME_DATA:
        kind = "data";
        break;
    case FRAME_REPLY:
        kind = "reply";
        break;
    case FRAME_BYE:
        kind = "bye";
        break;
    default:
        kind = "unknown";
        break;
    }
    fprintf(file, "%s frame, tag %u, %lu bytes\n", kind, (unsigned)frame->tag, (unsigned long)frame->length);
    lines++;

    if (frame->flags != 0) {
        fprintf(file, "  flags:");
        if (frame->flags & FLAG_LAST)
            fprintf(file, " last");
        if (frame->flags & FLAG_PACKED)
            fprintf(file, " packed");
        if (frame->flags & FLAG_URGENT)
            fprintf(file, " urgent");
        if (frame->flags & ~(FLAG_LAST | FLAG_PACKED | FLAG_URGENT))
            fprintf(file, " and unknown ones (0x%02x)", (unsigned)frame->flags);
        fputc('\n', file);
        lines++;
    }

    if (frame->type == FRAME_COMMAND) {
        for (offset = 0; offset < frame->length; offset++) {
            if (frame->payload[offset] == ' ')
                break;
            verb[offset] = (char)frame->payload[offset];
        }
        verb[offset] = '\0';
        if (strcmp(verb, "LOGIN") == 0)
            meaning = "names the user";
        else if (strcmp(verb, "GET") == 0)
            meaning = "fetches a parcel";
        else if (strcmp(verb, "PUT") == 0)
            meaning = "stores a parcel";
        else if (strcmp(verb, "STAT") == 0)
            meaning = "describes a parcel";
        else if (strcmp(verb, "COPY") == 0)
            meaning = "copies a parcel";
        else if (strcmp(verb, "PURGE") == 0)
            meaning = "removes a parcel";
        else
            meaning = "is not known to this version";
        if (strcmp(verb, "LOGIN") == 0) {
            fprintf(file, "  LOGIN %s; its argument is not shown\n", meaning);
            return lines + 1;
        }
        fprintf(file, "  %s %s\n", verb, meaning);
        lines++;
    }

    if (frame->type == FRAME_REPLY && frame->length > 0) {
        for (offset = 0; offset < frame->length; offset++)
            if (!isprint(frame->payload[offset]) && !isspace(frame->payload[offset]))
                break;
        if (offset == frame->length) {
            fprintf(file, "  \"%.*s\"\n", (int)frame->length, (const char *)frame->payload);
            return lines + 1;
        }
        fprintf(file, "  not a text: byte %lu is 0x%02x\n", (unsigned long)offset, (unsigned)frame->payload[offset]);
        lines++;
    }

    if (frame->type == FRAME_DATA) {
        if (frame->length == 0) {
            fprintf(file, "  an empty parcel\n");
            return lines + 1;
        }
        if (frame->length >= 4 && memcmp(frame->payload, "PCL1", 4) == 0) {
            fprintf(file, "  an archive, see archive.h\n");
            lines++;
        }
        if ((frame->flags & FLAG_PACKED) && (frame->flags & FLAG_LAST))
            fprintf(file, "  packed, and nothing follows\n");
        else if (frame->flags & FLAG_LAST)
            fprintf(file, "  nothing follows\n");
        else
            fprintf(file, "  more follows\n");
        lines++;
    }

    if (frame->type == FRAME_BYE && frame->length > 0) {
        fprintf(file, "  a bye carries no payload, %lu bytes ignored\n", (unsigned long)frame->length);
        return lines + 1;
    }

    for (offset = 0; offset < frame->length; offset += DUMP_WIDTH) {
        width = frame->length - offset;
        if (width > DUMP_WIDTH)
            width = DUMP_WIDTH;
        fprintf(file, "  %06lx ", (unsigned long)offset);
        for (column = 0; column < DUMP_WIDTH; column++) {
            if (column == DUMP_WIDTH / 2)
                fputc(' ', file);
            if (column < width)
                fprintf(file, " %02x", (unsigned)frame->payload[offset + column]);
            else
                fprintf(file, "   ");
        }
        for (column = 0; column < width; column++) {
            if (isprint(frame->payload[offset + column]))
                text[column] = (char)frame->payload[offset + column];
            else
                text[column] = '.';
        }
        text[width] = '\0';
        fprintf(file, "  |%s|\n", text);
        lines++;
    }
    return lines;
}
