/* sys_posix.c: what every Unix has of sys.h, on top of libc.
 *
 * Each function first asks fdmux__fault whether to fail, which is constantly 0 in a
 * release build. */
#define _GNU_SOURCE
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "testing.h"

/* Python measures time by mach_absolute_time on macOS, which stops during sleep. */
#if defined(__APPLE__)
#define CLOCK CLOCK_UPTIME_RAW
#else
#define CLOCK CLOCK_MONOTONIC
#endif

/* macOS has none: fdmux__sys_adopt sets SO_NOSIGPIPE there. */
#if !defined(MSG_NOSIGNAL)
#define MSG_NOSIGNAL 0
#define HAS_NO_SUCH_FLAG 1
#endif

_Static_assert(sizeof(struct fdmux__part) == sizeof(struct iovec) &&
                   offsetof(struct fdmux__part, base) ==
                       offsetof(struct iovec, iov_base) &&
                   offsetof(struct fdmux__part, size) ==
                       offsetof(struct iovec, iov_len),
               "struct fdmux__part is laid out as struct iovec");

int fdmux__posix_result(long value)
{
    return value < 0 ? -errno : (int)value;
}

struct timespec fdmux__posix_timespec(int64_t ns)
{
    struct timespec ts;

    ts.tv_sec = (time_t)(ns / FDMUX__NS_PER_S);
    ts.tv_nsec = (long)(ns % FDMUX__NS_PER_S);
    return ts;
}

unsigned fdmux__posix_internet_size(const struct sockaddr_storage *address,
                                    socklen_t size, unsigned room)
{
    bool is_internet =
        size >= sizeof(struct sockaddr_in) &&
        (address->ss_family == AF_INET || address->ss_family == AF_INET6);

    return is_internet && size <= room ? (unsigned)size : 0;
}

int fdmux__posix_set_flags(int fd)
{
    int r = fd;

    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
                    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)) {
        r = -errno;
        (void)close(fd); /* close(2) releases it whatever it returns */
    }
    return r;
}

/* ---- time and threads ------------------------------------------------------------ */

_Atomic uint32_t fdmux__posix_forks;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void count_fork(void)
{
    atomic_fetch_add(&fdmux__posix_forks, 1);
}

static void watch_forks(void)
{
    /* Fails only for lack of memory; then forks go unnoticed, and no caller could do
     * anything about it. */
    (void)pthread_atfork(NULL, NULL, count_fork);
}

void fdmux__sys_start(void)
{
    (void)pthread_once(&once, watch_forks); /* cannot fail for a valid `once` */
}

int64_t fdmux__sys_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK, &ts); /* cannot fail for this clock */
    return (int64_t)ts.tv_sec * FDMUX__NS_PER_S + ts.tv_nsec;
}

static void *run_thread(void *userdata)
{
    const struct fdmux__thread *thread = userdata;

    thread->fn(thread->userdata);
    return NULL;
}

int fdmux__sys_thread_start(struct fdmux__thread *thread, void (*fn)(void *userdata),
                            void *userdata)
{
    thread->fn = fn;
    thread->userdata = userdata;
    return -pthread_create(&thread->thread, NULL, run_thread, thread);
}

void fdmux__sys_thread_join(struct fdmux__thread *thread)
{
    (void)pthread_join(thread->thread, NULL); /* 0: our thread, joined once */
}

/* ---- bells ----------------------------------------------------------------------- */

int fdmux__sys_bell_open(struct fdmux__bell *bell)
{
    int fds[2];
    int r = fdmux__posix_bell();

    if (r >= 0)
        *bell = (struct fdmux__bell){r, r};
    if (r >= 0 || r == -EMFILE || r == -ENFILE)
        return r < 0 ? r : 0; /* a pipe needs two descriptors */
    r = fdmux__sys_pipe(fds);
    if (r == 0)
        *bell = (struct fdmux__bell){fds[0], fds[1]};
    return r;
}

/* Errors are ignored: close(2) releases the descriptor whatever it returns. */
void fdmux__sys_bell_close(struct fdmux__bell *bell)
{
    if (bell->write_fd != bell->read_fd)
        (void)fdmux__sys_close(bell->write_fd);
    if (bell->read_fd >= 0)
        (void)fdmux__sys_close(bell->read_fd);
    *bell = FDMUX__BELL_NONE;
}

int fdmux__sys_bell_ring(const struct fdmux__bell *bell)
{
    uint64_t one = 1; /* eventfd(2) takes eight bytes; a pipe takes anything */
    int errno_before = errno;
    int r;

    do {
        r = fdmux__sys_write(bell->write_fd, &one, sizeof one);
    } while (r == -EINTR);
    errno = errno_before;
    return r == -EAGAIN || r > 0 ? 0 : r;
}

int fdmux__sys_bell_silence(const struct fdmux__bell *bell)
{
    uint64_t buffer[8];
    int r;

    do {
        r = fdmux__sys_read(bell->read_fd, buffer, sizeof buffer);
    } while (r == (int)sizeof buffer || r == -EINTR);
    return r == -EAGAIN || r > 0 ? 0 : r;
}

/* ---- descriptors ----------------------------------------------------------------- */

/* close(2): Linux, macOS and the BSDs release the descriptor whatever they return. So a
 * fault is injected after the call, and no caller retries. */
int fdmux__sys_close(fdmux_fd fd)
{
    int r = fdmux__posix_result(close(fd));
    int fault = fdmux__fault(FDMUX_CALL_CLOSE);

    return fault != 0 ? fault : r;
}

