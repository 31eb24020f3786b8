/* clients.h: four clients of one shape, each a library of its own in an fdmux loop.
 *
 * A client gets a question and answers with a text. The files that implement it know no
 * Python: the extension and ../../plain-c-clients compile the same ones. */
#ifndef CLIENTS_H
#define CLIENTS_H

#ifdef CLIENTS_IN_PYTHON
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#ifndef FDMUX_TABLE_SHARED /* module.c has the table; the others share it */
#define FDMUX_TABLE_EXTERN
#endif
/* Python.h comes first. */
#include <fdmux_python.h>
#else
#include <fdmux.h>
#endif

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Who asked, and wants `answer` called: with a text, which is valid during the call;
 * with NULL and no error, if there is nothing by that name; or with the error. */
struct asker {
    void (*answer)(void *userdata, const char *text, const char *error);
    void *userdata;
};

struct client_kind {
    const char *name;
    /* Make a client for a server, which it may connect to later. Returns 0 or -errno.
     */
    int (*open)(struct fdmux_loop *loop, const char *address, void **ret_client);
    /* Returns 0: the asker is answered once, perhaps before this returns, and in
     * `close` at the latest; or -errno: it never is. */
    int (*ask)(void *client, const char *question, struct asker asker);
    /* Answer all with an error, and free the client, also after the loop's end. Not
     * inside an answer. */
    void (*close)(void *client);
};

extern const struct client_kind redis_kind;      /* "HOST:PORT"; a command */
extern const struct client_kind http_kind;       /* "http://HOST:PORT"; a path */
extern const struct client_kind dns_kind;        /* "A.B.C.D:PORT"; a name */
extern const struct client_kind postgresql_kind; /* as PQconnectdb; a query */

/* Keep who asked until the library calls back. Returns NULL without memory. */
static inline struct asker *keep_asker(struct asker asker)
{
    struct asker *kept = (struct asker *)malloc(sizeof *kept);

    if (kept != NULL)
        *kept = asker;
    return kept;
}

static inline void answer_kept(struct asker *kept, const char *text, const char *error)
{
    struct asker asker = *kept;

    free(kept);
    asker.answer(asker.userdata, text, error);
}

/* Take "HOST:PORT" apart. Returns the port, or -EINVAL. */
static inline int split_address(const char *address, char *host, size_t size)
{
    const char *colon = strrchr(address, ':');
    size_t length = colon == NULL ? size : (size_t)(colon - address);
    long port = colon == NULL ? 0 : strtol(colon + 1, NULL, 10);

    if (length >= size || port <= 0 || port > 65535)
        return -EINVAL;
    memcpy(host, address, length);
    host[length] = '\0';
    return (int)port;
}

#endif
