#include "client.h"

#include <cerrno>
#include <cstring>
#include <unistd.h>

extern "C" {
#include "parse.h"
}

namespace parcel {

Client::Client(int fd) : fd_(fd), tag_(0) {}

bool Client::readExactly(void *out, std::size_t len)
{
    char *p = static_cast<char *>(out);

    while (len > 0) {
        ssize_t n = read(fd_, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= static_cast<std::size_t>(n);
    }
    return true;
}

bool Client::send(const std::string &command)
{
    unsigned char header[PARCEL_HEADER_SIZE] = {FRAME_COMMAND, 0};
    std::string frame;

    if (command.size() >= PARCEL_LINE_MAX)
        return false;
    tag_++;
    header[2] = static_cast<unsigned char>(tag_ >> 8);
    header[3] = static_cast<unsigned char>(tag_);
    header[6] = static_cast<unsigned char>(command.size() >> 8);
    header[7] = static_cast<unsigned char>(command.size());
    frame.assign(reinterpret_cast<char *>(header), sizeof(header));
    frame += command;
    return write(fd_, frame.data(), frame.size()) == static_cast<ssize_t>(frame.size());
}

// The next reply frame; frames of other types end the conversation.
bool Client::readReply(Reply &reply)
{
    unsigned char header[PARCEL_HEADER_SIZE];
    char text[PARCEL_LINE_MAX];
    std::size_t length;

    if (!readExactly(header, sizeof(header)))
        return false;
    if (header[0] != FRAME_REPLY)
        return false;
    length = read_be32(header + 4);
    if (length > PARCEL_FRAME_MAX)
        return false;
    if (!readExactly(text, length))
        return false;
    text[length] = '\0';
    reply.tag = read_be16(header + 2);
    reply.text = text;
    return true;
}

bool Client::get(const std::string &name, std::vector<char> &out)
{
    unsigned char header[PARCEL_HEADER_SIZE];
    std::size_t length;

    if (!send("GET " + name) || !readExactly(header, sizeof(header)))
        return false;
    if (header[0] != FRAME_DATA)
        return false;
    length = read_be32(header + 4);
    if (length > PARCEL_FRAME_MAX)
        return false;
    out.resize(length);
    return length == 0 || readExactly(&out[0], length);
}

}  // namespace parcel
