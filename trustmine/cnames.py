"""Names that a reader of C knows without a definition: the language's own and those of its usual libraries.

Two kinds of lists: vocabulary that texts about code may use freely, and, as
settings, names that are left out of a sample's context.
"""

from trustmine.config import Settings

# Keywords, predefined types and limits: ISO C23 6.4.1, 7.22, 7.23; C++ keywords met in C-like code.
_KEYWORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int long
    register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    bool true false class delete new nullptr this throw try catch template typename virtual namespace
"""
_COMMON = """
    NULL EOF errno size_t ssize_t ptrdiff_t off_t time_t wchar_t intptr_t uintptr_t intmax_t uintmax_t
    int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t
    CHAR_BIT CHAR_MAX CHAR_MIN UCHAR_MAX SHRT_MAX SHRT_MIN USHRT_MAX INT_MAX INT_MIN UINT_MAX LONG_MAX LONG_MIN
    ULONG_MAX LLONG_MAX LLONG_MIN ULLONG_MAX SIZE_MAX SSIZE_MAX PTRDIFF_MAX
    INT8_MAX INT16_MAX INT32_MAX INT64_MAX UINT8_MAX UINT16_MAX UINT32_MAX UINT64_MAX
"""

# Functions and types of the C standard library and POSIX whose contract is common knowledge.
_LIBRARY = """
    abort abs accept access alloca assert atexit atof atoi atol atoll basename bind bsearch calloc chdir chmod chown
    clock close closedir connect ctime dirname dup dup2 execl execv execve exit fclose fcntl fdopen feof ferror fflush
    fgetc fgets fileno fopen fork fprintf fputc fputs fread free freeaddrinfo freopen fscanf fseek fstat ftell ftruncate
    fwrite getaddrinfo getc getchar getcwd getenv gethostbyname getline getpid gets getsockname getsockopt gettimeofday
    getuid gmtime htonl htons inet_addr inet_ntoa inet_ntop inet_pton ioctl isalnum isalpha iscntrl isdigit isgraph
    islower isprint ispunct isspace isupper isxdigit kill labs link listen localtime longjmp lseek lstat malloc memchr
    memcmp memcpy memmem memmove memset mkdir mkstemp mktime mmap munmap nanosleep ntohl ntohs offsetof open opendir
    perror pipe poll popen posix_memalign pow printf pthread_create pthread_join pthread_mutex_lock pthread_mutex_unlock
    putc putchar puts qsort raise rand random read readdir readlink realloc realpath recv recvfrom recvmsg remove rename
    rewind rmdir scanf select send sendmsg sendto setjmp setsockopt shutdown sigaction signal sleep snprintf socket
    sprintf sqrt srand sscanf stat stpcpy strcasecmp strcat strchr strcmp strcoll strcpy strcspn strdup strerror
    strftime strlcat strlcpy strlen strncasecmp strncat strncmp strncpy strndup strnlen strpbrk strrchr strsep strspn
    strstr strtod strtof strtok strtok_r strtol strtoll strtoul strtoull symlink sysconf system time tmpfile tolower
    toupper truncate ungetc unlink usleep va_arg va_copy va_end va_list va_start vfprintf vprintf vsnprintf vsprintf
    wait waitpid write FILE DIR UINT32_C UINT64_C INT64_C PRIu32 PRIu64 PRId64
    sockaddr sockaddr_in sockaddr_in6 sockaddr_storage addrinfo timeval timespec tm hostent iovec
    pthread_t pthread_mutex_t socklen_t mode_t pid_t uid_t gid_t
"""

KEYWORDS = frozenset(_KEYWORDS.split())
LANGUAGE = KEYWORDS | frozenset(_COMMON.split())
LIBRARY = frozenset(_LIBRARY.split())


def why_common(name: str, settings: Settings) -> str | None:
    """Why a name is left out of a context whatever its definition is, or None if it is not."""
    bare = name.removeprefix("std::")
    for reason, known in (
        ("common_call", settings.common_calls),
        ("basic_type", settings.basic_types),
        ("error_code", settings.error_codes),
    ):
        if bare in known:
            return reason
    return "short_name" if len(name) < settings.min_name_chars else None