/* open(2): one of O_PATH is open, but for nothing that a loop could watch. */
int fdmux__sys_check_fd(fdmux_fd fd)
{
    int flags = fdmux__fault(FDMUX_CALL_WAIT);

    if (flags == 0)
        flags = fdmux__posix_result(fcntl(fd, F_GETFL));
#if defined(O_PATH)
    if (flags >= 0 && (flags & O_PATH) != 0)
        flags = -EBADF;
#endif
    return flags == -EBADF ? -EBADF : 0; /* it may be open if this is forbidden */
}

int fdmux__sys_read(fdmux_fd fd, void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_READ);

    return fault != 0 ? fault : fdmux__posix_result(read(fd, buffer, size));
}

int fdmux__sys_write(fdmux_fd fd, const void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_WRITE);

    return fault != 0 ? fault : fdmux__posix_result(write(fd, buffer, size));
}

/* ---- sockets --------------------------------------------------------------------- */

int fdmux__sys_recv(fdmux_fd fd, void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_RECV);

    return fault != 0 ? fault
                      : fdmux__posix_result(
                            recv(fd, buffer, fdmux__short(size), MSG_DONTWAIT));
}

bool fdmux__sys_was_short(int count, size_t size)
{
    return (size_t)count < fdmux__short(size);
}

/* Their types differ: size_t or int. */
#define SET_PARTS(message, first, count)                                               \
    ((message)->msg_iov = (struct iovec *)(uintptr_t)(first),                          \
     (message)->msg_iovlen = (__typeof__((message)->msg_iovlen))(count))

int fdmux__sys_send(fdmux_fd fd, const struct fdmux__part *parts, int count)
{
    struct msghdr message = {0};
    int fault = fdmux__fault(FDMUX_CALL_SEND);
    int flags = MSG_NOSIGNAL | MSG_DONTWAIT;

    if (fault != 0)
        return fault;
    /* One part is the common case: send(2) copies no list. Also for tests of short
     * sends. */
    if (count == 1 || fdmux__short(SIZE_MAX) != SIZE_MAX)
        return fdmux__posix_result(
            send(fd, parts[0].base, fdmux__short(parts[0].size), flags));
    SET_PARTS(&message, parts, count);
    return fdmux__posix_result(sendmsg(fd, &message, flags));
}

void fdmux__sys_adopt(fdmux_fd fd)
{
#if defined(HAS_NO_SUCH_FLAG)
    int one = 1;

    (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one); /* as it can be */
#else
    (void)fd;
#endif
}

int fdmux__sys_family(fdmux_fd fd)
{
#if defined(SO_DOMAIN)
    return fdmux__sys_get_option(fd, SOL_SOCKET, SO_DOMAIN);
#else
    struct sockaddr_storage own = {0};
    socklen_t size = sizeof own;

    return getsockname(fd, (struct sockaddr *)&own, &size) < 0 ? -errno : own.ss_family;
#endif
}

int fdmux__sys_set_option(fdmux_fd fd, int level, int option, int value)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault
                      : fdmux__posix_result(
                            setsockopt(fd, level, option, &value, sizeof value));
}

int fdmux__sys_get_option(fdmux_fd fd, int level, int option)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);
    int value = 0;
    socklen_t size = sizeof value;

    if (fault != 0)
        return fault;
    return getsockopt(fd, level, option, &value, &size) < 0 ? -errno : value;
}

int fdmux__sys_reuse_address(fdmux_fd fd)
{
    return fdmux__sys_set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
}

/* setsockopt(2) of FreeBSD: SO_REUSEPORT gives everything to the last socket there;
 * SO_REUSEPORT_LB shares it, as SO_REUSEPORT does on Linux. */
int fdmux__sys_reuse_port(fdmux_fd fd)
{
#if defined(SO_REUSEPORT_LB)
    return fdmux__sys_set_option(fd, SOL_SOCKET, SO_REUSEPORT_LB, 1);
#else
    return fdmux__sys_set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#endif
}

int fdmux__sys_bind(fdmux_fd fd, const struct sockaddr *address, unsigned size)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault : fdmux__posix_result(bind(fd, address, size));
}

int fdmux__sys_listen(fdmux_fd fd, int backlog_count)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault : fdmux__posix_result(listen(fd, backlog_count));
}

int fdmux__sys_connect(fdmux_fd fd, const struct sockaddr *address, unsigned size)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault : fdmux__posix_result(connect(fd, address, size));
}

int fdmux__sys_peer(fdmux_fd fd, void *peer, unsigned size)
{
    struct sockaddr_storage address = {0};
    socklen_t address_size = sizeof address;
    int r = fdmux__posix_result(
        getpeername(fd, (struct sockaddr *)&address, &address_size));

    if (r < 0)
        return r;
    size = fdmux__posix_internet_size(&address, address_size, size);
    memcpy(peer, &address, size);
    return (int)size;
}

int fdmux__sys_shutdown(fdmux_fd fd)
{
    return fdmux__posix_result(shutdown(fd, SHUT_WR));
}

int fdmux__sys_connect_result(fdmux_fd fd)
{
    struct sockaddr_storage peer = {0}, own = {0};
    socklen_t size = sizeof peer, own_size = sizeof own;
    int error = 0;
    socklen_t error_size = sizeof error;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_size) < 0)
        return -errno;
    if (error != 0)
        return -error;
    /* No error and no peer: still connecting. */
    if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
        return -EINPROGRESS;
    /* TCP connects a socket to itself if the kernel happens to give it the port that it
     * connects to. */
    if (peer.ss_family == AF_UNIX ||
        getsockname(fd, (struct sockaddr *)&own, &own_size) < 0)
        return 0;
    return size == own_size && memcmp(&peer, &own, size) == 0 ? -ECONNREFUSED : 0;
}

void fdmux__sys_no_delay(fdmux_fd fd)
{
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* not an error */
}
