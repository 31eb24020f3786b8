/* kqueue_probe.c: prints what an emulation of kqueue(2) lacks, one word a line.
 *
 * emulated.py has the cases that need it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <sys/event.h>

static int change(int kq, int fd, short filter, unsigned short flags)
{
    struct kevent entry = {0};

    entry.ident = (uintptr_t)fd;
    entry.filter = filter;
    entry.flags = flags;
    return kevent(kq, &entry, 1, NULL, 0, NULL);
}

/* READ and WRITE of one descriptor. */
static bool has_both(int kq, const int fds[2])
{
    return change(kq, fds[0], EVFILT_READ, EV_ADD) == 0 &&
           change(kq, fds[0], EVFILT_WRITE, EV_ADD) == 0;
}

/* The kqueue is readable when it has something to report. */
static bool is_pollable(int kq, const int fds[2])
{
    struct pollfd probe = {.fd = kq, .events = POLLIN};

    return change(kq, fds[0], EVFILT_READ, EV_ADD) == 0 && write(fds[1], "x", 1) == 1 &&
           poll(&probe, 1, 100) == 1;
}

/* close(2) removes the entries of a number. */
static bool notices_close(int kq, const int fds[2])
{
    int fd = dup(fds[0]);

    if (change(kq, fd, EVFILT_READ, EV_ADD) < 0)
        return false;
    close(fd);
    return dup2(fds[1], fd) == fd && change(kq, fd, EVFILT_READ, EV_ENABLE) < 0 &&
           errno == ENOENT;
}

/* No wait ends before its timeout. */
static bool is_exact(int kq, const int fds[2])
{
    const struct timespec timeout = {0, 1900000};
    bool is_early = false;

    (void)fds;
    for (int i = 0; i < 50 && !is_early; i++) {
        struct timespec before, after;
        struct kevent entry;
        int64_t ns;

        (void)clock_gettime(CLOCK_MONOTONIC, &before);
        (void)kevent(kq, NULL, 0, &entry, 1, &timeout);
        (void)clock_gettime(CLOCK_MONOTONIC, &after);
        ns = (after.tv_sec - before.tv_sec) * INT64_C(1000000000);
        is_early = ns + after.tv_nsec - before.tv_nsec < timeout.tv_nsec;
    }
    return !is_early;
}

static int open_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return count;
}

/* A kqueue is one descriptor. */
static bool is_one_descriptor(int kq, const int fds[2])
{
    int before = open_fds();
    int other = kqueue();

    (void)kq, (void)fds;
    return other >= 0 && open_fds() == before + 1;
}

int main(void)
{
    static const struct {
        const char *name;
        bool (*check)(int kq, const int fds[2]);
    } probes[] = {
        {"both", has_both},
        {"pollable", is_pollable},
        {"close", notices_close},
        {"exact", is_exact},
        {"descriptors", is_one_descriptor},
    };

    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
        int fds[2];
        int kq;

        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
            return 1;
        kq = kqueue();
        if (kq < 0)
            return 1;
        if (!probes[i].check(kq, fds))
            puts(probes[i].name);
    }
    return 0;
}
