/* wine_probe.c: what wine does otherwise than Windows, in plain Winsock without fdmux.
 *
 * Each line says what was found. tools/wine_known.txt names them as the reasons of
 * cases that cannot hold under wine; where a line says "no", those cases can. */
#include <winsock2.h>

#include <windows.h>

#include <ws2tcpip.h>

#include <stdbool.h>
#include <stdio.h>

static void say(const char *what, bool is_so)
{
    (void)printf("%s: %s\n", what, is_so ? "yes" : "no");
}

static struct sockaddr_in loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void connect_pair(SOCKET ret_pair[2])
{
    struct sockaddr_in address = loopback();
    int size = sizeof address;
    SOCKET listener = socket(AF_INET, SOCK_STREAM, 0);

    (void)bind(listener, (void *)&address, size);
    (void)listen(listener, 1);
    (void)getsockname(listener, (void *)&address, &size);
    ret_pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    (void)connect(ret_pair[1], (void *)&address, size);
    ret_pair[0] = accept(listener, NULL, NULL);
    (void)closesocket(listener);
}

/* A socket of datagrams that sends to a port where nobody listens. */
static SOCKET open_refused(void)
{
    struct sockaddr_in address = loopback();
    int size = sizeof address;
    u_long one = 1;
    SOCKET fd = socket(AF_INET, SOCK_DGRAM, 0);

    (void)bind(fd, (void *)&address, size);
    (void)getsockname(fd, (void *)&address, &size);
    (void)closesocket(fd);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    (void)ioctlsocket(fd, (long)FIONBIO, &one);
    (void)connect(fd, (void *)&address, size);
    return fd;
}

static bool is_readable(SOCKET fd)
{
    WSAPOLLFD probe = {.fd = fd, .events = POLLRDNORM};

    return WSAPoll(&probe, 1, 200) == 1;
}

static void probe_reset(void)
{
    const struct linger none = {1, 0};
    SOCKET pair[2];
    char byte;

    connect_pair(pair);
    (void)setsockopt(pair[1], SOL_SOCKET, SO_LINGER, (const char *)&none, sizeof none);
    (void)closesocket(pair[1]);
    (void)is_readable(pair[0]);
    say("reset: a receive after a wait tells the end instead",
        recv(pair[0], &byte, 1, 0) == 0);
    (void)closesocket(pair[0]);
}

static void probe_datagrams(void)
{
    SOCKET fd = open_refused();
    char byte;

    (void)send(fd, "x", 1, 0);
    say("refused datagram: no wait and no receive tells it",
        !is_readable(fd) && recv(fd, &byte, 1, 0) < 0 &&
            WSAGetLastError() == WSAEWOULDBLOCK);
    (void)closesocket(fd);
    fd = open_refused();
    (void)shutdown(fd, SD_RECEIVE);
    say("shut down datagrams: a receive tells it, and no wait",
        !is_readable(fd) && recv(fd, &byte, 1, 0) < 0 &&
            WSAGetLastError() == WSAESHUTDOWN);
    (void)closesocket(fd);
}

static void probe_closed(void)
{
    SOCKET pair[2];
    WSAPOLLFD probes[2] = {{.events = POLLRDNORM}, {.events = POLLRDNORM}};

    connect_pair(pair);
    probes[0].fd = pair[0];
    probes[1].fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)closesocket(probes[1].fd);
    say("closed socket: WSAPoll waits, and does not count it",
        WSAPoll(probes, 2, 50) == 0 && probes[1].revents == POLLNVAL);
    (void)closesocket(pair[0]);
    (void)closesocket(pair[1]);
}

static void probe_families(void)
{
    SOCKET fd = socket(AF_UNIX, SOCK_STREAM, 0);

    say("Unix sockets: there are none",
        fd == INVALID_SOCKET && WSAGetLastError() == WSAEAFNOSUPPORT);
    if (fd != INVALID_SOCKET)
        (void)closesocket(fd);
}

int main(void)
{
    WSADATA data;

    if (WSAStartup(MAKEWORD(2, 2), &data) != 0)
        return 1;
    probe_families();
    probe_reset();
    probe_datagrams();
    probe_closed();
    return 0;
}
