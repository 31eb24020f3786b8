/* sys_windows.c: sys.h on top of Winsock and kernel32.
 *
 * Errors of Winsock become the errnos of POSIX, as errno.h names them. Each function
 * first asks fdmux__fault whether to fail, which is constantly 0 in a release build. */
#if defined(_WIN32)

#include "sys.h"

#include <errno.h>
#include <limits.h>
#include <mswsock.h>
#include <process.h>
#include <stdatomic.h>
#include <string.h>

#include "testing.h"

#define PARTS_MAX 64 /* sent by one call */

/* ---- errors ---------------------------------------------------------------------- */

static const struct {
    int winsock;
    int posix;
} errors[] = {
    {WSAEACCES, EACCES},
    {WSAEADDRINUSE, EADDRINUSE},
    {WSAEADDRNOTAVAIL, EADDRNOTAVAIL},
    {WSAEAFNOSUPPORT, EAFNOSUPPORT},
    {WSAEALREADY, EALREADY},
    {WSAEBADF, EBADF},
    {WSAECONNABORTED, ECONNABORTED},
    {WSAECONNREFUSED, ECONNREFUSED},
    {WSAECONNRESET, ECONNRESET},
    {WSAEDESTADDRREQ, EDESTADDRREQ},
    {WSAEFAULT, EFAULT},
    {WSAEHOSTDOWN, EHOSTDOWN},
    {WSAEHOSTUNREACH, EHOSTUNREACH},
    {WSAEINTR, EINTR},
    {WSAEINVAL, EINVAL},
    {WSAEISCONN, EISCONN},
    {WSAEMFILE, EMFILE},
    {WSAEMSGSIZE, EMSGSIZE},
    {WSAENETDOWN, ENETDOWN},
    {WSAENETRESET, ENETRESET},
    {WSAENETUNREACH, ENETUNREACH},
    {WSAENOBUFS, ENOBUFS},
    {WSAENOPROTOOPT, ENOPROTOOPT},
    {WSAENOTCONN, ENOTCONN},
    {WSAENOTSOCK, ENOTSOCK},
    {WSAEOPNOTSUPP, EOPNOTSUPP},
    {WSAEPROTONOSUPPORT, EPROTONOSUPPORT},
    {WSAEPROTOTYPE, EPROTOTYPE},
    {WSAESHUTDOWN, EPIPE},
    {WSAETIMEDOUT, ETIMEDOUT},
    {WSAEWOULDBLOCK, EAGAIN},
    {WSA_INVALID_HANDLE, EBADF},
    {WSA_NOT_ENOUGH_MEMORY, ENOMEM},
    {WSA_OPERATION_ABORTED, ECANCELED},
};

int fdmux__errno_from_winsock(int winsock)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (errors[i].winsock == winsock)
            return errors[i].posix;
    }
    return EIO;
}

/* Winsock says WSAENOTSOCK of a number that is not open, too. */
static int error_of(fdmux_fd fd)
{
    int error = fdmux__errno_from_winsock(WSAGetLastError());
    DWORD flags;

    if (error == ENOTSOCK && !GetHandleInformation((HANDLE)fd, &flags))
        error = EBADF;
    return -error;
}

static int result_of(fdmux_fd fd, int value)
{
    return value == SOCKET_ERROR ? error_of(fd) : value;
}

static int size_of(size_t size)
{
    return size > INT_MAX ? INT_MAX : (int)size;
}

/* ---- time and threads ------------------------------------------------------------ */

static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
static LARGE_INTEGER frequency;

static BOOL CALLBACK start(INIT_ONCE *which, void *parameter, void **ret_context)
{
    WSADATA data;

    (void)which, (void)parameter, (void)ret_context;
    (void)QueryPerformanceFrequency(&frequency); /* cannot fail since Windows XP */
    /* Without Winsock each of its calls fails, with WSANOTINITIALISED. */
    (void)WSAStartup(MAKEWORD(2, 2), &data);
    return TRUE;
}

void fdmux__sys_start(void)
{
    (void)InitOnceExecuteOnce(&once, start, NULL, NULL); /* `start` cannot fail */
}

