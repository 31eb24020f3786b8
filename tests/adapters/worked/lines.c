/* lines.c: see lines.h. */
#include "lines.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct lines {
    int fd, port;
    lines_fn fn;
    void *userdata;
    char in[128], out[4096];
    size_t in_size, out_size;
};

struct lines *lines_new(int port, lines_fn fn, void *userdata)
{
    struct lines *lines = (struct lines *)calloc(1, sizeof *lines);

    if (lines == NULL)
        return NULL;
    lines->fd = -1;
    lines->port = port;
    lines->fn = fn;
    lines->userdata = userdata;
    return lines;
}

static void drop_socket(struct lines *lines)
{
    if (lines->fd >= 0)
        close(lines->fd);
    lines->fd = -1;
    lines->in_size = 0;
}

int lines_connect(struct lines *lines)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)lines->port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    drop_socket(lines);
    lines->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (lines->fd < 0)
        return -errno;
    (void)fcntl(lines->fd, F_SETFL, O_NONBLOCK);
    if (connect(lines->fd, (struct sockaddr *)&address, sizeof address) < 0 &&
        errno != EINPROGRESS)
        return -errno;
    return 0;
}

int lines_send(struct lines *lines, const char *line)
{
    size_t size = strlen(line);

    if (size > 80 || lines->out_size + size + 1 > sizeof lines->out)
        return -ENOBUFS;
    memcpy(lines->out + lines->out_size, line, size);
    lines->out[lines->out_size + size] = '\n';
    lines->out_size += size + 1;
    return 0;
}

static void call_back(struct lines *lines)
{
    char *end;

    while ((end = (char *)memchr(lines->in, '\n', lines->in_size)) != NULL) {
        char line[sizeof lines->in];
        size_t size = (size_t)(end - lines->in);

        memcpy(line, lines->in, size);
        line[size] = '\0';
        lines->in_size -= size + 1;
        memmove(lines->in, end + 1, lines->in_size);
        lines->fn(lines, line, lines->userdata);
    }
}

static int lost(struct lines *lines)
{
    drop_socket(lines);
    return -ECONNRESET;
}

int lines_process(struct lines *lines)
{
    ssize_t size;

    if (lines->out_size > 0) {
        size = send(lines->fd, lines->out, lines->out_size, MSG_NOSIGNAL);
        if (size < 0 && errno != EAGAIN)
            return lost(lines);
        if (size > 0) {
            lines->out_size -= (size_t)size;
            memmove(lines->out, lines->out + size, lines->out_size);
        }
    }
    size = recv(lines->fd, lines->in + lines->in_size,
                sizeof lines->in - lines->in_size, 0);
    if (size == 0 || (size < 0 && errno != EAGAIN))
        return lost(lines);
    if (size > 0) {
        lines->in_size += (size_t)size;
        call_back(lines);
    }
    return 0;
}

int lines_fd(const struct lines *lines)
{
    return lines->fd;
}

int lines_wants_write(const struct lines *lines)
{
    return lines->out_size > 0;
}

void lines_free(struct lines *lines)
{
    drop_socket(lines);
    free(lines);
}
