/* model_state.h: the memory of the model, and what its files share. */
#ifndef FDMUX_KQUEUE_MODEL_STATE_H
#define FDMUX_KQUEUE_MODEL_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/event.h>

/* sys/event.h hides these from kqueue.c, as older systems do. */
#if defined(KQUEUE_MODEL_OLDEST)
#define EVFILT_USER 1
#define EVFILT_EXCEPT 2
#define EV_RECEIPT 0
#define NOTE_OOB 2
#define NOTE_NSECONDS 4
#define NOTE_TRIGGER 0x01000000
#endif

#define QUEUE_MAX 1024
#define SHUT_MAX 4096
#define IDENT_MAX 4 /* idents of timers and of user events: 0 to 3 */
enum { SET_READ, SET_WRITE, SET_EXCEPT, SET_COUNT };

struct knote {
    bool is_used;
    bool is_clear;
    bool is_once;
    void *udata;
};

struct timer {
    int fd; /* a timerfd; -1: no such knote */
    unsigned short flags;
    void *udata;
};

struct queue {
    _Atomic int kq; /* the outer set; 0: this entry is free */
    _Atomic int user_fds[IDENT_MAX]; /* eventfds; 0: no EVFILT_USER knote */
    struct kevent users[IDENT_MAX];
    int sets[SET_COUNT];
    struct knote *knotes[SET_COUNT]; /* by descriptor number */
    int capacity;
    struct timer timers[IDENT_MAX];
    int first_set; /* of the next scan, so that none is always last */
};

/* Apply one change; an errno, or 0. With the lock held. */
int model_change(struct queue *queue, const struct kevent *change);
/* Trigger an EVFILT_USER; an errno, or 0. Without the lock, for signal handlers. */
int model_trigger(const struct queue *queue, uintptr_t ident);
/* Take what is ready now. Returns how many. With the lock held. */
int model_scan(struct queue *queue, struct kevent *events, int capacity);
/* Remove what `fd` has in one of the inner sets. */
void model_drop_knote(struct queue *queue, int set, int fd);
void model_drop_timer(struct queue *queue, uintptr_t ident);
void model_drop_user(struct queue *queue, uintptr_t ident);
/* Make the kqueue readable when `fd` is; an errno, or 0. */
int model_watch(const struct queue *queue, int fd);
/* close(2) of the kernel. */
void model_close(int fd);
/* Was the writing side shut down by this process? */
bool model_is_shut(int fd);

#endif
