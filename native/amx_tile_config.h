// Included before every C++ file of llama.cpp when the Makefile builds it.
//
// In the header of GCC 12 and others the intrinsic that configures Intel's AMX units tells the compiler that it reads 8
// of the configuration's 64 bytes. llama.cpp sets the others as well; the compiler takes that for useless and leaves it
// out, and the process ends with a general protection fault (ggml-org/llama.cpp, pull request 26954). This one says what
// is read, and leaves a mark, so that trustmine knows that AMX may be used (trustmine/llm/gguf.py).
#if defined(__AMX_TILE__)
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%0" : : "m"(*(const char (*)[64])(config)))
extern "C" __attribute__((weak, visibility("default"))) int amx_tile_config_is_whole(void) {
    return 1;
}
#endif
