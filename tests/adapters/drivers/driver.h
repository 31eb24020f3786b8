/* driver.h: what a driver of one library gives to the trials, and what it tells them.
 *
 * A driver uses its library through the adapter alone, and knows no Python loop. It is
 * compiled twice: for an extension (DRIVER_PYTHON), and for a plain C program. */
#ifndef DRIVER_H
#define DRIVER_H

#ifdef DRIVER_PYTHON
#include <Python.h>
#include <fdmux_python.h>
#else
#include <fdmux.h>
#endif

#include <stdlib.h>
#include <string.h>

/* Adapters get memory from here, so that a trial can let it fail. */
void *driver_calloc(size_t count, size_t size);
#define calloc(count, size) driver_calloc(count, size)

#define TIMEOUT_MS 50 /* for libraries whose timeout can be chosen */

struct trial {
    struct fdmux_loop *loop;
    const char *address;  /* of the server */
    const char *silent;   /* 127.0.0.1:PORT, which accepts and never answers */
    int silent_port;
    struct trial_state *state;
};

struct library {
    const char *name;
    const char *(*version)(void);
    int timeout_ms; /* of begin_timeout; not reported earlier */
    /* Begin to connect; `trial_ready` or `trial_lost` follows, within or later. */
    int (*open)(struct trial *trial, void **ret_client);
    /* Ask for `number`; trial_answer or trial_failed follows. */
    int (*request)(void *client, int number);
    /* Begin something that ends by the library's timeout: trial_timed_out follows. */
    int (*begin_timeout)(void *client);
    /* Connect again after trial_lost; NULL: close and open. */
    int (*reopen)(void *client);
    /* Free everything, at any time, also within a callback and after the loop. */
    void (*close)(void *client);
    int *live_count; /* clients that are not freed yet */
    int needs_wake;  /* after a request outside of the loop's functions */
};

void trial_ready(struct trial *trial);
void trial_lost(struct trial *trial);
void trial_answer(struct trial *trial, int number, int is_right);
void trial_failed(struct trial *trial, int number);
void trial_timed_out(struct trial *trial);

#endif /* DRIVER_H */