/* The counter that Python's time.monotonic reads, from 3.13 on. */
int64_t fdmux__sys_now(void)
{
    LARGE_INTEGER ticks;

    fdmux__sys_start();
    (void)QueryPerformanceCounter(&ticks);
    return ticks.QuadPart / frequency.QuadPart * FDMUX__NS_PER_S +
           ticks.QuadPart % frequency.QuadPart * FDMUX__NS_PER_S / frequency.QuadPart;
}

static unsigned __stdcall run_thread(void *userdata)
{
    const struct fdmux__thread *thread = userdata;

    thread->fn(thread->userdata);
    return 0;
}

int fdmux__sys_thread_start(struct fdmux__thread *thread, void (*fn)(void *userdata),
                            void *userdata)
{
    thread->fn = fn;
    thread->userdata = userdata;
    thread->handle = (HANDLE)_beginthreadex(NULL, 0, run_thread, thread, 0, NULL);
    return thread->handle == NULL ? -EAGAIN : 0;
}

void fdmux__sys_thread_join(struct fdmux__thread *thread)
{
    (void)WaitForSingleObject(thread->handle, INFINITE);
    (void)CloseHandle(thread->handle);
}

/* ---- sockets --------------------------------------------------------------------- */

static int set_blocking(fdmux_fd fd, bool is_blocking)
{
    u_long is_not = !is_blocking;

    return result_of(fd, ioctlsocket(fd, (long)FIONBIO, &is_not));
}

/* Returns the socket, or INVALID_SOCKET. */
static SOCKET new_socket(int family, int type)
{
    return WSASocketW(family, type, 0, NULL, 0,
                      WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
}

int fdmux__sys_socket(int family, int type, fdmux_fd *ret_fd)
{
    int r = fdmux__fault(FDMUX_CALL_SOCKET);
    SOCKET fd = r != 0 ? INVALID_SOCKET : new_socket(family, type);

    if (fd == INVALID_SOCKET)
        return r != 0 ? r : -fdmux__errno_from_winsock(WSAGetLastError());
    r = set_blocking(fd, false);
    if (r < 0) {
        (void)closesocket(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* There is no MSG_DONTWAIT, so the socket itself must not block. */
void fdmux__sys_adopt(fdmux_fd fd)
{
    (void)set_blocking(fd, false); /* a wrong socket fails at its first use */
}

int fdmux__sys_recv(fdmux_fd fd, void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_RECV);

    return fault != 0 ? fault
                      : result_of(fd, recv(fd, buffer, size_of(fdmux__short(size)), 0));
}

bool fdmux__sys_was_short(int count, size_t size)
{
    return (size_t)count < fdmux__short(size);
}

int fdmux__sys_send(fdmux_fd fd, const struct fdmux__part *parts, int count)
{
    WSABUF buffers[PARTS_MAX];
    int fault = fdmux__fault(FDMUX_CALL_SEND);
    DWORD used = (DWORD)(count > PARTS_MAX ? PARTS_MAX : count);
    DWORD sent = 0;
    int r;

    if (fault != 0)
        return fault;
    if (fdmux__short(SIZE_MAX) != SIZE_MAX)
        used = 1; /* tests of short sends */
    for (DWORD i = 0; i < used; i++) {
        buffers[i].buf = parts[i].base;
        buffers[i].len = (ULONG)size_of(fdmux__short(parts[i].size));
    }
    r = result_of(fd, WSASend(fd, buffers, used, &sent, 0, NULL, NULL));
    return r < 0 ? r : size_of(sent);
}

/* 0, or -errno. */
static int protocol_info(fdmux_fd fd, WSAPROTOCOL_INFOW *info)
{
    int size = sizeof *info;

    return result_of(
        fd, getsockopt(fd, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)info, &size));
}

bool fdmux__sys_is_tcp(fdmux_fd fd)
{
    WSAPROTOCOL_INFOW info;

    return protocol_info(fd, &info) == 0 && info.iProtocol == IPPROTO_TCP;
}

int fdmux__sys_family(fdmux_fd fd)
{
    WSAPROTOCOL_INFOW info;
    int r = protocol_info(fd, &info);

    return r < 0 ? r : info.iAddressFamily;
}

int fdmux__sys_set_option(fdmux_fd fd, int level, int option, int value)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault
                      : result_of(fd, setsockopt(fd, level, option, (char *)&value,
                                                 sizeof value));
}

int fdmux__sys_get_option(fdmux_fd fd, int level, int option)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);
    int value = 0;
    int size = sizeof value;
    int r = fault != 0
                ? fault
                : result_of(fd, getsockopt(fd, level, option, (char *)&value, &size));

    return r < 0 ? r : value;
}

