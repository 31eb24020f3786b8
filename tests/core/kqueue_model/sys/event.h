/* sys/event.h: the part of kqueue(2) that kqueue.c uses, for tests on Linux.
 *
 * The names and layouts are those of FreeBSD and macOS; kqueue_model.c has the
 * functions. It is a model made from the manual pages, and no BSD kernel. */
#ifndef FDMUX_KQUEUE_MODEL_SYS_EVENT_H
#define FDMUX_KQUEUE_MODEL_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    int64_t data;
    void *udata;
};

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_TIMER (-7)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

/* What came later: EV_RECEIPT is in NetBSD since 10, EVFILT_USER in NetBSD since 10 and
 * in OpenBSD since 7.8, EVFILT_EXCEPT in macOS and OpenBSD only, and NOTE_NSECONDS in
 * OpenBSD since 7.3. */
#if !defined(KQUEUE_MODEL_OLDEST)
#define EVFILT_USER (-10)
#define EVFILT_EXCEPT (-15)
#define EV_RECEIPT 0x0040
#define NOTE_OOB 0x00000002
#define NOTE_NSECONDS 0x00000004
#define NOTE_TRIGGER 0x01000000
#endif

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int change_count,
           struct kevent *events, int event_count, const struct timespec *timeout);

#endif
