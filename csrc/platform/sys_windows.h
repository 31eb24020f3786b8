/* sys_windows.h: the types and the inline functions of sys.h on Windows.
 *
 * A descriptor is a socket of Winsock; nothing else can be watched. */
#ifndef FDMUX_SYS_WINDOWS_H
#define FDMUX_SYS_WINDOWS_H

#if !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN
#endif
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <winsock2.h>

#include <windows.h>

#include <ws2tcpip.h>

#include <afunix.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

struct fdmux__part;

/* errno.h lacks these; the numbers are those of Winsock. */
#if !defined(EHOSTDOWN)
#define EHOSTDOWN WSAEHOSTDOWN
#endif
#if !defined(ESHUTDOWN)
#define ESHUTDOWN WSAESHUTDOWN
#endif

typedef ADDRESS_FAMILY sa_family_t;

/* WSAPoll refuses POLLPRI; POLLIN is POLLRDNORM and POLLRDBAND. */
#undef POLLIN
#define POLLIN POLLRDNORM
#undef POLLPRI
#define POLLPRI POLLRDBAND

typedef SRWLOCK fdmux__lock;

struct fdmux__thread {
    HANDLE handle;
    void (*fn)(void *userdata);
    void *userdata;
};

/* As WSAPOLLFD. */
typedef struct {
    fdmux_fd fd;
    short events;
    short revents;
} fdmux__pollfd;

static inline bool fdmux__is_fd(fdmux_fd fd)
{
    return (intptr_t)fd >= 0;
}

static inline int fdmux__fd_result(fdmux_fd fd)
{
    return (int)fd; /* a handle has no more than 32 bits that count */
}

/* ---- locks and threads ----------------------------------------------------------- */

static inline int fdmux__lock_open(fdmux__lock *lock)
{
    InitializeSRWLock(lock);
    return 0;
}

static inline void fdmux__lock_close(fdmux__lock *lock)
{
    (void)lock; /* it owns nothing */
}

static inline void fdmux__lock_take(fdmux__lock *lock)
{
    AcquireSRWLockExclusive(lock);
}

static inline bool fdmux__lock_try(fdmux__lock *lock)
{
    return TryAcquireSRWLockExclusive(lock) != 0;
}

static inline void fdmux__lock_release(fdmux__lock *lock)
{
    ReleaseSRWLockExclusive(lock);
}

static inline uintptr_t fdmux__thread_self(void)
{
    return GetCurrentThreadId(); /* never 0 */
}

/* There is no fork(2). */
static inline uint32_t fdmux__fork_generation(void)
{
    return 0;
}

static inline void fdmux__thread_yield(void)
{
    (void)SwitchToThread();
}

int fdmux__errno_from_winsock(int error); /* positive */

/* ---- messages, see message.h ----------------------------------------------------- */

/* Nothing travels beside a datagram: Windows needs functions of providers for that. */
struct fdmux__message {
    const struct fdmux__part *part;
    void *address;
    int address_size;
    unsigned length;
    bool is_truncated;
};

static inline void fdmux__message_set(struct fdmux__message *message,
                                      struct fdmux__part *part, const void *address,
                                      unsigned address_size)
{
    message->part = part;
    message->address = (void *)(uintptr_t)address;
    message->address_size = address == NULL ? 0 : (int)address_size;
    message->is_truncated = false;
}

static inline void fdmux__message_reset(struct fdmux__message *message,
                                        unsigned address_size, void *control,
                                        unsigned control_size)
{
    (void)control, (void)control_size;
    message->address_size = (int)address_size;
    message->is_truncated = false;
}

static inline unsigned fdmux__message_length(const struct fdmux__message *message)
{
    return message->length;
}

static inline unsigned fdmux__message_address_size(const struct fdmux__message *message)
{
    return (unsigned)message->address_size;
}

static inline bool fdmux__message_is_truncated(const struct fdmux__message *message)
{
    return message->is_truncated;
}

static inline bool fdmux__message_has_aside(const struct fdmux__message *message)
{
    (void)message;
    return false;
}

#endif