/* Windows lets a listener have such an address anyway. SO_REUSEADDR would let it have
 * one that another listener uses now. */
int fdmux__sys_reuse_address(fdmux_fd fd)
{
    (void)fd;
    return fdmux__fault(FDMUX_CALL_SOCKET);
}

int fdmux__sys_reuse_port(fdmux_fd fd)
{
    (void)fd;
    return -EOPNOTSUPP;
}

int fdmux__sys_bind(fdmux_fd fd, const struct sockaddr *address, unsigned size)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault : result_of(fd, bind(fd, address, (int)size));
}

int fdmux__sys_listen(fdmux_fd fd, int backlog_count)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault : result_of(fd, listen(fd, backlog_count));
}

int fdmux__sys_connect(fdmux_fd fd, const struct sockaddr *address, unsigned size)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);
    int r = fault != 0 ? fault : result_of(fd, connect(fd, address, (int)size));

    return r == -EAGAIN ? -EINPROGRESS : r;
}

static unsigned internet_size(const struct sockaddr_storage *address, int size,
                              unsigned room)
{
    bool is_internet =
        size >= (int)sizeof(struct sockaddr_in) &&
        (address->ss_family == AF_INET || address->ss_family == AF_INET6);

    return is_internet && (unsigned)size <= room ? (unsigned)size : 0;
}

int fdmux__sys_accept(fdmux_fd fd, fdmux_fd *ret_fd, void *peer, unsigned *peer_size)
{
    struct sockaddr_storage address = {0};
    int size = sizeof address;
    int r = fdmux__fault(FDMUX_CALL_ACCEPT);
    SOCKET accepted = r != 0 ? INVALID_SOCKET : accept(fd, (void *)&address, &size);

    if (accepted == INVALID_SOCKET)
        return r != 0 ? r : error_of(fd);
    (void)SetHandleInformation((HANDLE)accepted, HANDLE_FLAG_INHERIT, 0);
    r = set_blocking(accepted, false);
    if (r < 0) {
        (void)closesocket(accepted);
        return r;
    }
    *peer_size = internet_size(&address, size, *peer_size);
    memcpy(peer, &address, *peer_size);
    *ret_fd = accepted;
    return 0;
}

int fdmux__sys_peer(fdmux_fd fd, void *peer, unsigned size)
{
    struct sockaddr_storage address = {0};
    int address_size = sizeof address;
    int r = result_of(fd, getpeername(fd, (void *)&address, &address_size));

    if (r < 0)
        return r;
    size = internet_size(&address, address_size, size);
    memcpy(peer, &address, size);
    return (int)size;
}

int fdmux__sys_shutdown(fdmux_fd fd)
{
    return result_of(fd, shutdown(fd, SD_SEND));
}

int fdmux__sys_connect_result(fdmux_fd fd)
{
    struct sockaddr_storage peer = {0}, own = {0};
    int size = sizeof peer, own_size = sizeof own;
    int error = 0;
    int error_size = sizeof error;
    int r = result_of(
        fd, getsockopt(fd, SOL_SOCKET, SO_ERROR, (char *)&error, &error_size));

    if (r < 0 || error != 0)
        return r < 0 ? r : -fdmux__errno_from_winsock(error);
    /* No error and no peer: still connecting. */
    if (getpeername(fd, (void *)&peer, &size) < 0)
        return -EINPROGRESS;
    if (getsockname(fd, (void *)&own, &own_size) < 0)
        return 0;
    /* TCP may connect a socket to itself, as on other systems. */
    return size == own_size && memcmp(&peer, &own, (size_t)size) == 0 ? -ECONNREFUSED
                                                                      : 0;
}

