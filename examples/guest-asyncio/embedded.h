/* embedded.h: the service of service.py, for hosts in C.
 *
 * Its one rule: the host does not hold the GIL. Each function takes it and releases it,
 * in whatever callback of the host it is called. */
#ifndef EMBEDDED_H
#define EMBEDDED_H

#include <stdbool.h>

/* Start Python and the service. Returns the descriptor to watch for reading, or -1
 * after printing a traceback. */
int embedded_start(void);

/* Call this once when the descriptor is readable; it does not wait. Returns true when
 * the service has ended. An exception is printed and also ends it. */
bool embedded_dispatch(void);

/* Print the result and end Python. Returns the exit status: 0 if the result is right
 * and the exception arrived. */
int embedded_finish(const char *host);

#endif
