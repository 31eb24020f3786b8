/* choose.h: which backends there are, and which one a loop uses. */
#ifndef FDMUX_CHOOSE_H
#define FDMUX_CHOOSE_H

#include <stdint.h>

struct fdmux_loop;

/* cffi:begin */

/* The name of the backend at `index`, best first; NULL from the last one on. */
const char *fdmux__backend_name(uint32_t index);

/* cffi:end */

/* Open a backend for the loop: the one with this name, or, for NULL, the best that the
 * system supports. Returns 0, -ENOENT for an unknown name, or -errno. */
int fdmux__backend_open(struct fdmux_loop *loop, const char *name);

#endif