void fdmux__sys_no_delay(fdmux_fd fd)
{
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, (char *)&one, sizeof one);
}

/* ---- descriptors ----------------------------------------------------------------- */

/* The socket is gone whatever closesocket returns. */
int fdmux__sys_close(fdmux_fd fd)
{
    int r = result_of(fd, closesocket(fd));
    int fault = fdmux__fault(FDMUX_CALL_CLOSE);

    return fault != 0 ? fault : r;
}

int fdmux__sys_check_fd(fdmux_fd fd)
{
    int type;
    int size = sizeof type;

    return result_of(fd, getsockopt(fd, SOL_SOCKET, SO_TYPE, (char *)&type, &size)) < 0
               ? -EBADF
               : 0;
}

/* Anybody may connect to a listener on loopback: is it us? */
static bool is_peer_of(SOCKET accepted, SOCKET connected)
{
    struct sockaddr_in peer, own;
    int peer_size = sizeof peer, own_size = sizeof own;

    return getpeername(accepted, (void *)&peer, &peer_size) == 0 &&
           getsockname(connected, (void *)&own, &own_size) == 0 &&
           peer.sin_port == own.sin_port && peer.sin_addr.s_addr == own.sin_addr.s_addr;
}

/* Connect the second socket to the listener, and accept it as the first. */
static int connect_pair(SOCKET listener, SOCKET pair[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int size = sizeof address;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (void *)&address, size) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (void *)&address, &size) < 0 ||
        connect(pair[1], (void *)&address, size) < 0)
        return -fdmux__errno_from_winsock(WSAGetLastError());
    do {
        if (pair[0] != INVALID_SOCKET)
            (void)closesocket(pair[0]);
        pair[0] = accept(listener, NULL, NULL);
    } while (pair[0] != INVALID_SOCKET && !is_peer_of(pair[0], pair[1]));
    return pair[0] == INVALID_SOCKET ? -fdmux__errno_from_winsock(WSAGetLastError())
                                     : 0;
}

static int set_pair(SOCKET pair[2])
{
    int r = 0;

    for (int i = 0; i < 2 && r == 0; i++) {
        (void)SetHandleInformation((HANDLE)pair[i], HANDLE_FLAG_INHERIT, 0);
        fdmux__sys_no_delay(pair[i]);
        r = set_blocking(pair[i], false);
    }
    return r;
}

int fdmux__sys_pipe(fdmux_fd ret_fds[2])
{
    SOCKET pair[2] = {INVALID_SOCKET, INVALID_SOCKET};
    int r = fdmux__fault(FDMUX_CALL_PIPE);
    SOCKET listener = r != 0 ? INVALID_SOCKET : new_socket(AF_INET, SOCK_STREAM);

    if (listener == INVALID_SOCKET)
        return r != 0 ? r : -fdmux__errno_from_winsock(WSAGetLastError());
    pair[1] = new_socket(AF_INET, SOCK_STREAM);
    r = pair[1] == INVALID_SOCKET ? -fdmux__errno_from_winsock(WSAGetLastError())
                                  : connect_pair(listener, pair);
    (void)closesocket(listener);
    if (r == 0)
        r = set_pair(pair);
    for (int i = 0; i < 2 && r < 0; i++) {
        if (pair[i] != INVALID_SOCKET)
            (void)closesocket(pair[i]);
    }
    if (r < 0)
        return r;
    ret_fds[0] = pair[0];
    ret_fds[1] = pair[1];
    return 0;
}

int fdmux__sys_read(fdmux_fd fd, void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_READ);

    return fault != 0 ? fault : result_of(fd, recv(fd, buffer, size_of(size), 0));
}

int fdmux__sys_write(fdmux_fd fd, const void *buffer, size_t size)
{
    int fault = fdmux__fault(FDMUX_CALL_WRITE);

    return fault != 0 ? fault : result_of(fd, send(fd, buffer, size_of(size), 0));
}

