/* sys.h: the only interface between the library and the operating system.
 *
 * The core, the backends and streams make every system call and every allocation
 * through these functions, which return a value or -errno. In a build with
 * FDMUX_TESTING, tests can make the n-th call fail (testing.h); a release build has no
 * such check. Nothing here knows about loops or watchers. */
#ifndef FDMUX_SYS_H
#define FDMUX_SYS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define FDMUX__NS_PER_S INT64_C(1000000000)
#define FDMUX__NS_PER_MS INT64_C(1000000)

struct iovec;

void *fdmux__sys_calloc(size_t count, size_t size);
void *fdmux__sys_realloc(void *memory, size_t size);
void fdmux__sys_free(void *memory);

/* CLOCK_MONOTONIC. */
int64_t fdmux__sys_now(void);

int fdmux__sys_close(int fd);
int fdmux__sys_read(int fd, void *buffer, size_t size);
int fdmux__sys_write(int fd, const void *buffer, size_t size);
/* Both ends close-on-exec and non-blocking. */
int fdmux__sys_pipe(int ret_fds[2]);
int fdmux__sys_recv(int fd, void *buffer, size_t size);
/* Did a receive of at most `size` bytes return `count` because there were no more? */
bool fdmux__sys_was_short(int count, size_t size);
bool fdmux__sys_is_tcp(int fd);
int fdmux__sys_sendmsg(int fd, struct iovec *parts, int count); /* without SIGPIPE */
int fdmux__sys_socket(int family, int type); /* close-on-exec, non-blocking */
int fdmux__sys_set_option(int fd, int level, int option, int value);
int fdmux__sys_get_option(int fd, int level, int option); /* a value >= 0, or -errno */
int fdmux__sys_bind(int fd, const struct sockaddr *address, unsigned size);
int fdmux__sys_listen(int fd, int backlog_count);
int fdmux__sys_connect(int fd, const struct sockaddr *address, unsigned size);
/* Close-on-exec and non-blocking. Writes the peer's address to `peer`, which has room
 * for *peer_size bytes, and its size to *peer_size; 0 unless it is IPv4 or IPv6. */
int fdmux__sys_accept(int fd, void *peer, unsigned *peer_size);
/* getpeername(2) for IPv4 and IPv6. Returns the size, 0 for other families, or
 * -errno. */
int fdmux__sys_peer(int fd, void *peer, unsigned size);
int fdmux__sys_shutdown(int fd); /* SHUT_WR */
int fdmux__sys_connect_result(int fd); /* of connect(2): 0, -EINPROGRESS or -errno */
void fdmux__sys_no_delay(int fd); /* TCP_NODELAY; sockets of other kinds ignore it */
int fdmux__sys_ppoll(struct pollfd *fds, nfds_t count, int64_t timeout_ns);

/* A datagram: `length` is what was received. As struct mmsghdr, which some systems
 * lack.
 */
struct fdmux__message {
    struct msghdr header;
    unsigned length;
};
/* Receive or send at most `count`, without blocking. Returns how many; -errno, if there
 * was not one; -ENOSYS where the system has no such call. */
int fdmux__sys_recvmmsg(int fd, struct fdmux__message *messages, unsigned count);
int fdmux__sys_sendmmsg(int fd, struct fdmux__message *messages, unsigned count);
/* One datagram. `flags` are added to MSG_DONTWAIT. */
int fdmux__sys_recvmsg(int fd, struct msghdr *header, int flags);
int fdmux__sys_send_message(int fd, const struct msghdr *header);
/* How many datagrams the kernel has dropped because the buffer of the socket was full;
 * 0 where it does not say. */
uint64_t fdmux__sys_socket_drops(int fd);

#if defined(__linux__)
struct epoll_event;
int fdmux__sys_eventfd(void);
int fdmux__sys_epoll_create(void);
int fdmux__sys_epoll_ctl(int epoll_fd, int operation, int fd,
                         struct epoll_event *event);
/* A negative timeout waits for ever. Rounds up to milliseconds. */
int fdmux__sys_epoll_wait(int epoll_fd, struct epoll_event *events, int capacity,
                          int64_t timeout_ns);
/* -ENOSYS before Linux 5.11, and under valgrind. */
int fdmux__sys_epoll_pwait2(int epoll_fd, struct epoll_event *events, int capacity,
                            int64_t timeout_ns);
int fdmux__sys_timerfd_create(void);
/* An absolute deadline; INT64_MAX disarms. */
int fdmux__sys_timerfd_settime(int timer_fd, int64_t deadline_ns);
#endif

#endif
