/* every_call.h: one call of each function that takes a loop, in which at most the loop
 * or the token is wrong.
 *
 * The table must grow with the function table: test_misuse.c compares their sizes. */
#ifndef FDMUX_TESTS_EVERY_CALL_H
#define FDMUX_TESTS_EVERY_CALL_H

#include "fdmux_datagram.h"
#include "fdmux_tls.h"
#include "stream_fixtures.h"

/* What a token is for; KINDLESS functions take none. */
enum kind { KINDLESS, IO, TIMER, HOOK, STREAM, ENDPOINT, TOKEN_KINDS };

struct call {
    const char *name; /* as in the public headers, without fdmux_ */
    enum kind kind;
    int (*call)(struct fdmux_loop *loop, uint64_t token);
};

extern const struct call every_call[];
extern const size_t every_call_count;

bool is_call(const struct call *call, const char *name);
int call_by_name(const char *name, struct fdmux_loop *loop, uint64_t token);

#endif
