/* guest.h: a service written in Python, as C functions of a shared library.
 *
 * A caller needs no Python.h and need not know about Python. The first call starts an
 * interpreter. Any thread may call; the functions take the GIL while they run. */
#ifndef GUEST_H
#define GUEST_H

/* cffi:begin */

/* Start a service on `socket_fd`, which it owns from then on. Returns 1; 0 if Python
 * could not be started (the reason is on standard error); -1 for an exception. */
int guest_start(int socket_fd);

/* Get the descriptor to watch for reading, level-triggered. Returns it, or -1. */
int guest_fd(void);

/* Run due callbacks without waiting, when guest_fd is readable or at any time. Returns
 * how many ran, or -1 for an exception; the service goes on. */
int guest_dispatch(void);

/* Get the text of the last exception, cut to `size`. Returns its whole length. */
int guest_error(char *ret_text, int size);

/* End the service. The interpreter stays; guest_start may be called again. */
void guest_stop(void);

/* cffi:end */

#endif
