/* sys_kqueue.h: struct kevent, and the system calls of the backend kqueue, each as
 * in sys.h. */
#ifndef FDMUX_SYS_KQUEUE_H
#define FDMUX_SYS_KQUEUE_H

#include "sys.h"

#include <sys/types.h> /* NetBSD's sys/event.h needs it first */

#include <sys/event.h>

#define FDMUX__KEVENT_CHANGES_MAX 8
/* fdmux__sys_poll_devices takes descriptors below this. */
#define FDMUX__DEVICE_FD_MAX 65536

int fdmux__sys_kqueue(void);
/* Make `count` changes, and set each result to 0 or -errno. Overwrites `changes`. */
void fdmux__sys_kevent_change(int kq, struct kevent *changes, int count,
                              int *ret_results);
/* A negative timeout waits for ever. */
int fdmux__sys_kevent_wait(int kq, struct kevent *events, int capacity,
                           int64_t timeout_ns);
/* Trigger an EVFILT_USER. Preserves errno, so a signal handler may call it. */
int fdmux__sys_kevent_trigger(int kq, const struct kevent *change);
/* One of these, or -errno. Files and directories are always ready. */
enum { FDMUX__KIND_OTHER, FDMUX__KIND_FILE, FDMUX__KIND_SOCKET };
int fdmux__sys_kind(int fd);
/* fdmux__sys_poll for devices, too, which poll(2) of macOS does not support. */
int fdmux__sys_poll_devices(fdmux__pollfd *fds, size_t count, int64_t timeout_ns);

#endif
