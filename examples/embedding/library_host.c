/* library_host.c: a C program that hosts Python without Python.h.
 *
 * It links libguest, whose functions are written in Python (guest.h). */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

#define WAIT_MS 10000 /* a missed event fails the program instead of hanging it */

static int report(const char *attempted)
{
    char text[2048] = "";

    (void)guest_error(text, sizeof text); /* on failure the text stays empty */
    (void)fprintf(stderr, "%s: %s\n", attempted, text);
    return -1;
}

/* Run the service until it answers. Returns the size of the answer, or -1. */
static ssize_t wait_for_answer(int fd, char *buffer, size_t size)
{
    struct pollfd fds[2] = {{.fd = guest_fd(), .events = POLLIN},
                            {.fd = fd, .events = POLLIN}};

    while (poll(fds, 2, WAIT_MS) > 0) {
        if (fds[0].revents != 0 && guest_dispatch() < 0)
            return report("dispatch");
        if (fds[1].revents != 0)
            return recv(fd, buffer, size, 0);
    }
    return -1;
}

/* Returns 0 if the service gives this answer; NULL: if it raises. */
static int converse(int fd, const char *request, const char *answer)
{
    char buffer[64];
    ssize_t size;

    if (send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
        return -1;
    size = wait_for_answer(fd, buffer, sizeof buffer);
    if (answer == NULL)
        return size == -1 ? 0 : -1;
    return size == (ssize_t)strlen(answer) &&
                   memcmp(buffer, answer, strlen(answer)) == 0
               ? 0
               : -1;
}

static int converse_all(int fd)
{
    int r = converse(fd, "hello", "hello");

    if (r == 0)
        r = converse(fd, "fail", NULL);
    if (r == 0)
        r = converse(fd, "timer", "a timer");
    if (r == 0)
        r = converse(fd, "thread", "a thread");
    return r;
}

int main(void)
{
    int pair[2];
    int r;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
        return 1;
    if (guest_start(pair[1]) <= 0)
        return report("start") < 0;
    r = converse_all(pair[0]);
    guest_stop();
    (void)close(pair[0]);
    puts(r == 0 ? "a library, ok" : "WRONG");
    return r == 0 ? 0 : 1;
}
