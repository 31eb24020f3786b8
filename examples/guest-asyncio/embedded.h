/* embedded.h: the service of service.py, as the hosts in C see it.
 *
 * Its one rule: the host holds no GIL. Each function takes it for itself, from whatever
 * callback of the host's it is called in, and gives it back. */
#ifndef EMBEDDED_H
#define EMBEDDED_H

#include <stdbool.h>

/* Start Python, and the service. Returns the descriptor to watch for reading, or -1
 * after a traceback. */
int embedded_start(void);

/* The descriptor is readable: one call, which does not wait. Returns true once the
 * service has ended. An exception is shown, and ends it too. */
bool embedded_dispatch(void);

/* Show what came out, and end Python. Returns the exit status: 0 if the result was as
 * it should be, and the exception arrived. */
int embedded_finish(const char *host);

#endif
