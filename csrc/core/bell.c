/* bell.c: see bell.h. */
#include "bell.h"

#include <errno.h>
#include <stdint.h>

#include "../platform/sys.h"

int fdmux__bell_open(int *ret_read_fd, int *ret_write_fd)
{
    int fds[2];
    int r = -ENOSYS;

#if defined(__linux__)
    r = fdmux__sys_eventfd();
    if (r >= 0) {
        *ret_read_fd = *ret_write_fd = r;
        return 0;
    }
#endif
    if (r == -EMFILE || r == -ENFILE)
        return r; /* a pipe needs two descriptors */
    r = fdmux__sys_pipe(fds);
    if (r < 0)
        return r;
    *ret_read_fd = fds[0];
    *ret_write_fd = fds[1];
    return 0;
}

/* Errors are ignored: close(2) releases the descriptor whatever it returns. */
void fdmux__bell_close(int read_fd, int write_fd)
{
    if (write_fd != read_fd)
        (void)fdmux__sys_close(write_fd);
    if (read_fd >= 0)
        (void)fdmux__sys_close(read_fd);
}

int fdmux__bell_ring(int write_fd)
{
    uint64_t one = 1; /* eventfd(2) takes eight bytes; a pipe takes anything */
    int errno_before = errno;
    int r;

    do {
        r = fdmux__sys_write(write_fd, &one, sizeof one);
    } while (r == -EINTR);
    errno = errno_before;
    return r == -EAGAIN || r > 0 ? 0 : r;
}

int fdmux__bell_silence(int read_fd)
{
    uint64_t buffer[8];
    int r;

    do {
        r = fdmux__sys_read(read_fd, buffer, sizeof buffer);
    } while (r == (int)sizeof buffer || r == -EINTR);
    return r == -EAGAIN || r > 0 ? 0 : r;
}
