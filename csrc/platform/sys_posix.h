/* sys_posix.h: the types and the inline functions of sys.h on every Unix.
 *
 * What the Unixes do not share has a file a system: sys_linux.c, sys_bsd.c,
 * sys_macos.c. sys_posix.c calls it through the functions at the end. */
#ifndef FDMUX_SYS_POSIX_H
#define FDMUX_SYS_POSIX_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

struct fdmux__part;

typedef pthread_mutex_t fdmux__lock;
typedef struct pollfd fdmux__pollfd;

struct fdmux__thread {
    pthread_t thread;
    void (*fn)(void *userdata);
    void *userdata;
};

static inline bool fdmux__is_fd(fdmux_fd fd)
{
    return fd >= 0;
}

static inline int fdmux__fd_result(fdmux_fd fd)
{
    return fd;
}

/* ---- locks and threads ----------------------------------------------------------- */

static inline int fdmux__lock_open(fdmux__lock *lock)
{
    return -pthread_mutex_init(lock, NULL);
}

static inline void fdmux__lock_close(fdmux__lock *lock)
{
    (void)pthread_mutex_destroy(lock); /* no other thread is left */
}

/* Taking and releasing a lock that is used rightly cannot fail. */
static inline void fdmux__lock_take(fdmux__lock *lock)
{
    (void)pthread_mutex_lock(lock);
}

static inline bool fdmux__lock_try(fdmux__lock *lock)
{
    return pthread_mutex_trylock(lock) == 0;
}

static inline void fdmux__lock_release(fdmux__lock *lock)
{
    (void)pthread_mutex_unlock(lock);
}

static inline uintptr_t fdmux__thread_self(void)
{
    return (uintptr_t)pthread_self();
}

static inline void fdmux__thread_yield(void)
{
    (void)sched_yield();
}

extern _Atomic uint32_t fdmux__posix_forks;

static inline uint32_t fdmux__fork_generation(void)
{
    return atomic_load_explicit(&fdmux__posix_forks, memory_order_relaxed);
}

/* ---- messages, see message.h ------------------------------------------------------
 */

/* As struct mmsghdr, which some systems lack. */
struct fdmux__message {
    struct msghdr header;
    unsigned length;
};

static inline void fdmux__message_set(struct fdmux__message *message,
                                      struct fdmux__part *part, const void *address,
                                      unsigned address_size)
{
    message->header = (struct msghdr){
        .msg_name = (void *)(uintptr_t)address,
        .msg_namelen = address == NULL ? 0 : (socklen_t)address_size,
        .msg_iov = (struct iovec *)(void *)part,
        .msg_iovlen = 1,
    };
}

static inline void fdmux__message_reset(struct fdmux__message *message,
                                        unsigned address_size, void *control,
                                        unsigned control_size)
{
    message->header.msg_namelen = (socklen_t)address_size;
    message->header.msg_control = control;
    message->header.msg_controllen = control_size;
    message->header.msg_flags = 0;
}

static inline unsigned fdmux__message_length(const struct fdmux__message *message)
{
    return message->length;
}

static inline unsigned fdmux__message_address_size(const struct fdmux__message *message)
{
    return message->header.msg_namelen;
}

static inline bool fdmux__message_is_truncated(const struct fdmux__message *message)
{
    return (message->header.msg_flags & MSG_TRUNC) != 0;
}

static inline bool fdmux__message_has_aside(const struct fdmux__message *message)
{
    return message->header.msg_control != NULL && message->header.msg_controllen > 0;
}

/* ---- what not every Unix has ------------------------------------------------------
 */

/* sys_posix_2024.c, or a file of the system: fdmux__sys_pipe, fdmux__sys_socket,
 * fdmux__sys_accept, fdmux__sys_poll and fdmux__sys_poll_is_exact.
 * message_many.c or message_single.c: fdmux__sys_receive_many and fdmux__sys_send_many.
 * sys_linux.c, sys_bsd.c: fdmux__sys_is_tcp, fdmux__sys_socket_drops and this: */

/* One descriptor that serves as both ends of a bell, or -ENOSYS: then it is a pipe. */
int fdmux__posix_bell(void);

/* ---- helpers for these files ----------------------------------------------------- */

int fdmux__posix_result(long value); /* of a system call: the value, or -errno */
struct timespec fdmux__posix_timespec(int64_t ns);
/* The size of an address that was accepted: 0, unless it is IPv4 or IPv6 and fits. */
unsigned fdmux__posix_internet_size(const struct sockaddr_storage *address,
                                    socklen_t size, unsigned room);
/* Make a new descriptor close-on-exec and non-blocking, or close it: for systems that
 * cannot do it in the call which makes it. A thread that runs a program meanwhile may
 * let it inherit. Returns `fd` or -errno; takes -errno too. */
int fdmux__posix_set_flags(int fd);

#endif