/* ---- WSAPoll --------------------------------------------------------------------- */

_Static_assert(sizeof(fdmux__pollfd) == sizeof(WSAPOLLFD) &&
                   offsetof(fdmux__pollfd, revents) == offsetof(WSAPOLLFD, revents),
               "fdmux__pollfd is laid out as WSAPOLLFD");

/* WSAPoll fails if none of the sockets is open. If only some are closed, wine waits for
 * the others, and says so without counting it. */
static int poll_once(fdmux__pollfd *fds, size_t count, int timeout_ms)
{
    int r = WSAPoll((WSAPOLLFD *)fds, (ULONG)count, timeout_ms);
    int closed = 0;

    if (r > 0)
        return r;
    for (size_t i = 0; i < count && r == 0; i++)
        closed += (fds[i].revents & POLLNVAL) != 0;
    if (r == 0)
        return closed;
    r = -fdmux__errno_from_winsock(WSAGetLastError());
    for (size_t i = 0; i < count; i++) {
        fds[i].revents = fdmux__sys_check_fd(fds[i].fd) < 0 ? POLLNVAL : 0;
        closed += fds[i].revents != 0;
    }
    return closed > 0 ? closed : r;
}

/* The timeouts of WSAPoll are those of the clock tick, and may end early. */
int fdmux__sys_poll(fdmux__pollfd *fds, size_t count, int64_t timeout_ns)
{
    int64_t deadline_ns = timeout_ns > 0 ? fdmux__sys_now() + timeout_ns : 0;
    int r = fdmux__fault(FDMUX_CALL_WAIT);

    if (r != 0)
        return r;
    for (;;) {
        int64_t ms = timeout_ns < 0
                         ? -1
                         : (timeout_ns + FDMUX__NS_PER_MS - 1) / FDMUX__NS_PER_MS;

        r = poll_once(fds, count, ms > INT_MAX ? INT_MAX : (int)ms);
        if (r != 0 || timeout_ns == 0)
            return r;
        if (timeout_ns > 0) {
            timeout_ns = deadline_ns - fdmux__sys_now();
            if (timeout_ns <= 0)
                return 0;
        }
    }
}

bool fdmux__sys_poll_is_exact(void)
{
    return false;
}

/* ---- bells ----------------------------------------------------------------------- */

int fdmux__sys_bell_open(struct fdmux__bell *bell)
{
    /* Closing sends a reset: otherwise the port of each bell would stay in use for
     * minutes. */
    const struct linger none = {1, 0};
    fdmux_fd fds[2];
    int r;

    fdmux__sys_start();
    r = fdmux__sys_pipe(fds);
    if (r < 0)
        return r;
    for (int i = 0; i < 2; i++)
        (void)setsockopt(fds[i], SOL_SOCKET, SO_LINGER, (char *)&none, sizeof none);
    *bell = (struct fdmux__bell){fds[0], fds[1]};
    return 0;
}

void fdmux__sys_bell_close(struct fdmux__bell *bell)
{
    if (!fdmux__is_fd(bell->read_fd))
        return;
    (void)fdmux__sys_close(bell->write_fd);
    (void)fdmux__sys_close(bell->read_fd);
    *bell = FDMUX__BELL_NONE;
}

int fdmux__sys_bell_ring(const struct fdmux__bell *bell)
{
    int errno_before = WSAGetLastError();
    int r;

    do {
        r = fdmux__sys_write(bell->write_fd, "", 1);
    } while (r == -EINTR);
    WSASetLastError(errno_before);
    return r == -EAGAIN || r > 0 ? 0 : r;
}

int fdmux__sys_bell_silence(const struct fdmux__bell *bell)
{
    char buffer[64];
    int r;

    do {
        r = fdmux__sys_read(bell->read_fd, buffer, sizeof buffer);
    } while (r == (int)sizeof buffer || r == -EINTR);
    return r == -EAGAIN || r > 0 ? 0 : r;
}

#endif
