/* guest.h: a service written in Python, as C functions of a shared library.
 *
 * Who uses it needs no Python.h and need not know that there is a Python. The first
 * call starts one. Any thread may call; the functions take the GIL for as long as they
 * run. */
#ifndef GUEST_H
#define GUEST_H

/* cffi:begin */

/* Start a service that talks over `socket_fd`, and owns it from then on. Returns 1; 0
 * if Python could not be started (why, is on standard error); -1 for an exception. */
int guest_start(int socket_fd);

/* The descriptor to watch for reading, level-triggered. Returns it, or -1. */
int guest_fd(void);

/* Do what is due, without waiting; when guest_fd is readable, or at any time. Returns
 * how many callbacks ran, or -1 for an exception; the service goes on. */
int guest_dispatch(void);

/* The text of the last exception, cut to `size`. Returns its whole length. */
int guest_error(char *ret_text, int size);

/* End the service. Python stays; guest_start may be called again. */
void guest_stop(void);

/* cffi:end */

#endif
