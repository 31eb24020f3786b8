/* sys.h: the only interface between the library and the operating system.
 *
 * The core, the backends, streams and datagrams make every system call and every
 * allocation through these functions, which return a value or -errno, on every system
 * with the errnos of POSIX. In a build with FDMUX_TESTING, tests can make the n-th call
 * fail (testing.h); a release build has no such check. Nothing here knows about loops
 * or watchers.
 *
 * The files that keep this contract on a system are listed in CMakeLists.txt. The types
 * and the locks, which must be inline, come from the system's own header:
 *
 * - fdmux__lock: a lock that any thread may take, and
 *   int fdmux__lock_open(fdmux__lock *), 0 or -errno; also makes a lock usable again
 *   that a thread held which does not exist in this child of fork(2);
 *   void fdmux__lock_close(fdmux__lock *);
 *   void fdmux__lock_take(fdmux__lock *); bool fdmux__lock_try(fdmux__lock *);
 *   void fdmux__lock_release(fdmux__lock *);
 * - uintptr_t fdmux__thread_self(void): never 0; void fdmux__thread_yield(void);
 *   struct fdmux__thread, for fdmux__sys_thread_start;
 * - uint32_t fdmux__fork_generation(void): how many forks lie between this process and
 *   the first that called fdmux__sys_start;
 * - fdmux__pollfd: fd, events, revents, with the constants POLLIN and so on;
 * - bool fdmux__is_fd(fdmux_fd): is it anything but FDMUX_NO_FD, and not negative?
 *   int fdmux__fd_result(fdmux_fd): as public functions return it;
 * - struct sockaddr and those of IPv4, IPv6 and Unix, socklen_t, inet_pton. */
#ifndef FDMUX_SYS_H
#define FDMUX_SYS_H

#include "fdmux.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#include "sys_windows.h"
#else
#include "sys_posix.h"
#endif

#define FDMUX__NS_PER_S INT64_C(1000000000)
#define FDMUX__NS_PER_MS INT64_C(1000000)

/* Called first for every loop and queue, from any thread. Idempotent. */
void fdmux__sys_start(void);

/* ---- memory and time ------------------------------------------------------------- */

void *fdmux__sys_calloc(size_t count, size_t size);
void *fdmux__sys_realloc(void *memory, size_t size);
void fdmux__sys_free(void *memory);

/* The clock of time.monotonic in Python. */
int64_t fdmux__sys_now(void);

/* ---- threads --------------------------------------------------------------------- */

/* Run fn(userdata) in a thread of its own, which must be joined; `thread` stays where
 * it is until then. Returns 0 or -errno. */
int fdmux__sys_thread_start(struct fdmux__thread *thread, void (*fn)(void *userdata),
                            void *userdata);
void fdmux__sys_thread_join(struct fdmux__thread *thread);

/* ---- bells ----------------------------------------------------------------------- */

/* A descriptor that any thread can make readable. Loops are woken by one, and queues
 * are watched by one. It carries no data and keeps no state: the owner knows whether it
 * was rung. */
struct fdmux__bell {
    fdmux_fd read_fd; /* what to watch; FDMUX_NO_FD: not opened */
    fdmux_fd write_fd; /* may be the same */
};

#define FDMUX__BELL_NONE ((struct fdmux__bell){FDMUX_NO_FD, FDMUX_NO_FD})

/* Not inherited by other programs, and non-blocking. Returns 0 or -errno. */
int fdmux__sys_bell_open(struct fdmux__bell *bell);
/* Accepts one that was not opened, and leaves such a one. */
void fdmux__sys_bell_close(struct fdmux__bell *bell);
/* Make it readable; 0 also if it is full, and so readable already. Preserves errno, so
 * a signal handler may call it. Returns 0 or -errno. */
int fdmux__sys_bell_ring(const struct fdmux__bell *bell);
/* Make it unreadable, however often it was rung. Returns 0 or -errno. */
int fdmux__sys_bell_silence(const struct fdmux__bell *bell);

/* ---- descriptors ----------------------------------------------------------------- */

/* The descriptor is released whatever this returns, so no caller retries. */
int fdmux__sys_close(fdmux_fd fd);
/* Is this an open descriptor? 0 or -EBADF. */
int fdmux__sys_check_fd(fdmux_fd fd);
/* A channel from the second to the first, which loops can watch: not inherited by other
 * programs, and non-blocking. For these alone are read and write. */
int fdmux__sys_pipe(fdmux_fd ret_fds[2]);
int fdmux__sys_read(fdmux_fd fd, void *buffer, size_t size);
int fdmux__sys_write(fdmux_fd fd, const void *buffer, size_t size);
/* Wait for any of them; a negative timeout waits for ever. Never early. */
int fdmux__sys_poll(fdmux__pollfd *fds, size_t count, int64_t timeout_ns);
/* Does it wait for fractions of a millisecond? */
bool fdmux__sys_poll_is_exact(void);

/* ---- sockets --------------------------------------------------------------------- */

/* One part of what is sent. */
struct fdmux__part {
    void *base;
    size_t size;
};

int fdmux__sys_recv(fdmux_fd fd, void *buffer, size_t size);
/* Did a receive of at most `size` bytes return `count` because there were no more? */
bool fdmux__sys_was_short(int count, size_t size);
/* Send from all parts, in order. Neither blocks nor raises SIGPIPE. */
int fdmux__sys_send(fdmux_fd fd, const struct fdmux__part *parts, int count);
/* Not inherited by other programs, and non-blocking. */
int fdmux__sys_socket(int family, int type, fdmux_fd *ret_fd);
/* Prepare a socket that somebody else has made for fdmux__sys_send. */
void fdmux__sys_adopt(fdmux_fd fd);
bool fdmux__sys_is_tcp(fdmux_fd fd);
int fdmux__sys_family(fdmux_fd fd); /* AF_INET and so on, or -errno */
int fdmux__sys_set_option(fdmux_fd fd, int level, int option, int value);
/* A value >= 0, or -errno. */
int fdmux__sys_get_option(fdmux_fd fd, int level, int option);
/* Let a listener have an address that closed connections still use. */
int fdmux__sys_reuse_address(fdmux_fd fd);
/* Let several sockets have one address, and share what arrives. -EOPNOTSUPP where there
 * is no such thing. */
int fdmux__sys_reuse_port(fdmux_fd fd);
int fdmux__sys_bind(fdmux_fd fd, const struct sockaddr *address, unsigned size);
int fdmux__sys_listen(fdmux_fd fd, int backlog_count);
/* -EINPROGRESS while it connects. */
int fdmux__sys_connect(fdmux_fd fd, const struct sockaddr *address, unsigned size);
/* Not inherited by other programs, and non-blocking. Writes the peer's address to
 * `peer`, which has room for *peer_size bytes, and its size to *peer_size; 0 unless it
 * is IPv4 or IPv6. */
int fdmux__sys_accept(fdmux_fd fd, fdmux_fd *ret_fd, void *peer, unsigned *peer_size);
/* getpeername(2) for IPv4 and IPv6. Returns the size, 0 for other families, or
 * -errno. */
int fdmux__sys_peer(fdmux_fd fd, void *peer, unsigned size);
int fdmux__sys_shutdown(fdmux_fd fd); /* the sending side */
int fdmux__sys_connect_result(fdmux_fd fd); /* 0, -EINPROGRESS or -errno */
void fdmux__sys_no_delay(fdmux_fd fd); /* TCP_NODELAY; other sockets ignore it */

#endif
