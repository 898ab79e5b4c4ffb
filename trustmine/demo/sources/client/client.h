#ifndef PARCEL_CLIENT_H
#define PARCEL_CLIENT_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" {
#include "parcel.h"
}

namespace parcel {

struct Reply {
    std::uint16_t tag;
    std::string text;
};

class Client {
public:
    explicit Client(int fd);
    bool send(const std::string &command);
    bool readReply(Reply &reply);
    bool get(const std::string &name, std::vector<char> &out);

private:
    bool readExactly(void *out, std::size_t len);

    int fd_;
    std::uint16_t tag_;
};

}  // namespace parcel

#endif
